"""A backend that breaks what another one does: the faults that every driver has to survive.

They are made at the port, so they are the same on a model and on a real device.
"""

from __future__ import annotations

import mmap
import select
from collections.abc import Callable, Mapping, Sequence

from uspace_drv.eventfd import EventFd
from uspace_drv.port import (
    Backend,
    BareDmaSpace,
    Direction,
    DmaSpace,
    HasNotices,
    Iova,
    IovaRange,
    IrqKind,
    IrqLine,
    Notice,
    Window,
)


class FaultyBackend:
    """Fills the port's `Backend` by another one, and misbehaves as its attributes say.

    `reads_all_ones`: the device is gone from the bus; may be switched on at any time.
    `interrupts`: 0 for lost, 1, or 2 for each one followed by a second one without a cause.
    `drops_mappings`: DMA memory is unmapped as soon as it was mapped.
    """

    def __init__(
        self, backend: Backend, *, interrupts: int = 1, drops_mappings: bool = False
    ) -> None:
        self.reads_all_ones = False
        self.address = backend.address
        self.via = backend.via
        self.bar_sizes: Mapping[int, int] = backend.bar_sizes
        self.irq_counts: Mapping[IrqKind, int] = backend.irq_counts
        self.can_reset = backend.can_reset
        self.reset = backend.reset
        self.close = backend.close
        self._backend = backend
        self._interrupts = interrupts
        self._drops_mappings = drops_mappings
        self._space: FaultyDmaSpace | None = None

    @property
    def config(self) -> Window | None:
        """The other one's, or all ones."""
        config = self._backend.config
        return None if config is None else FaultyWindow(config, self._is_gone)

    def bar(self, number: int) -> Window:
        """The other one's, or all ones."""
        return FaultyWindow(self._backend.bar(number), self._is_gone)

    def irq_line(self, kind: IrqKind, index: int) -> IrqLine:
        """The other one's, lost or doubled."""
        return FaultyIrqLine(self._backend.irq_line(kind, index), self._interrupts)

    def watch(self, tell: Callable[[Notice], None]) -> Callable[[], None]:
        """Hear what the host says to the other one, where it says anything."""
        return self._backend.watch(tell) if isinstance(self._backend, HasNotices) else _nothing

    @property
    def dma(self) -> DmaSpace:
        """The other one's, whose mappings do not last."""
        if not self._drops_mappings:
            return self._backend.dma
        self._space = FaultyDmaSpace(self.address, self._backend.dma)
        return self._space

    @property
    def dropped(self) -> int:
        """How many mappings did not last; none where there is no IOMMU to take them away."""
        return self._space.dropped if self._space else 0

    def _is_gone(self) -> bool:
        return self.reads_all_ones


def _nothing() -> None:
    """End a watch that there is none of."""


class FaultyWindow:
    """Fills the port's `Window`: of a device that is gone, reads are all ones, writes get lost."""

    def __init__(self, window: Window, is_gone: Callable[[], bool]) -> None:
        self.name = window.name
        self.size = window.size
        self.memory = window.memory
        self.close = window.close
        self.read8 = _reader(window.read8, 8, is_gone)
        self.read16 = _reader(window.read16, 16, is_gone)
        self.read32 = _reader(window.read32, 32, is_gone)
        self.read64 = _reader(window.read64, 64, is_gone)
        self.write8 = _writer(window.write8, is_gone)
        self.write16 = _writer(window.write16, is_gone)
        self.write32 = _writer(window.write32, is_gone)
        self.write64 = _writer(window.write64, is_gone)


def _reader(
    read: Callable[[int], int], width: int, is_gone: Callable[[], bool]
) -> Callable[[int], int]:
    return lambda offset: (1 << width) - 1 if is_gone() else read(offset)


def _writer(
    write: Callable[[int, int], None], is_gone: Callable[[], bool]
) -> Callable[[int, int], None]:
    return lambda offset, value: None if is_gone() else write(offset, value)


class FaultyIrqLine:
    """Fills the port's `IrqLine`: an epoll descriptor over the other line and an echo."""

    def __init__(self, line: IrqLine, copies: int) -> None:
        self.kind = line.kind
        self.mask = line.mask
        self.unmask = line.unmask
        self._line = line
        self._copies = copies
        self._echo = EventFd()
        self._both = select.epoll()
        self._both.register(self._echo, select.EPOLLIN)
        if copies:
            self._both.register(line, select.EPOLLIN)
        self.fileno = self._both.fileno

    def take(self) -> int:
        """What came, and what is echoed."""
        if not self._copies:
            return 0
        echoed = self._echo.take()
        came = self._line.take()
        for _ in range(came * (self._copies - 1)):
            self._echo.signal()
        return came + echoed

    def close(self) -> None:
        """Close both."""
        self._both.close()
        self._echo.close()
        self._line.close()


class FaultyDmaSpace(BareDmaSpace):
    """Fills the port's `DmaSpace`: what is mapped does not stay."""

    def __init__(self, name: str, space: DmaSpace) -> None:
        self.name = name
        self.page_size = space.page_size
        self.ranges: Sequence[IovaRange] | None = space.ranges
        self.entry_limit = space.entry_limit
        self.dropped = 0
        self._space = space

    def memory(self, size: int, reach: int) -> mmap.mmap:
        """As the other one."""
        return self._space.memory(size, reach)

    def map(self, address: int, size: int, iova: Iova | None, direction: Direction) -> Iova:
        """Map it and unmap it."""
        where = self._space.map(address, size, iova, direction)
        self._space.unmap(where, size)
        self.dropped += self.ranges is not None
        return where

    def unmap(self, iova: Iova, size: int) -> None:
        """Nothing is left to unmap."""

    def unmap_all(self) -> None:
        """Nothing is left to unmap."""

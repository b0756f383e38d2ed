"""The device as a driver holds it: windows, interrupts, DMA memory, configuration, reset.

It is handed an open backend and does not know which one. It owns what it hands out: `close()` ends
interrupts, then DMA, then windows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import cached_property, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from uspace_drv import native
from uspace_drv.dma import Dma
from uspace_drv.errors import (
    BusyError,
    ClosedError,
    DeviceError,
    DeviceGone,
    NoDevice,
    RegisterValueError,
    UnsupportedError,
)
from uspace_drv.health import Health
from uspace_drv.irq import Irq
from uspace_drv.pci import config as pci_config
from uspace_drv.port import (
    Backend,
    CombinesWrites,
    HasFeatures,
    HasNotices,
    HasRom,
    IrqKind,
    Notice,
    Window,
)
from uspace_drv.teardown import Teardown

P = ParamSpec("P")
T = TypeVar("T")

_ROM = -1  # in place of a BAR's number


def _in_turn(
    method: Callable[Concatenate[Device, P], T],
) -> Callable[Concatenate[Device, P], T]:
    """Do it before or after `close()`, never at the same time: the host may take the device."""

    @wraps(method)
    def run(self: Device, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._turn:
            return method(self, *args, **kwargs)

    return run


class Device:
    """One open device; `dma_bits` is what its driver says that it reaches.

    `irq_kind` forces a way to signal; without it the best that the device has is taken.
    """

    def __init__(
        self, backend: Backend, *, dma_bits: int = 64, irq_kind: IrqKind | None = None
    ) -> None:
        self._backend = backend
        self._dma_bits = dma_bits
        self._irq_kind = irq_kind
        self.health = Health(self.address, self.check_present)
        """What the host has said against the device; asked by everything that waits for it."""
        self._windows: dict[int, Window] = {}
        self._combined: set[int] = set()
        self._irqs: dict[int, Irq] = {}
        self._dma: Dma | None = None
        self._closed = False
        self._turn = threading.RLock()

    @property
    def address(self) -> str:
        """As the user wrote it."""
        return self._backend.address

    @property
    def via(self) -> str:
        """What it was opened through: 'vfio', 'uio', 'virtual'."""
        return self._backend.via

    @property
    def bar_sizes(self) -> Mapping[int, int]:
        """Number and size in bytes of every BAR that is implemented."""
        return self._backend.bar_sizes

    @_in_turn
    def bar(self, number: int, *, combining: bool = False) -> Window:
        """The window on a BAR: the same one each time, open as long as the device.

        `combining` lets the processor put stores together and reorder them, which is fast for
        memory and wrong for registers: for a prefetchable BAR, where the way in offers it, else
        `UnsupportedError`. A BAR is open either so or so: `BusyError` for the other one.
        """
        self._check_open()
        if number not in self._windows:
            if number not in self.bar_sizes:
                raise NoDevice(
                    f"{self.address}: no BAR {number}; it has {_numbers(self.bar_sizes)}"
                )
            self._windows[number] = self._linked(
                self._open_combined(number) if combining else self._backend.bar(number)
            )
            if combining:
                self._combined.add(number)
        if combining is not (number in self._combined):
            how = "with" if number in self._combined else "without"
            raise BusyError(f"{self.address} bar {number}: is open {how} write-combining")
        return self._windows[number]

    @_in_turn
    def rom(self) -> Window:
        """Open the expansion ROM, read-only; open as long as the device.

        Raises `NoDevice` where the function has none, `UnsupportedError` where the way in does
        not show it.
        """
        self._check_open()
        if _ROM not in self._windows:
            if not isinstance(self._backend, HasRom):
                raise UnsupportedError(f"{self.address}: no ROM through {self.via}; VFIO shows it")
            self._windows[_ROM] = self._linked(self._backend.rom())
        return self._windows[_ROM]

    @property
    def features(self) -> Any:
        """What else the kernel does for the device: `uspace_drv.backends.vfio.features.Features`.

        Low power, hot reset, migration and more; `UnsupportedError` where it is not VFIO.
        """
        self._check_open()
        if not isinstance(self._backend, HasFeatures):
            raise UnsupportedError(
                f"{self.address}: no features of the kernel through {self.via}; VFIO has them"
            )
        return self._backend.features

    @property
    def config(self) -> Window:
        """PCI configuration space."""
        if self._backend.config is None:
            raise UnsupportedError(f"{self.address}: no PCI configuration space through {self.via}")
        return self._linked(self._backend.config)

    @property
    def irq_kind(self) -> IrqKind:
        """How it signals: what was forced, else the best that it has."""
        counts = self._backend.irq_counts
        if self._irq_kind is not None and self._irq_kind not in counts:
            offered = ", ".join(kind.value for kind in counts) or "none"
            raise UnsupportedError(
                f"{self.address}: no {self._irq_kind.value} interrupts through {self.via}; "
                f"it offers {offered}"
            )
        for kind in (IrqKind.MSIX, IrqKind.MSI, IrqKind.INTX):
            if kind in counts and self._irq_kind in {kind, None}:
                return kind
        raise UnsupportedError(
            f"{self.address}: no interrupts through {self.via}: poll instead, or open it by a way "
            "that has them, such as vfio or uio"
        )

    @property
    def irq_count(self) -> int:
        """How many interrupts it has, 0 where it can only be polled."""
        counts = self._backend.irq_counts
        return counts[self.irq_kind] if counts else 0

    @_in_turn
    def irq(self, index: int = 0) -> Irq:
        """Interrupt `index`, switched on: the same object each time, open as long as the device."""
        self._check_open()
        if index not in self._irqs:
            kind = self.irq_kind
            if not 0 <= index < self.irq_count:
                raise RegisterValueError(
                    f"{self.address}: no interrupt {index}; {kind.value} has {self.irq_count}"
                )
            line = self._backend.irq_line(kind, index)
            name = f"{self.address} {kind.value} {index}"
            self._irqs[index] = Irq(line, name, self.check_present, self.health)
        return self._irqs[index]

    @cached_property
    @_in_turn
    def dma(self) -> Dma:
        """Its view of memory, or `UnsupportedError` where it may not have any."""
        self._check_open()
        if self._dma is None:
            alive = self.health.check_alive
            self._dma = Dma(self._backend.dma, self.address, self._dma_bits, alive)
        return self._dma

    @property
    def can_reset(self) -> bool:
        """Whether there is a reset through this backend."""
        return self._backend.can_reset

    @_in_turn
    def reset(self) -> None:
        """Reset the function, after which it is well; `UnsupportedError` where there is no way to.

        Its interrupts stay switched on.
        """
        self._check_open()
        self.require_reset()
        self._backend.reset()
        self.health.recover()

    def require_reset(self) -> None:
        """Raise `UnsupportedError` where there is no way to reset it."""
        if not self.can_reset:
            raise UnsupportedError(f"{self.address}: no reset through {self.via}")

    def set_bus_master(self, on: bool) -> None:
        """Let it reach memory and send MSI, or stop both; nothing where there is no PCI."""
        if self._backend.config is not None:
            pci_config.set_bus_master(self._backend.config, on)

    def check_present(self) -> None:
        """Raise `DeviceGone` if configuration space answers all ones."""
        if self._backend.config is not None and not pci_config.is_present(self._backend.config):
            raise DeviceGone(f"{self.address}: configuration space reads all ones: it is gone")

    def watch(self, tell: Callable[[Notice], None]) -> Callable[[], None]:
        """Call `tell` for what the host says, where the way in hears it; the result ends that."""
        if not isinstance(self._backend, HasNotices):
            return _nothing
        return self._backend.watch(tell)

    def fail(self, kind: type[DeviceError], reason: str) -> None:
        """End every wait for the device with such an error, until a reset; `DeviceGone` is final.

        Once it is closed, every other use raises the same instead of `ClosedError`.
        """
        self.health.fail(kind, reason)
        for irq in list(self._irqs.values()):
            irq.rouse()

    def close(self) -> None:
        """End interrupts, unmap DMA memory, close windows, in this order. Twice is fine."""
        with self._turn:
            self._closed = True
            windows, irqs, dma = self._windows, self._irqs, self._dma
            self._windows, self._irqs, self._dma = {}, {}, None
            self.__dict__.pop("dma", None)  # so that it is asked for again, and refused
        way_out = Teardown()
        for number, window in windows.items():
            way_out.push(f"close {'the ROM' if number == _ROM else f'BAR {number}'}", window.close)
        if dma is not None:
            way_out.push("unmap DMA memory", dma.close)
        for index, irq in irqs.items():
            way_out.push(f"switch off interrupt {index}", irq.close)
        way_out.run()

    def _open_combined(self, number: int) -> Window:
        if not isinstance(self._backend, CombinesWrites):
            raise UnsupportedError(
                f"{self.address} bar {number}: no write-combining through {self.via}; "
                "sysfs has it for a prefetchable BAR (--via sysfs or uio)"
            )
        return self._backend.write_combined(number)

    def _linked(self, window: Window) -> Window:
        """Let waits for a register of it ask about the device's health."""
        if isinstance(window, native.Window) and window.link is None:
            window.link = self.health
        return window

    def _check_open(self) -> None:
        if self._closed:
            self.health.check_alive()
            raise ClosedError(f"{self.address} is closed")


def _nothing() -> None:
    """End a watch that there is none of."""


def _numbers(numbers: Mapping[int, int]) -> str:
    return ", ".join(str(number) for number in sorted(numbers)) or "none"

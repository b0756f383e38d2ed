"""The port: what a backend gives to a `Device`, and all that a `Device` knows of what is under it.

A backend opens one device when it is made and gives everything back in `close()`. It hands out
parts and owns none of them: the `Device` closes windows, interrupt lines and mappings first.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, Flag
from typing import NewType, Protocol

from uspace_drv import registers

Iova = NewType("Iova", int)
"""An address as the device sees it; never a virtual address of this process."""


class IrqKind(Enum):
    """How a PCI function signals, worst first."""

    INTX = "intx"
    MSI = "msi"
    MSIX = "msix"


class Direction(Flag):
    """What the device may do with a piece of memory."""

    TO_DEVICE = 1
    FROM_DEVICE = 2
    BOTH = 3


@dataclass(frozen=True)
class IovaRange:
    """IOVAs from `start` to `end`, both included, that the host's IOMMU can map."""

    start: int
    end: int


class Window(registers.Window, Protocol):
    """A bounded range of registers or memory; one access is one load or store of that width.

    Offsets are in bytes from the start and aligned to the width. Raises `RegisterValueError` for
    an offset or a value that does not fit, `ClosedError`, and `DeviceGone` after a bus error.
    """

    def memory(self) -> memoryview:
        """View it as bytes, where the author knows that it is memory and not registers."""

    def close(self) -> None:
        """Give the pages back; may be called twice."""


class IrqLine(Protocol):
    """One interrupt of the device, as a file descriptor that becomes readable when it fires."""

    @property
    def kind(self) -> IrqKind:
        """An INTX line is masked when it fires, until `unmask()`; the others never are."""

    def fileno(self) -> int:
        """The descriptor to poll for reading."""

    def take(self) -> int:
        """Interrupts since the last call, 0 if none; never blocks."""

    def mask(self) -> None:
        """Hold it back, or `UnsupportedError`."""

    def unmask(self) -> None:
        """Let it fire again; fires at once if a level interrupt is still asserted."""

    def close(self) -> None:
        """Switch it off in the device or kernel, then close the descriptor."""


class DmaSpace(Protocol):
    """Memory as the device sees it, through the host's IOMMU or (unsafely) without."""

    @property
    def page_size(self) -> int:
        """Bytes; every IOVA, address and size handed to `map` is a multiple of it."""

    @property
    def ranges(self) -> Sequence[IovaRange] | None:
        """What may be mapped, ascending; None where memory has one fixed (physical) IOVA."""

    @property
    def entry_limit(self) -> int | None:
        """The most mappings that may exist at once, where the host has such a limit."""

    def memory(self, size: int, reach: int) -> mmap.mmap:
        """New zeroed memory that can be mapped, page-aligned; `reach` is the last usable IOVA."""

    def map(self, address: int, size: int, iova: Iova | None, direction: Direction) -> Iova:
        """Show `size` bytes at virtual `address` to the device; `iova` is None where it is fixed.

        Returns the IOVA. The memory stays in place until `unmap`.
        """

    def unmap(self, iova: Iova, size: int) -> None:
        """Take it away from the device, at once."""


class Backend(Protocol):
    """One open device."""

    @property
    def address(self) -> str:
        """As the user wrote it: '0000:00:04.0', 'virtual:edu'."""

    @property
    def via(self) -> str:
        """The way in, for people: 'vfio', 'uio', 'virtual'."""

    @property
    def config(self) -> Window | None:
        """PCI configuration space, open as long as the backend; None where there is none."""

    @property
    def bar_sizes(self) -> Mapping[int, int]:
        """Number and size in bytes of every BAR that is implemented."""

    def bar(self, number: int) -> Window:
        """Open one of `bar_sizes`; the caller closes it."""

    @property
    def irq_counts(self) -> Mapping[IrqKind, int]:
        """How many interrupts of each kind; kinds without any are left out."""

    def irq_line(self, kind: IrqKind, index: int) -> IrqLine:
        """Switch on interrupt `index`; one kind at a time. The caller closes it."""

    @property
    def dma(self) -> DmaSpace:
        """The device's view of memory, or `UnsupportedError` where it may not have any."""

    @property
    def can_reset(self) -> bool:
        """Whether `reset()` does something."""

    def reset(self) -> None:
        """Reset the function."""

    def close(self) -> None:
        """Give everything back; may be called twice."""

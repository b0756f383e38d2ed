"""The port: what a backend gives to a `Device`, and all that a `Device` knows of what is under it.

A backend opens one device when it is made and gives everything back in `close()`. It hands out
parts and owns none of them: the `Device` closes windows, interrupt lines and mappings first.

What only some backends and lines can do is a protocol of its own, from `HasRom` on: they fill it by
having its methods, others need nothing, and the `Device` asks with `isinstance`.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, Flag, IntEnum
from typing import Any, NamedTuple, NewType, Protocol, runtime_checkable

from uspace_drv import registers
from uspace_drv.errors import UnsupportedError
from uspace_drv.pci.ids import Identity

Iova = NewType("Iova", int)
"""An address as the device sees it; never a virtual address of this process."""


class IrqKind(Enum):
    """How a PCI function signals, worst first."""

    INTX = "intx"
    MSI = "msi"
    MSIX = "msix"


class Notice(Enum):
    """What the host says about the device, apart from the device's own interrupts."""

    ERROR = "error"
    """The bus reported an uncorrectable error (PCIe 6.0, section 6.2)."""
    REQUEST = "request"
    """The host wants the device back: it is being unbound or unplugged."""


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

    def memory(self, offset: int = 0, size: int | None = None) -> memoryview:
        """View it as bytes, where the author knows that it is memory and not registers.

        `size` bytes from `offset` on, all that follows if not told. Raises `UnsupportedError`
        where any of that is reached by calls, as registers of a model are.
        """

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

    def unmap_all(self) -> None:
        """Take everything away that was mapped here, in as few calls as the way has."""

    def map_file(
        self, fd: int, offset: int, size: int, iova: Iova | None, direction: Direction
    ) -> Iova:
        """Show `size` bytes of a memfd or dma-buf from `offset` on, mapped here or not.

        Raises `UnsupportedError` where the way in has none of that.
        """

    def start_dirty_tracking(self) -> None:
        """From now on remember which pages the device writes, or `UnsupportedError`."""

    def stop_dirty_tracking(self) -> None:
        """Forget it."""

    def dirty_pages(self, iova: Iova, size: int) -> bytes:
        """Which pages were written: a bit for each of `page_size` from `iova` on, lowest first.

        Asking clears them. Raises `UnsupportedError` where nobody remembers.
        """


class DmaKernel(IntEnum):
    """Which of the kernel's interfaces maps memory, where one does (native/dma.h, dma_kernel)."""

    NONE = 0
    TYPE1 = 1
    IOAS = 2


class DmaCalls(NamedTuple):
    """How mapping is one ioctl: on which descriptor, and in which address space of an iommufd."""

    kernel: DmaKernel = DmaKernel.NONE
    fd: int = -1
    ioas: int = 0


@runtime_checkable
class HasDmaCalls(Protocol):
    """A `DmaSpace` of the kernel's: `map` and `unmap` may be one ioctl in C, without Python.

    Its Python methods say what is wrong where the ioctl fails: they are called then, and try again.
    """

    @property
    def dma_calls(self) -> DmaCalls:
        """What to call; the descriptor stays open as long as anything is mapped."""


class BareDmaSpace:
    """For a `DmaSpace` to derive from: refuses what only some ways have.

    `name` is the device's address, for errors.
    """

    name: str

    def map_file(
        self, fd: int, offset: int, size: int, iova: Iova | None, direction: Direction
    ) -> Iova:
        """Refuse it."""
        raise UnsupportedError(
            f"{self.name}: memory cannot be mapped by its file this way; an iommufd can: "
            "--via vfio-cdev, on Linux 6.13 or newer with CONFIG_IOMMUFD"
        )

    def start_dirty_tracking(self) -> None:
        """Refuse it."""
        raise self._untracked()

    def stop_dirty_tracking(self) -> None:
        """Refuse it."""
        raise self._untracked()

    def dirty_pages(self, iova: Iova, size: int) -> bytes:
        """Refuse it."""
        raise self._untracked()

    def _untracked(self) -> UnsupportedError:
        return UnsupportedError(
            f"{self.name}: nobody tracks what the device writes this way; VFIO's type1 container "
            "does (--via vfio-type1, on Linux 5.8 or newer)"
        )


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


@runtime_checkable
class HasRom(Protocol):
    """A backend that shows the function's expansion ROM (PCIe 6.0, section 7.5.1.2.4)."""

    def rom(self) -> Window:
        """Open it, read-only; the caller closes it. `NoDevice` where the function has none."""


@runtime_checkable
class CombinesWrites(Protocol):
    """A backend that maps a prefetchable BAR so that the processor may put stores together."""

    def write_combined(self, number: int) -> Window:
        """Open one of `bar_sizes` so; the caller closes it. `UnsupportedError` where it cannot."""


@runtime_checkable
class HasNotices(Protocol):
    """A backend through which the host says more than the device's interrupts do."""

    def watch(self, tell: Callable[[Notice], None]) -> Callable[[], None]:
        """Call `tell` for each notice, in some other thread; the result ends that.

        It may be ended from within `tell`, and twice, and is before the backend is closed.
        """


@runtime_checkable
class HasFeatures(Protocol):
    """A backend with features of its own: `uspace_drv.backends.vfio.features.Features`."""

    @property
    def features(self) -> Any:
        """What the kernel's VFIO_DEVICE_FEATURE offers."""


@runtime_checkable
class Triggers(Protocol):
    """An interrupt line that software can fire, as if the device had."""

    def trigger(self) -> None:
        """Let it fire once."""


@runtime_checkable
class UnmasksByFd(Protocol):
    """An interrupt line that an eventfd can arm again."""

    def unmask_fd(self) -> int:
        """An eventfd whose signal does what `unmask()` does; it is the line's, and goes with it."""


@runtime_checkable
class HasIdentity(Protocol):
    """A backend of a device that is no PCI function, and says what it is in another way."""

    @property
    def identity(self) -> Identity:
        """What a driver's `id_table` is held against, a `UioName`."""

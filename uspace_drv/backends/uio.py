"""A PCI function through uio_pci_generic: BARs from sysfs, one INTx, no IOMMU to protect memory.

Linux Documentation/driver-api/uio-howto.rst, "Generic PCI UIO driver". The kernel masks INTx with
the Interrupt Disable bit when it fires; clearing the bit lets it fire again.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Mapping
from pathlib import Path

from uspace_drv.backends.physical import PhysicalMemory
from uspace_drv.errors import DeviceGone, HostError, NoDevice, UnsupportedError
from uspace_drv.native import Window
from uspace_drv.pci import config as pci_config
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.binding import UIO
from uspace_drv.pci.lock import lock_function
from uspace_drv.pci.sysfs import DEVICES, PciBus
from uspace_drv.port import DmaSpace, IrqKind
from uspace_drv.teardown import Teardown

EVENT_BYTES = 4
"""A read of the node gives the number of interrupts since boot, as one 32-bit integer."""


class UioDevice:
    """Fills the port's `Backend`. Opened when made.

    `unsafe_dma_without_iommu` lets the device reach all of the machine's memory by physical
    addresses. A wrong one overwrites whatever is there.
    """

    via = "uio"

    def __init__(
        self, address: PciAddress, bus: PciBus, *, unsafe_dma_without_iommu: bool = False
    ) -> None:
        self.address = str(address)
        self._host = bus.host
        self._folder = Path(DEVICES) / self.address
        self._unsafe_dma = unsafe_dma_without_iommu
        self._way_out = Teardown()
        try:
            self._way_out.push("give the lock back", lock_function(address, bus.host).close)
            self._function = bus.function(address)
            self._open()
        except BaseException as error:
            self._way_out.run(error)
            raise

    def _open(self) -> None:
        self._node = self._open_node()
        self._way_out.push("close the UIO node", lambda: os.close(self._node))
        fd = _open(self._folder / "config", self.address)
        self._way_out.push("close configuration space", lambda: os.close(fd))
        size = os.fstat(fd).st_size
        self.config = Window.over_file(f"{self.address} config", fd, 0, size)
        self._way_out.push("close its window", self.config.close)
        pci_config.set_memory_space(self.config, True)

    def _open_node(self) -> int:
        function = self._function
        if function.driver != UIO or function.uio is None:
            bound = f"bound to {function.driver}" if function.driver else "bound to no driver"
            raise HostError(
                f"{self.address}: {bound}, not to {UIO}; "
                f"run: uspace bind {self.address} --driver {UIO}"
            )
        return _open(Path("/dev") / function.uio, self.address, os.O_NONBLOCK)

    @property
    def bar_sizes(self) -> Mapping[int, int]:
        """Number and size in bytes of every BAR of memory; UIO offers no I/O ports."""
        return {
            bar.number: bar.size
            for bar in self._function.resources
            if bar.number < 6 and not bar.is_io
        }

    def bar(self, number: int) -> Window:
        """Map the BAR."""
        if number not in self.bar_sizes:
            raise NoDevice(f"{self.address}: no BAR {number} of memory")
        self._check_page(number)
        fd = _open(self._folder / f"resource{number}", self.address)
        try:
            return Window.map(f"{self.address} bar {number}", fd, 0, self.bar_sizes[number])
        finally:
            os.close(fd)

    def _check_page(self, number: int) -> None:
        """A BAR inside a page cannot be mapped without what shares the page with it."""
        bar = next(bar for bar in self._function.resources if bar.number == number)
        if bar.start % mmap.PAGESIZE:
            raise UnsupportedError(
                f"{self.address} bar {number}: starts at {bar.start:#x}, inside a page, and UIO "
                "maps whole pages; use VFIO, or boot with pci=resource_alignment="
                f"12@{self.address}"
            )

    @property
    def irq_counts(self) -> Mapping[IrqKind, int]:
        """One INTx, if the function has an interrupt line."""
        return {IrqKind.INTX: 1} if self._function.irq else {}

    def irq_line(self, kind: IrqKind, index: int) -> UioIrqLine:
        """Switch it on."""
        if kind is not IrqKind.INTX or index:
            raise UnsupportedError(f"{self.address}: UIO has one INTx and no more; VFIO may have")
        counter = Path("/sys/class/uio") / str(self._function.uio) / "event"
        return UioIrqLine(self.address, self._node, counter, self.config)

    @property
    def dma(self) -> DmaSpace:
        """Physical memory, only if the opt-in was given and no IOMMU stands in between."""
        if self._function.is_translated:
            group = self._function.group
            raise UnsupportedError(
                f"{self.address}: an IOMMU translates what it addresses "
                f"({group and f'group {group.number}, type {group.type}'}), and UIO cannot tell "
                "it where memory is: DMA would read and write the wrong places without an error. "
                f"Use VFIO: uspace bind {self.address} --driver vfio-pci"
            )
        if not self._unsafe_dma:
            raise UnsupportedError(
                f"{self.address}: DMA through UIO has no IOMMU to stop a wrong address from "
                "overwriting any memory of this machine; use VFIO, or accept that with "
                "unsafe_dma_without_iommu=True (--unsafe-dma-without-iommu)"
            )
        return PhysicalMemory(self.address)

    @property
    def can_reset(self) -> bool:
        """Whether the kernel knows a way to reset it."""
        return bool(self._function.reset_methods)

    def reset(self) -> None:
        """Reset the function; the kernel saves and restores configuration space."""
        self._host.write(f"{DEVICES}/{self.address}/reset", "1")

    def close(self) -> None:
        """Close everything. Twice is fine."""
        self._way_out.run()


class UioIrqLine:
    """Fills the port's `IrqLine` from a UIO node."""

    kind = IrqKind.INTX

    def __init__(self, name: str, node: int, counter: Path, config: Window) -> None:
        self._name = name
        self._node = node
        self._config = config
        self.mask()
        self._last = int(counter.read_text())  # what fired before now is nobody's
        self._drain()
        self.unmask()

    def fileno(self) -> int:
        """The node."""
        return self._node

    def take(self) -> int:
        """How far the node's event counter (32 bits, it wraps) has moved."""
        counter = self._drain()
        if counter is None:
            return 0
        last, self._last = self._last, counter
        return (counter - last) & 0xFFFF_FFFF

    def _drain(self) -> int | None:
        """The event counter, or None where it has not moved since it was read last."""
        try:
            return int.from_bytes(os.read(self._node, EVENT_BYTES), "little")
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            reason = "the UIO node answers no more: unbound or unplugged"  # uio_read() in Linux
            raise DeviceGone(f"{self._name}: {reason}") from error

    def mask(self) -> None:
        """Set the Interrupt Disable bit (PCI 3.0, section 6.2.2)."""
        pci_config.set_intx_disable(self._config, True)

    def unmask(self) -> None:
        """Clear it; the device's level, if it is still up, fires at once."""
        pci_config.set_intx_disable(self._config, False)

    def close(self) -> None:
        """Mask it; the node belongs to the backend."""
        self.mask()


def _open(path: Path, address: str, flags: int = 0) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | flags)
    except OSError as error:
        cure = "; run it as root" if error.errno in {errno.EACCES, errno.EPERM} else ""
        raise HostError(
            f"{address}: cannot open {path}: {error.strerror}{cure}", cause=error
        ) from error

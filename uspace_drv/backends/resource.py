"""A PCI function that no driver of the kernel has, by its files in sysfs alone: the last resort.

Linux Documentation/PCI/sysfs-pci.rst. There are registers, and that is all: interrupts and memory
for DMA need a driver of the kernel, vfio-pci or uio_pci_generic. A driver of ours has to poll.
"""

from __future__ import annotations

from collections.abc import Mapping

from uspace_drv.backends.resource_files import ResourceFiles
from uspace_drv.errors import BusyError, UnsupportedError
from uspace_drv.native import Window
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.config import ConfigHeader
from uspace_drv.pci.lock import lock_function
from uspace_drv.pci.sysfs import PciBus
from uspace_drv.port import DmaSpace, IrqKind, IrqLine
from uspace_drv.teardown import Teardown


class ResourceDevice:
    """Fills the port's `Backend`. Opened when made; the function then answers in its BARs.

    What it answered in before is put back when this is closed.
    """

    via = "sysfs"
    irq_counts: Mapping[IrqKind, int] = {}

    def __init__(self, address: PciAddress, bus: PciBus) -> None:
        self.address = str(address)
        self._way_out = Teardown()
        try:
            self._way_out.push("give the lock back", lock_function(address, bus.host).close)
            self._open(address, bus)
        except BaseException as error:
            self._way_out.run(error)
            raise

    def _open(self, address: PciAddress, bus: PciBus) -> None:
        function = bus.function(address)
        if function.driver is not None:
            raise BusyError(
                f"{address}: {function.driver} has it, and two drivers on one device do harm; "
                f"attach without --via {self.via}, or let it go: "
                f"echo {address} | sudo tee /sys/bus/pci/devices/{address}/driver/unbind"
            )
        self._files = ResourceFiles(function, bus.host, self._way_out)
        self.config: Window = self._files.config
        command = ConfigHeader(self.config).command
        before = command.read()
        self._way_out.push("put the command register back", lambda: command.write(before))
        self._files.enable()

    @property
    def bar_sizes(self) -> Mapping[int, int]:
        """Number and size in bytes of every BAR, of memory and of I/O ports."""
        return self._files.bar_sizes

    def bar(self, number: int) -> Window:
        """Open a BAR."""
        return self._files.bar(number)

    def write_combined(self, number: int) -> Window:
        """Open a BAR of memory so that stores may be joined, or `UnsupportedError`."""
        return self._files.write_combined(number)

    def rom(self) -> Window:
        """Open a copy of the expansion ROM; `NoDevice` where the function has none."""
        return self._files.rom()

    def irq_line(self, kind: IrqKind, index: int) -> IrqLine:
        """Always `UnsupportedError`."""
        raise UnsupportedError(
            f"{self.address}: sysfs shows no interrupts: poll, or use VFIO: "
            f"uspace bind {self.address}"
        )

    @property
    def dma(self) -> DmaSpace:
        """Always `UnsupportedError`."""
        raise UnsupportedError(
            f"{self.address}: nobody maps memory for DMA through sysfs; use VFIO: "
            f"uspace bind {self.address}"
        )

    @property
    def can_reset(self) -> bool:
        """Whether the kernel knows a way to reset it, and lets this user do so."""
        return self._files.can_reset

    def reset(self) -> None:
        """Reset the function; the kernel saves and restores configuration space."""
        self._files.reset()

    def close(self) -> None:
        """Put the command register back and close everything. Twice is fine."""
        self._way_out.run()

"""A PCI function through uio_pci_generic: BARs from sysfs, one INTx, no IOMMU to protect memory.

Linux Documentation/driver-api/uio-howto.rst, "Generic PCI UIO driver". The kernel masks INTx with
the Interrupt Disable bit when it fires; clearing the bit lets it fire again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from uspace_drv.backends.physical import PhysicalMemory, without_iommu
from uspace_drv.backends.resource_files import ResourceFiles
from uspace_drv.backends.uio_node import UIO_CLASS, EventCounter, open_node
from uspace_drv.errors import HostError, UnsupportedError
from uspace_drv.native import Window
from uspace_drv.pci import config as pci_config
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.lock import lock_function
from uspace_drv.pci.nodes import UIO
from uspace_drv.pci.sysfs import PciBus
from uspace_drv.port import DmaSpace, IrqKind
from uspace_drv.teardown import Teardown


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
        self._files = ResourceFiles(self._function, self._host, self._way_out)
        self.config: Window = self._files.config
        self._files.enable()

    def _open_node(self) -> int:
        function = self._function
        if function.driver != UIO or function.uio is None:
            bound = f"bound to {function.driver}" if function.driver else "bound to no driver"
            raise HostError(
                f"{self.address}: {bound}, not to {UIO}; "
                f"run: uspace bind {self.address} --driver {UIO}"
            )
        return open_node(self._host, f"/dev/{function.uio}", self.address)

    @property
    def bar_sizes(self) -> Mapping[int, int]:
        """Number and size in bytes of every BAR, of memory and of I/O ports."""
        return self._files.bar_sizes

    def bar(self, number: int) -> Window:
        """Open a BAR, through sysfs: the node has no I/O ports, and in older kernels no memory."""
        return self._files.bar(number)

    def write_combined(self, number: int) -> Window:
        """Open a BAR of memory so that stores may be joined, or `UnsupportedError`."""
        return self._files.write_combined(number)

    def rom(self) -> Window:
        """Open a copy of the expansion ROM; `NoDevice` where the function has none."""
        return self._files.rom()

    @property
    def irq_counts(self) -> Mapping[IrqKind, int]:
        """One INTx, if the function has an interrupt line."""
        return {IrqKind.INTX: 1} if self._function.irq else {}

    def irq_line(self, kind: IrqKind, index: int) -> UioIrqLine:
        """Switch it on."""
        if kind is not IrqKind.INTX or index:
            raise UnsupportedError(f"{self.address}: UIO has one INTx and no more; VFIO may have")
        total = self._host.read_int(f"{UIO_CLASS}/{self._function.uio}/event") or 0
        return UioIrqLine(self.address, self._node, total, self.config)

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
            raise without_iommu(self.address, "UIO")
        return PhysicalMemory(self.address)

    @property
    def can_reset(self) -> bool:
        """Whether the kernel knows a way to reset it, and lets this user do so."""
        return self._files.can_reset

    def reset(self) -> None:
        """Reset the function; the kernel saves and restores configuration space."""
        self._files.reset()

    def close(self) -> None:
        """Close everything. Twice is fine."""
        self._way_out.run()


class UioIrqLine:
    """Fills the port's `IrqLine` from a UIO node; `total` is what the kernel counted so far."""

    kind = IrqKind.INTX

    def __init__(self, name: str, node: int, total: int, config: Window) -> None:
        self._node = node
        self._config = config
        self._counter = EventCounter(name, node)
        self.take = self._counter.take
        self.mask()
        self._counter.start(total)
        self.unmask()

    def fileno(self) -> int:
        """The node."""
        return self._node

    def mask(self) -> None:
        """Set the Interrupt Disable bit (PCI 3.0, section 6.2.2)."""
        pci_config.set_intx_disable(self._config, True)

    def unmask(self) -> None:
        """Clear it; the device's level, if it is still up, fires at once."""
        pci_config.set_intx_disable(self._config, False)

    def close(self) -> None:
        """Mask it; the node belongs to the backend."""
        self.mask()

"""A PCI function through VFIO: its regions, interrupts, reset and DMA mappings."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from functools import cached_property

from uspace_drv.backends.vfio import uapi
from uspace_drv.backends.vfio.call import call
from uspace_drv.backends.vfio.group import Group
from uspace_drv.backends.vfio.irqs import VfioIrqLine, VfioIrqs
from uspace_drv.native import Window
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.lock import lock_function
from uspace_drv.pci.sysfs import PciBus
from uspace_drv.port import DmaSpace, IrqKind
from uspace_drv.teardown import Teardown
from uspace_drv.vfio_numbers import DeviceFlag, Region, RegionFlag


class VfioDevice:
    """Fills the port's `Backend` by group and type1v2. Opened when made."""

    via = "vfio"

    def __init__(self, address: PciAddress, bus: PciBus) -> None:
        self.address = str(address)
        self._way_out = Teardown()
        try:
            self._way_out.push("give the lock back", lock_function(address, bus.host).close)
            self._open(Group(bus.function(address), bus))
        except BaseException as error:
            self._way_out.run(error)
            raise

    def _open(self, group: Group) -> None:
        self._way_out.push("close the group", group.close)
        self._container = group.container
        fd = self._fd = group.open_device()
        self._way_out.push("close the device", lambda: os.close(fd))
        self._irqs = VfioIrqs(fd, self.address)
        region = self._region(Region.CONFIG)
        self.config = Window.over_file(f"{self.address} config", fd, region.offset, region.size)
        self._way_out.push("close configuration space", self.config.close)

    @cached_property
    def bar_sizes(self) -> Mapping[int, int]:
        """Number and size in bytes of every BAR that is implemented."""
        numbers = range(Region.BAR0, Region.BAR5 + 1)
        sizes = {number: self._region(number).size for number in numbers}
        return {number: size for number, size in sizes.items() if size}

    def bar(self, number: int) -> Window:
        """Map the BAR; where the kernel does not let us (I/O ports), read and write it."""
        region = self._region(number)
        name = f"{self.address} bar {number}"
        if region.flags & RegionFlag.MMAP:
            writable = bool(region.flags & RegionFlag.WRITE)
            return Window.map(name, self._fd, region.offset, region.size, writable=writable)
        return Window.over_file(name, self._fd, region.offset, region.size)

    @property
    def irq_counts(self) -> Mapping[IrqKind, int]:
        """How many interrupts of each kind."""
        return self._irqs.counts

    def irq_line(self, kind: IrqKind, index: int) -> VfioIrqLine:
        """Switch on one interrupt."""
        return self._irqs.line(kind, index)

    @property
    def dma(self) -> DmaSpace:
        """Its mappings in the IOMMU."""
        return self._container

    @cached_property
    def can_reset(self) -> bool:
        """Whether the kernel knows a way to reset it alone."""
        info = uapi.DeviceInfo(ctypes.sizeof(uapi.DeviceInfo))
        call(self.address, self._fd, uapi.Request.DEVICE_GET_INFO, info)
        return bool(info.flags & DeviceFlag.RESET)

    def reset(self) -> None:
        """Reset the function."""
        call(self.address, self._fd, uapi.Request.DEVICE_RESET, 0)

    def close(self) -> None:
        """Close configuration space, device, group and container. Twice is fine."""
        self._way_out.run()

    def _region(self, number: int) -> uapi.RegionInfo:
        info = uapi.RegionInfo(argsz=ctypes.sizeof(uapi.RegionInfo), index=number)
        call(self.address, self._fd, uapi.Request.DEVICE_GET_REGION_INFO, info)
        return info

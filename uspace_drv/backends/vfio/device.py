"""A PCI function through VFIO: its regions, interrupts, reset and DMA mappings."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Self

from uspace_drv.backends.vfio import uapi
from uspace_drv.backends.vfio.call import call
from uspace_drv.backends.vfio.doorbells import Doorbells
from uspace_drv.backends.vfio.features import Features
from uspace_drv.backends.vfio.irqs import VfioIrqLine, VfioIrqs
from uspace_drv.backends.vfio.notices import Notices
from uspace_drv.backends.vfio.opening import Opening
from uspace_drv.backends.vfio.regions import VfioRegions
from uspace_drv.errors import BusyError, HostError, UnsupportedError
from uspace_drv.native import Window
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.lock import lock_function
from uspace_drv.pci.sysfs import PciBus, PciFunction
from uspace_drv.port import DmaSpace, IrqKind, Notice
from uspace_drv.teardown import Teardown
from uspace_drv.vfio_numbers import DeviceFlag, Region


class VfioDevice:
    """Fills the port's `Backend`, whatever way the kernel hands it over by. Opened when made.

    `opener` opens the function, once it is locked. `fd` is the device's descriptor, which stays
    this object's. Beyond the port: `regions` for what is no BAR, `doorbells`, `notices`.
    """

    def __init__(
        self, address: PciAddress, bus: PciBus, opener: Callable[[PciFunction, PciBus], Opening]
    ) -> None:
        self.address = str(address)
        self._way_out = Teardown()
        try:
            self._way_out.push("give the lock back", lock_function(address, bus.host).close)
            self._open(opener(bus.function(address), bus))
        except BaseException as error:
            self._way_out.run(error)
            raise

    @classmethod
    def from_opening(cls, address: str, opening: Opening) -> Self:
        """Go on with what somebody else has opened, and locked; closing this closes it."""
        device = cls.__new__(cls)
        device.address = address
        device._way_out = Teardown()
        try:
            device._open(opening)
        except BaseException as error:
            device._way_out.run(error)
            raise
        return device

    def _open(self, opening: Opening) -> None:
        self._way_out.push("close the opening", opening.close)
        self._opening = opening
        self.via = opening.via
        fd = self.fd = opening.open_device()
        self._way_out.push("close the device", lambda: os.close(fd))
        self._info = uapi.DeviceInfo(ctypes.sizeof(uapi.DeviceInfo))
        call(self.address, fd, uapi.Request.DEVICE_GET_INFO, self._info)
        self.regions = VfioRegions(fd, self.address, self._info.num_regions)
        self._irqs = VfioIrqs(fd, self.address)
        config = self.regions.info(Region.CONFIG)
        self.config = Window.over_file(f"{self.address} config", fd, config.offset, config.size)
        self._way_out.push("close configuration space", self.config.close)

    @cached_property
    def bar_sizes(self) -> Mapping[int, int]:
        """Number and size in bytes of every BAR that is implemented."""
        numbers = range(Region.BAR0, Region.BAR5 + 1)
        sizes = {number: self.regions.info(number).size for number in numbers}
        return {number: size for number, size in sizes.items() if size}

    def bar(self, number: int) -> Window:
        """Map the BAR; what the kernel does not let us map (I/O ports) is read and written."""
        return self.regions.open(number, f"bar {number}")

    def write_combined(self, number: int) -> Window:
        """Refuse it: VFIO maps a BAR uncached."""
        raise UnsupportedError(
            f"{self.address} bar {number}: VFIO maps it without write-combining, on this Linux "
            f"({os.uname().release}) and every released one; sysfs has it: --via uio or sysfs"
        )

    def rom(self) -> Window:
        """Open the expansion ROM."""
        return self.regions.rom()

    @property
    def irq_counts(self) -> Mapping[IrqKind, int]:
        """How many interrupts of each kind."""
        return self._irqs.counts

    def irq_line(self, kind: IrqKind, index: int) -> VfioIrqLine:
        """Switch on one interrupt."""
        return self._irqs.line(kind, index)

    def trigger(self, kind: IrqKind, indexes: list[int]) -> None:
        """Let the kernel signal several interrupts in one call, as if the device had."""
        self._irqs.trigger(kind, indexes)

    @cached_property
    def notices(self) -> Notices:
        """What the host says about the device."""
        return Notices(self.fd, self.address, self._info.num_irqs)

    def watch(self, tell: Callable[[Notice], None]) -> Callable[[], None]:
        """Listen to the host in a thread, until the result is called."""
        return self.notices.watch(tell)

    @cached_property
    def doorbells(self) -> Doorbells:
        """Eventfds whose signal is a write to a BAR, by the kernel."""
        doorbells = Doorbells(self.fd, self.address, self.regions)
        self._way_out.push("close the doorbells", doorbells.close)
        return doorbells

    @cached_property
    def features(self) -> Features:
        """What else the kernel does for this device: power, migration, hot reset and more."""
        return Features(self.fd, self.address, self._opening)

    @property
    def opening(self) -> Opening:
        """How it was opened, for a broker that hands it to another process."""
        return self._opening

    @property
    def dma(self) -> DmaSpace:
        """Its mappings in the IOMMU."""
        return self._opening.dma

    @property
    def can_reset(self) -> bool:
        """Whether the kernel knows a way to reset it alone."""
        return bool(self._info.flags & DeviceFlag.RESET)

    def reset(self) -> None:
        """Reset the function, and switch its interrupts on again, which a reset may switch off.

        Raises `BusyError` while the kernel itself has the device in its hands.
        """
        try:
            call(self.address, self.fd, uapi.Request.DEVICE_RESET, 0)
        except HostError as error:
            if error.errno != errno.EAGAIN:
                raise
            raise BusyError(
                f"{self.address}: no reset now: the kernel is unbinding, removing or resetting it"
            ) from error
        self._irqs.restore()

    def close(self) -> None:
        """Close configuration space, the device and what it was opened by. Twice is fine."""
        self._way_out.run()

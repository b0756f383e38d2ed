"""A VFIO group: the node that stands for all functions which the IOMMU cannot tell apart."""

from __future__ import annotations

import ctypes
import errno
import os

from uspace_drv.backends.vfio import uapi
from uspace_drv.backends.vfio.call import call
from uspace_drv.backends.vfio.container import Container
from uspace_drv.errors import BusyError, HostError, UnsupportedError
from uspace_drv.pci.binding import KEEPS_GROUP_VIABLE, VFIO
from uspace_drv.pci.sysfs import IommuGroup, PciBus, PciFunction


class Group:
    """The open node of a function's IOMMU group, put into a container of its own."""

    def __init__(self, function: PciFunction, bus: PciBus) -> None:
        self._address = str(function.address)
        group = _group_of(function)
        self.fd = _open(group, self._address)
        try:
            self._check_viable(group, bus)
            self.container = Container(self._address)
        except BaseException:
            os.close(self.fd)
            raise
        try:
            number = ctypes.c_int32(self.container.fd)
            call(self._address, self.fd, uapi.Request.GROUP_SET_CONTAINER, bytes(number))
            self.container.set_iommu()
        except BaseException:
            self.close()
            raise

    def open_device(self) -> int:
        """A descriptor of the function itself; the caller closes it."""
        return call(
            self._address, self.fd, uapi.Request.GROUP_GET_DEVICE_FD, self._address.encode() + b"\0"
        )

    def close(self) -> None:
        """Close group and container. Twice is fine."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)
        self.container.close()

    def _check_viable(self, group: IommuGroup, bus: PciBus) -> None:
        status = uapi.GroupStatus(ctypes.sizeof(uapi.GroupStatus))
        call(self._address, self.fd, uapi.Request.GROUP_GET_STATUS, status)
        if status.flags & uapi.GroupFlag.VIABLE:
            return
        functions = [bus.function(member) for member in group.members]
        blockers = [f for f in functions if f.driver and f.driver not in KEEPS_GROUP_VIABLE]
        named = ", ".join(f"{f.address} ({f.driver})" for f in blockers) or "a device of the host"
        cure = "; ".join(f"uspace bind {f.address}" for f in blockers)
        raise HostError(
            f"{self._address}: IOMMU group {group.number} is shared with {named}, whose driver "
            f"could reach the same memory; run: {cure or 'uspace list, and bind its members'}"
        )


def _group_of(function: PciFunction) -> IommuGroup:
    if function.driver != VFIO:
        bound = f"bound to {function.driver}" if function.driver else "bound to no driver"
        raise HostError(
            f"{function.address}: {bound}, not to {VFIO}; run: uspace bind {function.address}"
        )
    if function.group is None:
        raise HostError(
            f"{function.address}: no IOMMU group: switch the IOMMU on in the firmware and on the "
            "kernel's command line (intel_iommu=on), or use UIO"
        )
    if function.group.is_noiommu:
        raise UnsupportedError(
            f"{function.address}: VFIO without an IOMMU is not supported; use UIO: "
            f"uspace bind {function.address} --driver uio_pci_generic"
        )
    return function.group


def _open(group: IommuGroup, address: str) -> int:
    try:
        return os.open(group.node, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise BusyError(
                f"{address}: {group.node} is open already, in another process or here for another "
                "function of the group; close that one first"
            ) from error
        cure = ""
        if error.errno in {errno.EACCES, errno.EPERM}:
            cure = f"; run: sudo chown {os.getuid()} {group.node}"
        raise HostError(
            f"{address}: cannot open {group.node}: {error.strerror}{cure}", cause=error
        ) from error

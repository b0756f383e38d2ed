"""The newer way in: the device's own node, bound to an iommufd.

Linux Documentation/driver-api/vfio.rst, "IOMMUFD and vfio_iommu_type1" and "Device cdev"; include/
uapi/linux/vfio.h, VFIO_DEVICE_BIND_IOMMUFD to VFIO_DEVICE_DETACH_IOMMUFD_PT.
"""

from __future__ import annotations

import ctypes
import errno
import os
import uuid
from collections.abc import Sequence
from functools import cached_property

from uspace_drv.backends.physical import without_iommu
from uspace_drv.backends.vfio import uapi
from uspace_drv.backends.vfio.call import call
from uspace_drv.backends.vfio.ioas_space import IoasSpace
from uspace_drv.backends.vfio.nodes import (
    blockers_of,
    device_file,
    errno_of,
    forgeable,
    is_without_iommu,
    not_viable,
    open_node,
    settled,
    wrong_token,
)
from uspace_drv.backends.vfio.opening import Handover, Options
from uspace_drv.backends.vfio.pinned import PinnedMemory
from uspace_drv.errors import BusyError, UnsupportedError, UspaceError
from uspace_drv.iommufd import Ioas, Iommufd
from uspace_drv.pci.sysfs import PciBus, PciFunction
from uspace_drv.port import DmaSpace
from uspace_drv.teardown import Teardown

WITH_IOMMU = "vfio-cdev"
WITHOUT_IOMMU = "vfio-noiommu-cdev"


class CdevOpening:
    """Fills `Opening`: the device's node, the iommufd it is bound to, and its address space there.

    `name` is the device's address, `fd` that of the node; `open` and `resume` make one.
    """

    reset_fds: Sequence[int] = ()
    _ioas: Ioas

    def __init__(self, name: str, via: str, fd: int, iommufd: Iommufd, options: Options) -> None:
        self.via = via
        self._name = name
        self._fd = fd
        self._iommufd = iommufd
        self._options = options
        self._way_out = Teardown()
        # The device first: the kernel keeps what is bound to an iommufd until it is let go.
        self._way_out.push("close /dev/iommu", iommufd.close)
        self._way_out.push("close the device's node", lambda: os.close(fd))

    @classmethod
    def open(cls, via: str, function: PciFunction, bus: PciBus, options: Options) -> CdevOpening:
        """Open the node, bind it to an iommufd of its own, and give it an empty address space."""
        name = str(function.address)
        path = _node(via, function)
        if function.group and (blockers := blockers_of(function.group, bus)):
            raise not_viable(function.group, name, blockers)
        fd = settled(lambda: open_node(path, name))
        try:
            opening = cls(name, via, fd, Iommufd(name), options)
        except BaseException:
            os.close(fd)
            raise
        try:
            opening._bind()
            opening._attach(opening._iommufd.alloc_ioas())
        except BaseException as error:
            opening._way_out.run(error)
            raise
        return opening

    @classmethod
    def resume(cls, handover: Handover, name: str) -> CdevOpening:
        """Go on with what another process opened; the descriptors belong to this one now."""
        fd, iommufd = handover.fds
        data = dict(handover.data)
        number = data.pop("ioas")
        opening = cls(name, handover.kind, fd, Iommufd(name, iommufd), Options(**data))
        opening._ioas = opening._iommufd.adopt_ioas(number)
        return opening

    @cached_property
    def dma(self) -> DmaSpace:
        """Mappings in its address space; without an IOMMU physical memory, if asked for."""
        if self.via == WITH_IOMMU:
            return IoasSpace(self._name, self._ioas)
        if not self._options.unsafe_dma_without_iommu:
            raise without_iommu(self._name, "VFIO without an IOMMU")
        return PinnedMemory(self._name, self._ioas)

    def open_device(self) -> int:
        """Return a copy of the node's descriptor: that is the device."""
        return os.dup(self._fd)

    def handover(self) -> Handover:
        """Node and iommufd, and the number of the address space."""
        data = {**self._options.as_data(), "ioas": self._ioas.id}
        return Handover(self.via, (self._fd, self._iommufd.fd), data)

    def close(self) -> None:
        """Take the device out of its address space, then close it and the iommufd."""
        self._way_out.run()

    def _bind(self) -> None:
        argument = uapi.BindIommufd(argsz=_SIZE_WITHOUT_TOKEN, iommufd=self._iommufd.fd)
        token = self._options.vf_token
        if token:
            octets = ctypes.create_string_buffer(uuid.UUID(token).bytes, 16)
            argument.argsz = ctypes.sizeof(argument)
            argument.flags = uapi.BindFlag.TOKEN
            argument.token_uuid_ptr = ctypes.addressof(octets)
        request = uapi.Request.DEVICE_BIND_IOMMUFD
        try:
            settled(lambda: call(self._name, self._fd, request, argument))
        except UspaceError as error:
            raise self._explain(error) from error

    def _explain(self, error: UspaceError) -> UspaceError:
        if errno_of(error) == errno.EBUSY:
            return BusyError(
                f"{self._name}: another process has its IOMMU group open, or its iommufd has "
                "another function of the group; close that one first"
            )
        if self.via == WITH_IOMMU and (unsafe := forgeable(self._name, "iommufd", error)):
            return unsafe
        return wrong_token(self._name, self._options.vf_token, error) or error

    def _attach(self, ioas: Ioas) -> None:
        self._ioas = ioas
        argument = uapi.AttachIommufd(argsz=ctypes.sizeof(uapi.AttachIommufd), pt_id=ioas.id)
        call(self._name, self._fd, uapi.Request.DEVICE_ATTACH_IOMMUFD_PT, argument)
        self._way_out.push("detach from the address space", self._detach)

    def _detach(self) -> None:
        """At once, also where a copy of the device is open in a process forked from this one."""
        argument = uapi.DetachIommufd(argsz=ctypes.sizeof(uapi.DetachIommufd))
        call(self._name, self._fd, uapi.Request.DEVICE_DETACH_IOMMUFD_PT, argument)


_SIZE_WITHOUT_TOKEN = uapi.BindIommufd.token_uuid_ptr.offset
"""All that a kernel before Linux 6.18 knows; a longer structure is new to it."""


def _node(via: str, function: PciFunction) -> str:
    """The path of the node, if it is of the kind that the way takes."""
    path = device_file(function)
    if path is None:
        raise UnsupportedError(
            f"{function.address}: the kernel makes no file for the device alone; it needs Linux "
            f"6.6 with CONFIG_VFIO_DEVICE_CDEV; this is {os.uname().release}; use --via vfio-type1"
        )
    without = is_without_iommu(path)
    if without and via == WITH_IOMMU:
        raise UnsupportedError(
            f"{function.address}: has no IOMMU, and {via} takes one; use --via {WITHOUT_IOMMU}"
        )
    if via == WITHOUT_IOMMU and not without:
        raise UnsupportedError(
            f"{function.address}: {path} is not a file without an IOMMU; that needs a kernel with "
            "CONFIG_IOMMUFD_NOIOMMU, no IOMMU, and vfio.enable_unsafe_noiommu_mode=1; "
            "use --via vfio"
        )
    return path

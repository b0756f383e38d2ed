"""The older way in: the node of an IOMMU group, put into a container.

Linux Documentation/driver-api/vfio.rst, "Group, container"; with an iommufd as the container,
Documentation/userspace-api/iommufd.rst, "IOMMUFD User API", which knows the same requests.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from uspace_drv.backends.physical import PhysicalMemory, without_iommu
from uspace_drv.backends.vfio import uapi
from uspace_drv.backends.vfio.call import call
from uspace_drv.backends.vfio.container import Container
from uspace_drv.backends.vfio.nodes import (
    CONTAINER,
    IOMMUFD,
    blockers_of,
    forgeable,
    not_viable,
    open_node,
    settled,
    wrong_token,
)
from uspace_drv.backends.vfio.opening import Handover, Options
from uspace_drv.errors import HostError, UnsupportedError, UspaceError
from uspace_drv.pci.sysfs import IommuGroup, PciBus
from uspace_drv.port import DmaSpace
from uspace_drv.teardown import Teardown

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Way:
    """A node that serves as the container, and the kind of IOMMU to ask it for."""

    node: str
    kind: uapi.Extension


WAYS: Mapping[str, Way] = {
    "vfio-type1": Way(CONTAINER, uapi.Extension.TYPE1V2),
    "vfio-type1v1": Way(CONTAINER, uapi.Extension.TYPE1),
    "vfio-compat": Way(IOMMUFD, uapi.Extension.TYPE1V2),
    "vfio-noiommu": Way(CONTAINER, uapi.Extension.NOIOMMU),
}


class Member(Protocol):
    """A device that is in a group: a PCI function, or a mediated device."""

    @property
    def address(self) -> object:
        """What the group calls it, as text."""

    @property
    def group(self) -> IommuGroup | None:
        """Its group; None where it has none."""


class GroupOpening:
    """Fills `Opening`: a group and the container that it is in, both open.

    `name` is the device's address, `fd` the group's; `open` and `resume` make one.
    """

    def __init__(
        self, name: str, via: str, fd: int, container: Container, options: Options
    ) -> None:
        self.via = via
        self._name = name
        self._fd = fd
        self._container = container
        self._options = options
        self._way_out = Teardown()
        self._way_out.push("close the container", container.close)
        self._way_out.push("close the group", lambda: os.close(fd))

    @classmethod
    def open(cls, via: str, function: Member, bus: PciBus, options: Options) -> GroupOpening:
        """Open the function's group and join it with a container of its own."""
        name = str(function.address)
        group = _group_of(function, via)
        fd = settled(lambda: open_node(group.node, name))
        try:
            _check_viable(fd, group, name, bus)
            opening = cls(name, via, fd, Container(name, WAYS[via].node), options)
        except BaseException:
            os.close(fd)
            raise
        try:
            opening._join()
        except BaseException as error:
            opening._way_out.run(error)
            raise
        return opening

    @classmethod
    def resume(cls, handover: Handover, name: str) -> GroupOpening:
        """Go on with what another process opened; the descriptors belong to this one now."""
        fd, container = handover.fds
        options = Options(**handover.data)
        return cls(name, handover.kind, fd, Container(name, fd=container), options)

    @cached_property
    def dma(self) -> DmaSpace:
        """Mappings in the IOMMU; without one physical memory, if that was asked for."""
        if WAYS[self.via].kind is not uapi.Extension.NOIOMMU:
            return self._container
        if not self._options.unsafe_dma_without_iommu:
            raise without_iommu(self._name, "VFIO without an IOMMU")
        return PhysicalMemory(self._name)

    def open_device(self) -> int:
        """Ask the group for it, with the VF token if there is one."""
        token = self._options.vf_token
        words = f"{self._name} vf_token={token}" if token else self._name
        request = uapi.Request.GROUP_GET_DEVICE_FD
        try:
            return settled(lambda: call(self._name, self._fd, request, words.encode() + b"\0"))
        except UspaceError as error:
            known = wrong_token(self._name, token, error)
            if self.via == "vfio-compat":
                known = known or forgeable(self._name, "iommufd", error)
            raise known or error from error

    @property
    def reset_fds(self) -> Sequence[int]:
        """The group: who has it open may reset what is in it."""
        return (self._fd,)

    def handover(self) -> Handover:
        """Group and container, and the options."""
        return Handover(self.via, (self._fd, self._container.fd), self._options.as_data())

    def close(self) -> None:
        """Take the group out of its container, which empties that, and close both."""
        self._way_out.run()

    def _join(self) -> None:
        number = bytes(ctypes.c_int32(self._container.fd))
        request = uapi.Request.GROUP_SET_CONTAINER
        settled(lambda: call(self._name, self._fd, request, number))
        self._way_out.push("leave the container", self._leave)
        self._container.set_iommu(WAYS[self.via].kind)

    def _leave(self) -> None:
        """While a copy of the device is open somewhere, the kernel refuses; closing is safe."""
        try:
            call(self._name, self._fd, uapi.Request.GROUP_UNSET_CONTAINER, 0)
        except HostError as error:
            if error.errno == errno.EINVAL:
                return  # it is out already: its last device was unbound meanwhile
            if error.errno != errno.EBUSY:
                raise
            _log.warning("%s: a process forked from this one still has it open", self._name)


def _group_of(function: Member, via: str) -> IommuGroup:
    """The group, of the kind that the way takes."""
    group, without = function.group, WAYS[via].kind is uapi.Extension.NOIOMMU
    if group is None:
        raise HostError(
            f"{function.address}: no IOMMU group: switch the IOMMU on in the firmware and on the "
            "kernel's command line (intel_iommu=on), or use UIO"
        )
    if group.is_noiommu and not without:
        raise UnsupportedError(
            f"{function.address}: has no IOMMU, and {via} takes one; use --via vfio-noiommu"
        )
    if without and not group.is_noiommu:
        raise UnsupportedError(
            f"{function.address}: has an IOMMU, so VFIO does not open it without; use --via vfio"
        )
    return group


def _check_viable(fd: int, group: IommuGroup, name: str, bus: PciBus) -> None:
    status = uapi.GroupStatus(ctypes.sizeof(uapi.GroupStatus))
    call(name, fd, uapi.Request.GROUP_GET_STATUS, status)
    if not status.flags & uapi.GroupFlag.VIABLE:
        raise not_viable(group, name, blockers_of(group, bus))

"""The nodes below /dev through which VFIO hands a function over, and the races around them.

Linux Documentation/driver-api/vfio.rst. Right after a binding the kernel still registers the device
while its nodes can be seen already, and a process that just died still holds them for a moment.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from typing import TypeVar

from uspace_drv.deadline import Deadline
from uspace_drv.errors import BusyError, HostError, UspaceError
from uspace_drv.pci.moves import freeing_line, is_in_the_way
from uspace_drv.pci.sysfs import IommuGroup, PciBus, PciFunction

T = TypeVar("T")

CONTAINER = "/dev/vfio/vfio"
IOMMUFD = "/dev/iommu"
DEVICE_FILES = "/dev/vfio/devices"

SETTLE_TIMEOUT = 1.0
"""Seconds in which what the kernel has not finished yet must be finished."""

_FIRST_PAUSE = 0.001  # seconds; each is twice as long as the one before
_PASSING = {errno.ENOENT, errno.ENODEV, errno.EBUSY}


def settled(step: Callable[[], T]) -> T:
    """Do `step`, again while it fails as it does in the middle of a binding.

    Raises what it raises last.
    """
    deadline = Deadline(SETTLE_TIMEOUT)
    pause = _FIRST_PAUSE
    while True:
        try:
            return step()
        except UspaceError as error:
            if errno_of(error) not in _PASSING or deadline.passed:
                raise
        time.sleep(min(pause, deadline.remaining()))
        pause *= 2


def errno_of(error: BaseException | None) -> int | None:
    """The errno of the system call that is behind an error, however often it was explained."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno
        error = error.__cause__
    return None


def open_node(path: str, name: str) -> int:
    """Open it for reading and writing; the caller closes it. `name` is the device's address.

    Raises `BusyError` where somebody has it, `HostError` with the cure otherwise.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise BusyError(
                f"{name}: {path} is open already, in another process or here for another "
                "function of the group; close that one first"
            ) from error
        raise HostError(
            f"{name}: cannot open {path}: {error.strerror}{_cure(path, error)}", cause=error
        ) from error


def _cure(path: str, error: OSError) -> str:
    if error.errno in {errno.EACCES, errno.EPERM}:
        if os.access(path, os.R_OK | os.W_OK):  # so it is not the node that forbids it
            return "; without an IOMMU it takes CAP_SYS_RAWIO: run it as root"
        return f"; run: sudo chown {os.getuid()} {path}"
    if error.errno == errno.ENOENT:
        return "; a container must be given the node (docker run --device)"
    return ""


def device_file(function: PciFunction) -> str | None:
    """The path of the function's own node; None where the kernel makes none for it."""
    return None if function.cdev is None else f"{DEVICE_FILES}/{function.cdev}"


def is_without_iommu(path: str) -> bool:
    """Whether that device file is one that the kernel hands out without an IOMMU."""
    return path.startswith(f"{DEVICE_FILES}/noiommu-")


def blockers_of(group: IommuGroup, bus: PciBus) -> list[PciFunction]:
    """Return the members whose drivers keep the kernel from handing out the group."""
    if len(group.members) < 2:
        return []
    functions = [bus.function(member) for member in group.members]
    return [each for each in functions if is_in_the_way(each)]


def not_viable(group: IommuGroup, name: str, blockers: list[PciFunction]) -> HostError:
    """The error that says with whom the group is shared, and what to do about it."""
    named = ", ".join(f"{each.address} ({each.driver})" for each in blockers)
    cure = "; ".join(map(freeing_line, blockers))
    return HostError(
        f"{name}: IOMMU group {group.number} is shared with {named or 'a device of the host'}, "
        "whose driver could reach the same memory; "
        f"run: {cure or 'uspace list, and bind its members'}"
    )


def forgeable(name: str, module: str, error: UspaceError) -> HostError | None:
    """What EPERM means where an IOMMU takes a device; None for anything else."""
    if errno_of(error) != errno.EPERM:
        return None
    return HostError(
        f"{name}: the IOMMU cannot remap interrupts, so the device could forge them. Use a machine "
        "with interrupt remapping; or, if you trust the device, set "
        f"{module}.allow_unsafe_interrupts=1",
        cause=error if isinstance(error, OSError) else None,
    )


def wrong_token(name: str, token: str | None, error: UspaceError) -> HostError | None:
    """What EACCES and EINVAL mean where a VF token is checked; None for anything else."""
    number = errno_of(error)
    if number == errno.EACCES:
        seen = f"{token} is not the one" if token else "none was given"
        return HostError(
            f"{name}: opening it takes the VF token that the owner of the physical function set, "
            f"and {seen}; give it with the address: '{name}?vf_token=UUID'"
        )
    if number == errno.EINVAL and token:
        return HostError(
            f"{name}: takes no VF token: it is no function of SR-IOV whose physical function is "
            f"bound to vfio-pci too; leave it out, and attach to '{name}'. A file of the device "
            "alone takes one from Linux 6.18 on; before that use --via vfio-type1"
        )
    return None

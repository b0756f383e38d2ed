"""The nodes by which a bound function is opened: which ones, waiting for them, who has them open.

Linux Documentation/driver-api/vfio.rst ("VFIO Device cdev"), uio-howto.rst.
"""

from __future__ import annotations

import pwd
import time

from uspace_drv.deadline import Deadline
from uspace_drv.errors import BusyError, HostError
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.host import Host
from uspace_drv.pci.sysfs import PciBus, PciFunction

VFIO = "vfio-pci"
UIO = "uio_pci_generic"
USER_DRIVERS = (VFIO, UIO)
NO_DRIVER = "none"
"""An override that no driver answers to (Linux Documentation/ABI/testing/sysfs-bus-pci)."""
IOMMUFD = "/dev/iommu"
_NOBODY_AT_ALL = 0xFFFF_FFFF  # what chown(2) takes for: leave the owner as it is
_POLL = 0.01  # seconds between looks for a node that udev or devtmpfs makes


def nodes_of(function: PciFunction, host: Host) -> tuple[str, ...]:
    """Return the nodes that stand for the function as it is bound, the one of its group first."""
    if function.driver == UIO:
        return (f"/dev/{function.uio}",) if function.uio else ()
    if function.driver != VFIO:
        return ()
    found = []
    # A kernel without VFIO_GROUP has nodes of functions alone, an older one those of groups alone.
    group = function.group.node if function.group else None
    name = (group or "").rpartition("/")[2]
    if group and (function.cdev is None or host.exists(f"/sys/class/vfio/{name}")):
        found.append(group)
    if function.cdev is not None:
        found.append(f"/dev/vfio/devices/{function.cdev}")
    return tuple(found)


def wait_for_nodes(bus: PciBus, address: PciAddress, timeout: float) -> tuple[str, ...]:
    """Return the nodes when all are there: the kernel makes them, but udev may be at work."""
    deadline = Deadline(timeout)
    while True:
        function = bus.function(address)
        nodes = nodes_of(function, bus.host)
        missing = [node for node in nodes if not bus.host.exists(node)]
        if nodes and not missing:
            return nodes
        if deadline.passed:
            raise HostError(
                f"{address}: bound to {function.driver}, but {', '.join(missing) or 'its node'} "
                f"did not appear within {timeout:.3f} s; is /dev a devtmpfs, and what does dmesg "
                "say?"
            )
        time.sleep(_POLL)


def require_unused(function: PciFunction, host: Host) -> None:
    """Refuse to unbind what a process has open: the kernel would wait for it, without an end."""
    if function.driver != VFIO:
        return
    for node in nodes_of(function, host):
        if (process := host.opener(node)) is not None:
            raise BusyError(f"{function.address}: {process} has {node} open; end it first")


def user_id(name: str) -> int:
    """Return the number of a user, named or numbered; `HostError` where there can be none."""
    try:
        number = int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid
    except KeyError as error:
        raise HostError(f"no user is called {name!r} on this machine; see: getent passwd") from (
            error
        )
    if number >= _NOBODY_AT_ALL:
        raise HostError(f"no user has the number {name}; expected 0 to {_NOBODY_AT_ALL - 1}")
    return number


def user_name(number: int) -> str:
    """Return what the machine calls a user, for messages; the number where it has no name."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)

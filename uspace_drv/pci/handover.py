"""Hand the nodes of a bound function to a user, and take them back: by owner, through the journal.

A node may serve several functions (that of a group, /dev/iommu), so it goes back when the last
entry that handed it over goes. Its former owner is in every one of these entries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from uspace_drv.errors import BusyError
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.host import Host
from uspace_drv.pci.journal import Entry, Journal
from uspace_drv.pci.nodes import IOMMUFD, UIO, VFIO, nodes_of, user_name
from uspace_drv.pci.sysfs import DEVICES, PciFunction

_NUMBERED = ("/dev/uio", "/dev/vfio/devices/")
_UIO_RISK = (
    "through UIO nothing keeps the device from any memory: whoever may switch its bus master on "
    "is as good as root"
)


def paths_for(function: PciFunction, host: Host) -> tuple[str, ...]:
    """Return all that a user must own to drive the function as it is bound: nodes, then files."""
    folder = f"{DEVICES}/{function.address}"
    files: list[str] = []
    if function.driver == UIO:
        bars = {f"resource{resource.number}" for resource in function.resources}
        names = {"config", "reset", *bars, *(f"{name}_wc" for name in bars)}
        files = [f"{folder}/{name}" for name in sorted(names)]
    elif function.driver == VFIO:
        files = [IOMMUFD]
    return nodes_of(function, host) + tuple(path for path in files if host.exists(path))


def hand_over(
    function: PciFunction, entry: Entry, user: int, host: Host
) -> tuple[Entry, tuple[str, ...]]:
    """Give the user what it takes, the journal first; returns the entry and what to tell.

    `BusyError` where another user has the node of the group, by an entry for another function.
    """
    journal = Journal(host)
    with journal.turn():
        owners, notes = _owners_before(function, entry, user, host)
        entry = replace(entry, user=user, owners=owners)
        journal.write(function.address, entry)
        nodes = nodes_of(function, host)
        own = [path for path in owners if not _is_gone(path, nodes) and host.exists(path)]
        for path in own:
            if host.owner(path) not in (None, user):
                host.set_owner(path, user)
    given = f"user {user_name(user)} owns {', '.join(own)}"
    risk = (_UIO_RISK,) if function.driver == UIO else ()
    return entry, (given, *notes, *risk)


def take_back(address: PciAddress, entry: Entry, nodes: tuple[str, ...], host: Host) -> None:
    """Give each path its former owner back, except where another function's entry needs it.

    `nodes` are those that the function has now: a number in '/dev/uio0' may be another one's.
    """
    journal = Journal(host)
    if journal.is_stale(entry) and not entry.persist:
        return  # whoever has them now has them since the machine started
    with journal.turn():
        kept = {path for _, other in _others(address, journal) for path in other.owners}
        for path, owner in entry.owners.items():
            now = host.owner(path)
            if path not in kept and not _is_gone(path, nodes) and now not in (None, owner):
                host.set_owner(path, owner)


def _owners_before(
    function: PciFunction, entry: Entry, user: int, host: Host
) -> tuple[dict[str, int], list[str]]:
    """Former owner of each path, and notes on those that cannot be had."""
    owners, notes = dict(entry.owners), []
    others = list(_others(function.address, Journal(host)))
    for path in paths_for(function, host):
        holders = [(where, other) for where, other in others if path in other.owners]
        rival = next(((where, e) for where, e in holders if e.user != user), None)
        if rival is not None:
            words = f"{path} belongs to user {_name(rival[1])}, for {rival[0]}"
            if path != IOMMUFD:
                raise BusyError(f"{function.address}: {words}; one group is for one user")
            notes.append(f"{words}: use the node of the group, or uspace broker")
            continue
        now = host.owner(path)
        before = holders[0][1].owners[path] if holders else owners.get(path, now)
        owners[path] = 0 if before is None else before
    return owners, notes


def _is_gone(path: str, nodes: tuple[str, ...]) -> bool:
    """Whether its number is not, or no longer, one of the function's own `nodes`."""
    return path.startswith(_NUMBERED) and path not in nodes


def _name(entry: Entry) -> str:
    return "none" if entry.user is None else user_name(entry.user)


def _others(address: PciAddress, journal: Journal) -> Iterator[tuple[PciAddress, Entry]]:
    """Entries of other functions that still mean something for nodes."""
    for where, entry in journal.entries().items():
        if where != address and (entry.persist or not journal.is_stale(entry)):
            yield where, entry

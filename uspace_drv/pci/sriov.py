"""Virtual functions: create and remove them, with the journal first.

Linux Documentation/ABI/testing/sysfs-bus-pci (sriov_numvfs, sriov_drivers_autoprobe), PCI Express
Base Specification 6.0, section 9.
"""

from __future__ import annotations

import errno
from contextlib import ExitStack
from dataclasses import replace

from uspace_drv.errors import HostError, RegisterValueError, UnsupportedError, UspaceError
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.handover import take_back
from uspace_drv.pci.host import Host
from uspace_drv.pci.journal import Entry, Journal
from uspace_drv.pci.lock import lock_function
from uspace_drv.pci.moves import require_rights
from uspace_drv.pci.nodes import require_unused
from uspace_drv.pci.persist import remove_rule
from uspace_drv.pci.sysfs import DEVICES, PciBus, PciFunction

_NUMVFS, _TOTALVFS, _AUTOPROBE = "sriov_numvfs", "sriov_totalvfs", "sriov_drivers_autoprobe"


def virtual_functions(address: PciAddress, host: Host | None = None) -> tuple[PciAddress, ...]:
    """Where the virtual functions of a physical one are, in the order of their numbers."""
    host = host or Host()
    folder = f"{DEVICES}/{address}"
    names = [name for name in host.names(folder) if name.startswith("virtfn")]
    links = [host.link(f"{folder}/{name}") for name in sorted(names, key=lambda n: int(n[6:]))]
    return tuple(PciAddress.parse(link) for link in links if link)


def set_virtual_functions(
    address: PciAddress, count: int, *, bus: PciBus | None = None
) -> tuple[PciAddress, ...]:
    """Have `count` virtual functions, none for 0, and return where they are.

    No kernel driver takes the new ones, so they can be bound at once; `restore` of the physical
    function puts back how many there were. `UnsupportedError`: no SR-IOV, or not that many.
    `BusyError`: one that would go is in use. `HostError`: its driver cannot, or not root.
    """
    bus = bus or PciBus()
    with lock_function(bus.function(address).address, bus.host):
        function = bus.function(address)
        _check(function, count, bus.host)
        journal, now = Journal(bus.host), _count(function, bus.host)
        old = journal.read(address)
        entry = _entry(function, old, now, bus.host)
        journal.write(address, entry)
        if count == entry.vfs:  # as it was in the beginning
            put_virtual_functions(function, count, entry.vfs_autoprobe, bus)
            _close_entry(address, entry, journal)
        else:
            _change(function, count, old, bus)
        return virtual_functions(address, bus.host)


def is_as_before(function: PciFunction, entry: Entry, host: Host) -> bool:
    """Whether the virtual functions are as the entry says they were."""
    if entry.vfs is None:
        return True
    same_probing = _autoprobes(function, host) == entry.vfs_autoprobe
    return _count(function, host) == entry.vfs and same_probing


def put_virtual_functions(function: PciFunction, count: int, autoprobe: bool, bus: PciBus) -> None:
    """Bring number and probing from what they are now to these."""
    folder, host = f"{DEVICES}/{function.address}", bus.host
    now = _count(function, host)
    if now not in (0, count):
        _remove_all(function, bus)  # the kernel goes from one number to another only through 0
    if _autoprobes(function, host) != autoprobe:
        host.write(f"{folder}/{_AUTOPROBE}", str(int(autoprobe)))
    if count and now != count:
        try:
            host.write(f"{folder}/{_NUMVFS}", str(count))
        except HostError as error:
            raise _explain(function, count, error) from error


def _check(function: PciFunction, count: int, host: Host) -> None:
    address = function.address
    total = host.read_int(f"{DEVICES}/{address}/{_TOTALVFS}")
    if count < 0:
        raise RegisterValueError(f"{address}: {count} virtual functions; expected 0 or more")
    if total is None:
        raise UnsupportedError(
            f"{address}: has no virtual functions: no SR-IOV capability, or a kernel without "
            "CONFIG_PCI_IOV"
        )
    if count > total:
        raise UnsupportedError(f"{address}: {count} virtual functions; it can have {total}")
    require_rights(address, "vfs", host)


def _entry(function: PciFunction, old: Entry | None, now: int, host: Host) -> Entry:
    """Keep what an earlier entry of this boot says of the time before."""
    journal = Journal(host)
    if old is not None and old.vfs is not None and not journal.is_stale(old):
        return old
    entry = old or Entry(function.driver, function.driver_override, None)
    autoprobe = _autoprobes(function, host)
    return replace(
        entry,
        vfs=now,
        vfs_autoprobe=autoprobe,
        ids=entry.ids or str(function.ids),
        boot_id=journal.boot_id if entry.bound is None else entry.boot_id,
    )


def _change(function: PciFunction, count: int, old: Entry | None, bus: PciBus) -> None:
    """Go to that number; on failure to the former one."""
    before, probing = _count(function, bus.host), _autoprobes(function, bus.host)
    try:
        put_virtual_functions(function, count, False, bus)
    except UspaceError as error:
        try:
            put_virtual_functions(function, before, probing, bus)
            _write_or_remove(function.address, old, Journal(bus.host))
        except UspaceError as second:
            cure = f"run: uspace restore {function.address}"
            error.add_note(f"could not be put back to {before} virtual functions: {second}; {cure}")
        raise


def _close_entry(address: PciAddress, entry: Entry, journal: Journal) -> None:
    bound = entry.bound is not None
    _write_or_remove(address, replace(entry, vfs=None) if bound else None, journal)


def _write_or_remove(address: PciAddress, entry: Entry | None, journal: Journal) -> None:
    if entry is None:
        journal.remove(address)
    else:
        journal.write(address, entry)


def _remove_all(function: PciFunction, bus: PciBus) -> None:
    """Remove all virtual functions, unless one is in use: the kernel would wait for its user."""
    host, journal = bus.host, Journal(bus.host)
    addresses = virtual_functions(function.address, host)
    with ExitStack() as locks:
        for address in addresses:
            locks.enter_context(lock_function(address, host))
            require_unused(bus.function(address), host)
        host.write(f"{DEVICES}/{function.address}/{_NUMVFS}", "0")
    for address in addresses:
        entry = journal.read(address)
        if entry is not None:  # it was bound by us, and there is nothing left to go back to
            remove_rule(address, host)
            take_back(address, entry, (), host)
            journal.remove(address)


def _count(function: PciFunction, host: Host) -> int:
    return host.read_int(f"{DEVICES}/{function.address}/{_NUMVFS}") or 0


def _autoprobes(function: PciFunction, host: Host) -> bool:
    """Whether kernel drivers take new ones; kernels before 4.12 cannot help it."""
    return host.read_int(f"{DEVICES}/{function.address}/{_AUTOPROBE}") != 0


def _explain(function: PciFunction, count: int, error: HostError) -> HostError:
    address, driver = function.address, function.driver
    words = str(error)
    if error.errno == errno.ENOENT:
        words = f"{driver or 'no driver'} cannot do that; bind a driver that can: its own, or run: "
        words += "modprobe vfio-pci enable_sriov=1"
        if driver == "vfio-pci":
            words = "vfio-pci was not told that it may; run: "
            words += "echo 1 | sudo tee /sys/module/vfio_pci/parameters/enable_sriov"
    elif error.errno == errno.ENOMEM:
        words += "; the firmware left no room for their BARs: try pci=realloc on the kernel line"
    elif error.errno == errno.EBUSY:
        words += "; the bus has no numbers for them: try pci=assign-busses on the kernel line"
    return HostError(f"{address}: cannot have {count} virtual functions: {words}", cause=error)

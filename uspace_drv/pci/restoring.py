"""Give functions back: to what the journal says of them, whatever happened since.

Each step looks at what is now, so a `restore` that was killed is finished by the next one.
"""

from __future__ import annotations

from uspace_drv.errors import HostError, UspaceError
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.handover import take_back
from uspace_drv.pci.journal import FOLDER, Entry, Journal
from uspace_drv.pci.lock import lock_function
from uspace_drv.pci.moves import Binding, put, put_bus_master, require_rights
from uspace_drv.pci.nodes import NO_DRIVER, USER_DRIVERS, nodes_of, require_unused
from uspace_drv.pci.persist import remove_rule
from uspace_drv.pci.sriov import is_as_before, put_virtual_functions
from uspace_drv.pci.sysfs import PciBus, PciFunction

_RESTARTED = "the machine has been started again since it was bound, which undid the most of it"


def restore(address: PciAddress, *, bus: PciBus | None = None) -> Binding:
    """Give the function back: driver, override, bus master, owners, virtual functions, no rule.

    Without an entry in the journal the kernel chooses the driver. A function that is gone is
    forgotten. `BusyError` while a driver of ours or another process has it open, `HostError` where
    the old driver does not come back; the journal is kept then.
    """
    bus = bus or PciBus()
    journal = Journal(bus.host)
    if address in journal.addresses() and address not in bus.addresses():
        return _forget(address, journal.read(address), bus)
    with lock_function(bus.function(address).address, bus.host):
        function, entry = bus.function(address), journal.read(address)
        is_bound = bool({function.driver, function.driver_override} & set(USER_DRIVERS))
        notes: tuple[str, ...] = ()
        if entry is not None:
            require_rights(address, "restore", bus.host)
            notes = _go_back(function, entry, bus)
        elif is_bound:
            require_rights(address, "restore", bus.host)
            require_unused(function, bus.host)
            put(function, None, None, bus.host)
            bus.host.write("/sys/bus/pci/drivers_probe", str(address))
        if entry is None and address in journal.addresses():
            journal.remove(address)  # the draft of one, by a `bind` that was killed
        ours, driver = entry is not None or is_bound, bus.function(address).driver
        return Binding(address, driver, function.driver, None, notes, ours)


def restore_all(*, bus: PciBus | None = None) -> list[Binding | UspaceError]:
    """Restore every function that the journal names; one that fails keeps none of the others.

    Virtual functions come before the one that brings them.
    """
    bus = bus or PciBus()
    journal = Journal(bus.host)
    results: list[Binding | UspaceError] = []
    for address in sorted(journal.addresses(), key=lambda a: (_brings_others(journal, a), a)):
        try:
            results.append(restore(address, bus=bus))
        except UspaceError as error:
            results.append(error)
    return results


def _brings_others(journal: Journal, address: PciAddress) -> bool:
    try:
        entry = journal.read(address)
    except UspaceError:
        return False  # `restore` says what is wrong with it
    return entry is not None and entry.vfs is not None


def _go_back(function: PciFunction, entry: Entry, bus: PciBus) -> tuple[str, ...]:
    """Take every step back, the journal last."""
    address, host, journal = function.address, bus.host, Journal(bus.host)
    stale = journal.is_stale(entry)
    if stale and entry.ids != str(function.ids):
        return _forget(address, entry, bus).notes
    driver, override = _aim(function, entry, stale)
    if function.driver not in (None, driver):
        require_unused(function, host)
    if entry.persist:
        remove_rule(address, host)
    take_back(address, entry, nodes_of(function, host), host)
    virtual = not stale and not is_as_before(function, entry, host)
    if virtual:
        put_virtual_functions(function, 0, entry.vfs_autoprobe, bus)
    put(function, driver, override, host)
    if driver is None and not stale:
        put_bus_master(address, entry.bus_master, host)
    if virtual and entry.vfs:
        put_virtual_functions(function, entry.vfs, entry.vfs_autoprobe, bus)
    journal.remove(address)
    return (_RESTARTED,) if stale else ()


def _aim(function: PciFunction, entry: Entry, stale: bool) -> tuple[str | None, str | None]:
    """Driver and override to go to. A driver that somebody else bound since then stays."""
    driver, override = function.driver, function.driver_override
    if entry.bound is None:  # there are only its virtual functions to look after
        return driver, override
    # No driver: a bridge's, or a `bind` or `restore` was killed between two of them.
    if driver in (USER_DRIVERS if stale else (None, *USER_DRIVERS)):
        driver = entry.driver
    if stale:  # an override does not outlive the machine; what is there now, our rule wrote
        if override == NO_DRIVER == entry.bound:
            driver = entry.driver
        return driver, None if override in (entry.bound, *USER_DRIVERS) else override
    return driver, entry.driver_override


def _forget(address: PciAddress, entry: Entry | None, bus: PciBus) -> Binding:
    """Clean up after a function that is gone, or in whose place there is another one."""
    host = bus.host
    if not host.is_rehearsal and not host.may_write(FOLDER):
        raise HostError(f"{address}: may not write {FOLDER}; run: sudo uspace restore {address}")
    remove_rule(address, host)
    if entry is not None:
        take_back(address, entry, (), host)
    Journal(host).remove(address)
    words = "the function that was bound there is gone; forgotten, with its udev rule"
    return Binding(address, None, None, None, (words,))

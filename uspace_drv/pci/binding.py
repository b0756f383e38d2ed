"""Hand functions to vfio-pci or uio_pci_generic, and back: by driver_override, with a journal.

Whatever is changed stands in the journal before it changes, so a process that is killed at any
moment leaves enough for `restore` to end in the old state.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property, partial

from uspace_drv.errors import BusyError, HostError, UnsupportedError, UspaceError
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.handover import hand_over, take_back
from uspace_drv.pci.host import Host
from uspace_drv.pci.in_use import uses_of
from uspace_drv.pci.journal import Entry, Journal
from uspace_drv.pci.lock import lock_function
from uspace_drv.pci.moves import (
    DRIVERS,
    KEEPS_GROUP_VIABLE,
    Binding,
    freeing_line,
    is_bus_master,
    is_in_the_way,
    put,
    require_rights,
)
from uspace_drv.pci.nodes import (
    NO_DRIVER,
    UIO,
    USER_DRIVERS,
    VFIO,
    nodes_of,
    require_unused,
    user_id,
    user_name,
    wait_for_nodes,
)
from uspace_drv.pci.persist import remove_rule, rule_path, write_rule
from uspace_drv.pci.rehearsal import Rehearsal
from uspace_drv.pci.restoring import restore, restore_all
from uspace_drv.pci.sriov import virtual_functions
from uspace_drv.pci.sysfs import PciBus, PciFunction
from uspace_drv.teardown import Teardown

__all__ = [
    "KEEPS_GROUP_VIABLE",
    "UIO",
    "USER_DRIVERS",
    "VFIO",
    "Binding",
    "Terms",
    "bind",
    "bind_group",
    "restore",
    "restore_all",
]

_NOIOMMU = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"


@dataclass(frozen=True)
class Terms:
    """What else `bind` is to do and to allow.

    `user` (a name or number) gets the nodes; `persist` leaves a udev rule that does the same when
    the machine starts again; `force_device_in_use` takes what the machine lives on; the nodes have
    `timeout` seconds to appear.
    """

    user: str | None = None
    persist: bool = False
    force_device_in_use: bool = False
    timeout: float = 5.0

    @cached_property
    def user_id(self) -> int | None:
        """The user's number; `HostError` for an unknown name."""
        return None if self.user is None else user_id(self.user)


def bind(
    address: PciAddress,
    driver: str | None = None,
    terms: Terms = Terms(),
    *,
    bus: PciBus | None = None,
) -> Binding:
    """Bind the function to `driver`; without one, vfio-pci where an IOMMU is, else UIO.

    What is so already is left as it is, and what an earlier call asked for stays in force until
    `restore`. `BusyError`: attached, or the machine lives on it. `HostError`: module missing, not
    root, or no node in time; what was changed is put back first. `NoDevice`: no such function.
    """
    bus = bus or PciBus()
    with lock_function(bus.function(address).address, bus.host):
        wish = _Wish(bus.function(address), driver, terms)
        if wish.function.is_bridge:
            raise UnsupportedError(
                f"{address}: a bridge stays with the kernel; bind the functions behind it"
            )
        _check(wish, bus.host)
        return _bind_all([wish], bus)[0]


def bind_group(
    address: PciAddress,
    driver: str | None = None,
    terms: Terms = Terms(),
    *,
    bus: PciBus | None = None,
) -> list[Binding]:
    """Bind every function of its IOMMU group as `bind` does: all of them, or none after a failure.

    Bridges are not bound: VFIO hands out a group with them in it. Where a bridge's driver is one
    that VFIO refuses (shpchp), it lets go of the bridge, which then has no driver until `restore`.
    """
    bus = bus or PciBus()
    group = bus.function(address).group
    members = [bus.function(member) for member in (group.members if group else (address,))]
    with ExitStack() as locks:
        wishes = []
        for member in members:
            if not member.is_bridge or ((driver or VFIO) == VFIO and is_in_the_way(member)):
                locks.enter_context(lock_function(member.address, bus.host))
                wishes.append(_Wish(bus.function(member.address), driver, terms))
        for wish in wishes:
            _check(wish, bus.host)
        return _bind_all(wishes, bus)


@dataclass(frozen=True)
class _Wish:
    """A function as it was found, and what the caller wants of it."""

    function: PciFunction
    driver: str | None
    terms: Terms

    @property
    def address(self) -> PciAddress:
        return self.function.address

    @cached_property
    def chosen(self) -> str:
        """The driver, none for a bridge; `UnsupportedError` for one not for user space."""
        if self.function.is_bridge:
            return NO_DRIVER
        chosen = self.driver or (UIO if self.function.group is None else VFIO)
        if chosen not in USER_DRIVERS:
            known = " or ".join(USER_DRIVERS)
            raise UnsupportedError(f"{self.address}: cannot work through {chosen}; use {known}")
        return chosen

    @property
    def is_bound(self) -> bool:
        return self.function.driver == self.chosen

    @property
    def asks_for_more(self) -> bool:
        return self.terms.user_id is not None or self.terms.persist


def _bind_all(wishes: list[_Wish], bus: PciBus) -> list[Binding]:
    """Bind them in turn; where one fails, put back those before it too, the last one first."""
    way_back, done = Teardown(), list[str]()
    bindings = []
    try:
        for wish in wishes:
            function, old = wish.function, Journal(bus.host).read(wish.address)
            step = partial(_put_back, function, old, bus, done)
            way_back.push(f"put {function.address} back", step)
            take = _release if function.is_bridge else _take
            bindings.append(take(wish, old, bus))
    except BaseException as error:
        way_back.run(error)
        for words in done:
            error.add_note(words)
        raise
    bound = {binding.address for binding in bindings}
    return [
        replace(binding, notes=binding.notes + _sibling_notes(bus, binding, bound))
        for binding in bindings
    ]


def _check(wish: _Wish, host: Host) -> None:
    """Refuse before anything is changed."""
    function, address, driver = wish.function, wish.address, wish.chosen
    if wish.is_bound:
        if wish.asks_for_more:
            require_rights(address, "bind", host)
        return
    if driver != NO_DRIVER and not host.exists(f"{DRIVERS}/{driver}"):
        raise HostError(f"{address}: the kernel has no driver {driver}; run: modprobe {driver}")
    require_rights(address, "bind", host)
    noiommu = host.read(_NOIOMMU) in ("Y", "1")
    if driver == VFIO and function.group is None and not noiommu:
        raise HostError(
            f"{address}: no IOMMU group, so {VFIO} would refuse it; switch the IOMMU on (firmware "
            f"setup, then intel_iommu=on on the kernel line), or bind it to {UIO}"
        )
    if virtual := virtual_functions(address, host):
        raise BusyError(
            f"{address}: has {len(virtual)} virtual functions, which would go with its driver; "
            f"run: uspace vfs {address} 0"
        )
    uses = uses_of(address, host)
    if uses and not wish.terms.force_device_in_use:
        keeper = function.driver or "its driver"
        raise BusyError(f"{'; '.join(map(str, uses))}; leaving it to {keeper}")
    require_unused(function, host)


def _take(wish: _Wish, old: Entry | None, bus: PciBus) -> Binding:
    """Journal, bind, wait for the nodes, hand them over, write the rule."""
    host, address, function, chosen = bus.host, wish.address, wish.function, wish.chosen
    notes: tuple[str, ...] = ()
    if wish.driver is None and chosen == UIO:
        notes = (f"no IOMMU group, so {UIO}: no DMA protection, one INTx interrupt",)
    if wish.is_bound and not wish.asks_for_more:
        nodes = wait_for_nodes(bus, address, wish.terms.timeout)
        return Binding(address, chosen, chosen, nodes[0], notes)
    entry = _entry(wish, old, host)
    Journal(host).write(address, entry)
    if not wish.is_bound:
        put(function, chosen, chosen, host)
    now, nodes = replace(function, driver=chosen), nodes_of(replace(function, driver=chosen), host)
    if not host.is_rehearsal:
        nodes = wait_for_nodes(bus, address, wish.terms.timeout)
        now = bus.function(address)
    if entry.user is not None:
        entry, told = _give(wish, now, entry, entry.user, host)
        notes += told
    if entry.persist:
        write_rule(now, entry, host)
        notes += (f"{rule_path(address)} binds it again when the machine starts",)
    return Binding(address, chosen, function.driver, nodes[0] if nodes else None, notes)


def _give(
    wish: _Wish, now: PciFunction, entry: Entry, user: int, host: Host
) -> tuple[Entry, tuple[str, ...]]:
    """Hand the nodes over; tell also of a user that an earlier call named, not this one."""
    entry, told = hand_over(now, entry, user, host)
    if isinstance(host, Rehearsal) and not wish.is_bound:
        host.set_owner_of_new_nodes(wish.chosen, user)
    if wish.terms.user_id is None:
        told += (
            f"--user {user_name(user)} was carried over from an earlier bind; to end that, first "
            f"run: uspace restore {wish.address}",
        )
    return entry, told


def _release(wish: _Wish, old: Entry | None, bus: PciBus) -> Binding:
    """Take the driver off a bridge, and keep others from it: journal, unbind, write the rule."""
    host, address, function = bus.host, wish.address, wish.function
    entry = replace(_entry(wish, old, host), user=None)  # it has no nodes
    Journal(host).write(address, entry)
    put(function, None, NO_DRIVER, host)
    if entry.persist:
        write_rule(function, entry, host)
    note = f"{function.driver} let go of the bridge, with which VFIO would refuse the group"
    return Binding(address, None, function.driver, None, (note,))


def _entry(wish: _Wish, old: Entry | None, host: Host) -> Entry:
    """What to go back to: what an earlier entry says, as long as what it made still stands."""
    journal, function = Journal(host), wish.function
    entry = old or Entry(None, None, None)
    known = old is not None and old.bound is not None
    stale = journal.is_stale(entry)
    # No driver: a `bind` or `restore` was killed between two of them.
    ours = known and function.driver in (USER_DRIVERS if stale else (None, *USER_DRIVERS))
    override = function.driver_override
    if known and override in USER_DRIVERS:
        override = None if stale else entry.driver_override
    return replace(
        entry,
        driver=entry.driver if ours else function.driver,
        driver_override=override,
        bound=wish.chosen,
        bus_master=entry.bus_master if ours else is_bus_master(function.address, host),
        ids=str(function.ids),
        boot_id=journal.boot_id,
        user=entry.user if wish.terms.user_id is None else wish.terms.user_id,
        persist=entry.persist or wish.terms.persist,
    )


def _put_back(function: PciFunction, old: Entry | None, bus: PciBus, done: list[str]) -> None:
    """Put back driver, override, owners, rule and journal as `function` had them; say so."""
    address, host, before = function.address, bus.host, function.driver or "no driver"
    journal = Journal(host)
    entry = journal.read(address)
    if entry == old:
        return  # nothing changes before its entry does
    try:
        _undo_extras(function, entry, old, bus)
        put(bus.function(address), function.driver, function.driver_override, host)
        if old is None:
            journal.remove(address)
        else:
            journal.write(address, old)
            if old.user is not None:
                hand_over(bus.function(address), old, old.user, host)
    except UspaceError as second:
        raise HostError(
            f"{address}: could not be put back to {before}: {second}; run: uspace restore {address}"
        ) from second
    done.append(f"{address}: put back to {before}")


def _undo_extras(
    function: PciFunction, entry: Entry | None, old: Entry | None, bus: PciBus
) -> None:
    """Owners and rule, as far as the entry that is on disk says that we changed them."""
    address, host = function.address, bus.host
    if entry is not None:
        take_back(address, entry, nodes_of(bus.function(address), host), host)
        if old is not None and old.persist:
            write_rule(function, old, host)
        elif entry.persist:
            remove_rule(address, host)


def _sibling_notes(bus: PciBus, binding: Binding, bound: set[PciAddress]) -> tuple[str, ...]:
    """VFIO hands out a group only when no kernel driver has a part of it."""
    group = bus.function(binding.address).group
    if binding.driver != VFIO or group is None:
        return ()
    functions = [bus.function(member) for member in group.members]
    return tuple(
        f"IOMMU group {group.number} is shared with {function.address} ({function.driver}); "
        f"run: {freeing_line(function)}"
        for function in functions
        if function.address not in bound and is_in_the_way(function)
    )

"""Hand a function to vfio-pci or uio_pci_generic, and back: by driver_override, with a journal.

Linux Documentation/ABI/testing/sysfs-bus-pci (driver_override, bind, unbind, drivers_probe).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from uspace_drv.errors import BusyError, HostError, UnsupportedError, UspaceError
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.host import Host
from uspace_drv.pci.in_use import uses_of
from uspace_drv.pci.journal import Entry, Journal
from uspace_drv.pci.lock import lock_function
from uspace_drv.pci.sysfs import DEVICES, PciBus, PciFunction

VFIO = "vfio-pci"
UIO = "uio_pci_generic"
USER_DRIVERS = (VFIO, UIO)
KEEPS_GROUP_VIABLE = frozenset({VFIO, "pci-stub", "pcieport"})
"""Drivers with which VFIO hands out the group (Linux Documentation/driver-api/vfio.rst)."""
_DRIVERS = "/sys/bus/pci/drivers"
_NOIOMMU = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
_POLL = 0.01  # seconds between looks for a node that udev or devtmpfs makes
_TIMEOUT = 5.0  # seconds


@dataclass(frozen=True)
class Binding:
    """What is bound now: `node` to open (None after `restore`), and what else the user must know.

    `previous` is the driver before; `driver` is None where the kernel has none for the function.
    """

    address: PciAddress
    driver: str | None
    previous: str | None
    node: str | None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        node = f", {self.node}" if self.node else ""
        return f"{self.address}: bound to {self.driver or 'no driver'}{node}"


def bind(
    address: PciAddress,
    driver: str | None = None,
    *,
    force_device_in_use: bool = False,
    timeout: float = _TIMEOUT,
    bus: PciBus | None = None,
) -> Binding:
    """Bind the function to `driver`; without one, vfio-pci where an IOMMU is, else UIO.

    Does nothing where it is bound so already. `BusyError`: attached, or the machine lives on it.
    `HostError`: module missing, not root, or no node within `timeout` seconds; what was changed is
    put back first. `NoDevice`: no such function.
    """
    bus = bus or PciBus()
    with lock_function(bus.function(address).address, bus.host):
        function = bus.function(address)
        chosen, notes = _choose(function, driver)
        if function.driver == chosen:
            node = _wait_for_node(bus, address, timeout)
        else:
            _check(function, chosen, bus.host, force_device_in_use)
            node = _take(function, chosen, bus, timeout)
        notes += _sibling_notes(bus, address, chosen)
        return Binding(address, chosen, function.driver, node, notes)


def restore(address: PciAddress, *, bus: PciBus | None = None) -> Binding:
    """Give the function back to the driver that it had, or to the one that the kernel chooses.

    `BusyError` while a driver of ours or another process has it open, `HostError` where the old
    driver does not come back; the journal is kept then.
    """
    bus = bus or PciBus()
    with lock_function(bus.function(address).address, bus.host):
        function = bus.function(address)
        journal = Journal(bus.host)
        entry = journal.read(address)
        ours = USER_DRIVERS if entry is None else (entry.bound, None)
        if entry is not None:
            # A driver that somebody else bound since then stays; only our override goes.
            driver = entry.driver if function.driver in ours else function.driver
            _require_rights(address, "restore", bus.host)
            _put(function, driver, entry.driver_override, bus.host)
            journal.remove(address)
        elif function.driver in ours or function.driver_override in ours:
            _require_rights(address, "restore", bus.host)
            _put(function, None, None, bus.host)
            bus.host.write("/sys/bus/pci/drivers_probe", str(address))
        return Binding(address, bus.function(address).driver, function.driver, None)


def _choose(function: PciFunction, driver: str | None) -> tuple[str, tuple[str, ...]]:
    if driver is None and function.group is None:
        return UIO, (f"no IOMMU group, so {UIO}: no DMA protection, one INTx interrupt",)
    chosen = driver or VFIO
    if chosen not in USER_DRIVERS:
        known = " or ".join(USER_DRIVERS)
        raise UnsupportedError(f"{function.address}: cannot work through {chosen}; use {known}")
    return chosen, ()


def _check(function: PciFunction, driver: str, host: Host, force: bool) -> None:
    """Refuse before anything is changed."""
    address = function.address
    if not host.exists(f"{_DRIVERS}/{driver}"):
        raise HostError(f"{address}: the kernel has no driver {driver}; run: modprobe {driver}")
    _require_rights(address, "bind", host)
    noiommu = host.read(_NOIOMMU) in ("Y", "1")
    if driver == VFIO and function.group is None and not noiommu:
        raise HostError(
            f"{address}: no IOMMU group, so {VFIO} would refuse it; switch the IOMMU on (firmware "
            f"setup, then intel_iommu=on on the kernel line), or bind it to {UIO}"
        )
    uses = uses_of(address, host)
    if uses and not force:
        keeper = function.driver or "its driver"
        raise BusyError(f"{'; '.join(map(str, uses))}; leaving it to {keeper}")


def _require_rights(address: PciAddress, verb: str, host: Host) -> None:
    path = f"{DEVICES}/{address}/driver_override"
    if not host.may_write(path):
        raise HostError(
            f"{address}: may not write {path} (not root, or a container's read-only /sys); "
            f"run: sudo uspace {verb} {address}"
        )


def _take(function: PciFunction, driver: str, bus: PciBus, timeout: float) -> str:
    """Journal, then bind and wait for the node; on any failure put back what was there."""
    journal, address = Journal(bus.host), function.address
    old = journal.read(address)
    entry = Entry(function.driver, function.driver_override, driver)
    if old is not None and old.bound == function.driver:  # from one user driver to the other
        entry = Entry(old.driver, old.driver_override, driver)
    journal.write(address, entry)
    try:
        _put(function, driver, driver, bus.host)
        return _wait_for_node(bus, address, timeout)
    except BaseException as error:
        _undo(function, old, bus, error)
        raise


def _undo(function: PciFunction, old: Entry | None, bus: PciBus, error: BaseException) -> None:
    """Put back driver, override and journal as `function` had them; say so on the error."""
    address, journal, before = function.address, Journal(bus.host), function.driver or "no driver"
    try:
        _put(bus.function(address), function.driver, function.driver_override, bus.host)
        if old is None:
            journal.remove(address)
        else:
            journal.write(address, old)
    except UspaceError as second:
        cure = f"run: uspace restore {address}"
        error.add_note(f"{address}: could not be put back to {before}: {second}; {cure}")
    else:
        error.add_note(f"{address}: put back to {before}")


def _put(function: PciFunction, driver: str | None, override: str | None, host: Host) -> None:
    """Bring the function from what it is now to that driver and override."""
    address = function.address
    if function.driver not in (None, driver):
        _unbind(function, host)
    if function.driver_override != override:
        # An empty line clears it.
        host.write(f"{DEVICES}/{address}/driver_override", f"{override or ''}\n")
    if driver is not None and function.driver != driver:
        _bind_to(address, driver, host)


def _unbind(function: PciFunction, host: Host) -> None:
    """Unbind; first make sure that nobody has it open, or the kernel would wait for them."""
    node = function.group.node if function.group else None
    if function.driver == VFIO and node and host.is_open_elsewhere(node):
        raise BusyError(f"{function.address}: another process has {node} open; end it first")
    host.write(f"{DEVICES}/{function.address}/driver/unbind", str(function.address))


def _bind_to(address: PciAddress, driver: str, host: Host) -> None:
    if not host.exists(f"{_DRIVERS}/{driver}/bind"):
        raise HostError(f"{address}: the kernel has no driver {driver}; run: modprobe {driver}")
    try:
        host.write(f"{_DRIVERS}/{driver}/bind", str(address))
    except HostError as error:
        raise HostError(f"{address}: {driver} refused it: {error}", cause=error) from error


def _wait_for_node(bus: PciBus, address: PciAddress, timeout: float) -> str:
    """Return the node to open; the kernel makes it, but udev may be still at work on it."""
    deadline = time.monotonic() + timeout
    while True:
        function = bus.function(address)
        node = _node(function)
        if node is not None and bus.host.exists(node):
            return node
        if time.monotonic() >= deadline:
            raise HostError(
                f"{address}: bound to {function.driver}, but {node or 'its node'} did not appear "
                f"within {timeout:.3f} s; is /dev a devtmpfs, and what does dmesg say?"
            )
        time.sleep(_POLL)


def _node(function: PciFunction) -> str | None:
    if function.driver == VFIO and function.group is not None:
        return function.group.node
    return f"/dev/{function.uio}" if function.driver == UIO and function.uio else None


def _sibling_notes(bus: PciBus, address: PciAddress, driver: str) -> tuple[str, ...]:
    """VFIO hands out a group only when no kernel driver has a part of it."""
    group = bus.function(address).group
    if driver != VFIO or group is None:
        return ()
    functions = [function for function in bus.functions() if function.address in group.members]
    return tuple(
        f"IOMMU group {group.number} is shared with {function.address} ({function.driver}); "
        f"bind that one too: uspace bind {function.address}"
        for function in functions
        if function.driver not in (None, *KEEPS_GROUP_VIABLE)
    )

"""The single moves of binding, each of them a write that can be made again after a kill.

Linux Documentation/ABI/testing/sysfs-bus-pci (driver_override, bind, unbind, drivers_probe).
"""

from __future__ import annotations

from dataclasses import dataclass

from uspace_drv.errors import HostError
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.config import Command, ConfigHeader
from uspace_drv.pci.host import Host
from uspace_drv.pci.nodes import VFIO
from uspace_drv.pci.sysfs import DEVICES, PciFunction

DRIVERS = "/sys/bus/pci/drivers"
KEEPS_GROUP_VIABLE = frozenset({VFIO, "pci-stub", "pcieport"})
"""Drivers with which VFIO hands out the group (Linux Documentation/driver-api/vfio.rst)."""
_COMMAND = ConfigHeader.command.offset
_COMMAND_BYTES = 2


@dataclass(frozen=True)
class Binding:
    """What is bound now: `node` to open (None after `restore`), and what else the user must know.

    `previous` is the driver before; `driver` is None where the kernel has none for the function.
    `was_ours` is False where `restore` found nothing that was bound or changed before.
    """

    address: PciAddress
    driver: str | None
    previous: str | None
    node: str | None
    notes: tuple[str, ...] = ()
    was_ours: bool = True

    def __str__(self) -> str:
        node = f", {self.node}" if self.node else ""
        return f"{self.address}: bound to {self.driver or 'no driver'}{node}"


def put(function: PciFunction, driver: str | None, override: str | None, host: Host) -> None:
    """Bring the function from what it is now to that driver and override."""
    address = function.address
    if function.driver not in (None, driver):
        host.write(f"{DEVICES}/{address}/driver/unbind", str(address))
    if function.driver_override != override:
        # An empty line clears it.
        host.write(f"{DEVICES}/{address}/driver_override", f"{override or ''}\n")
    if driver is not None and function.driver != driver:
        _bind_to(address, driver, host)


def is_in_the_way(function: PciFunction) -> bool:
    """Whether its driver keeps VFIO from handing out the group that the function is in."""
    return function.driver not in (None, *KEEPS_GROUP_VIABLE)


def freeing_line(function: PciFunction) -> str:
    """The command line after which the function is no longer in the way of its group.

    A bridge is never bound: its driver (shpchp, say) lets go of it, and it goes on working.
    """
    address = function.address
    if function.is_bridge:
        return f"echo {address} | sudo tee {DEVICES}/{address}/driver/unbind"
    return f"uspace bind {address}"


def is_bus_master(address: PciAddress, host: Host) -> bool:
    """Whether the function may reach memory, by its command register."""
    return _command(address, host).bus_master_enable == 1


def put_bus_master(address: PciAddress, on: bool, host: Host) -> None:
    """Bring the bit to what it was. Only where no driver is bound, whose matter it would be."""
    before = _command(address, host)
    after = before.replace(bus_master_enable=on)
    if after != before:
        data = int(after).to_bytes(_COMMAND_BYTES, "little")
        host.write_bytes(f"{DEVICES}/{address}/config", _COMMAND, data)


def require_rights(address: PciAddress, verb: str, host: Host) -> None:
    """Refuse before anything is changed, and say how it can be."""
    path = f"{DEVICES}/{address}/driver_override"
    if not host.is_rehearsal and not host.may_write(path):
        raise HostError(
            f"{address}: may not write {path} (not root, or a container's read-only /sys); "
            f"run: sudo uspace {verb} {address}"
        )


def _command(address: PciAddress, host: Host) -> Command:
    data = host.read_bytes(f"{DEVICES}/{address}/config", _COMMAND, _COMMAND_BYTES)
    return Command(int.from_bytes(data, "little"))


def _bind_to(address: PciAddress, driver: str, host: Host) -> None:
    if not host.exists(f"{DRIVERS}/{driver}/bind"):
        raise HostError(f"{address}: the kernel has no driver {driver}; run: modprobe {driver}")
    try:
        host.write(f"{DRIVERS}/{driver}/bind", str(address))
    except HostError as error:
        raise HostError(f"{address}: {driver} refused it: {error}", cause=error) from error

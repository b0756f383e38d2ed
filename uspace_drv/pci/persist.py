"""A udev rule that binds a function again whenever it appears, after a restart too (udev(7))."""

from __future__ import annotations

from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.host import Host
from uspace_drv.pci.journal import Entry
from uspace_drv.pci.nodes import IOMMUFD, NO_DRIVER, UIO
from uspace_drv.pci.sysfs import DEVICES, PciFunction

FOLDER = "/etc/udev/rules.d"


def rule_path(address: PciAddress) -> str:
    """Return the file: its number puts it before 80-drivers.rules, which loads kernel drivers."""
    return f"{FOLDER}/70-uspace_drv-{address}.rules"


def rule_text(function: PciFunction, entry: Entry) -> str:
    """Return what the rule does: override, module, unbind and probe; then owners of nodes.

    It asks for the ids too, because another machine part may get the address, and for its own file:
    udev knows a rule for some seconds longer than there is one.
    """
    address, ids = function.address, function.ids
    lines = [
        f"# uspace bind --persist wrote this. To be rid of it: uspace restore {address}",
        f'TEST!="{rule_path(address)}", GOTO="end"',
        f'ACTION=="add", SUBSYSTEM=="pci", KERNEL=="{address}", '
        f'ATTR{{vendor}}=="{ids.vendor:#06x}", ATTR{{device}}=="{ids.device:#06x}", '
        f'ATTR{{driver_override}}="{entry.bound}", {_runs(address, entry.bound)}',
        *_owner_lines(address, entry),
        'LABEL="end"',
    ]
    return "\n".join(lines) + "\n"


def write_rule(function: PciFunction, entry: Entry, host: Host) -> None:
    """Put the rule in place; the entry, which says that there is one, must be on disk already."""
    host.write_file(rule_path(function.address), rule_text(function, entry))


def remove_rule(address: PciAddress, host: Host) -> None:
    """Remove it: from now on the one that udev still knows does nothing."""
    host.remove_file(rule_path(address))


def _runs(address: PciAddress, driver: str | None) -> str:
    """What udev runs: a bridge, which is to have no driver, needs none loaded."""
    if driver == NO_DRIVER:
        unbind = f"cd {DEVICES}/{address}; [ ! -e driver ] || echo {address} > driver/unbind"
        return f"RUN+=\"/bin/sh -c '{unbind}'\""
    rebind = _rebind(address, driver)
    return f'RUN{{builtin}}+="kmod load {driver}", RUN+="/bin/sh -c \'{rebind}\'"'


def _rebind(address: PciAddress, driver: str | None) -> str:
    """Shell words that do nothing where the driver has it already; udev expands $ and %."""
    return (
        f"cd {DEVICES}/{address}; [ driver -ef /sys/bus/pci/drivers/{driver} ] || "
        f"{{ [ ! -e driver ] || echo {address} > driver/unbind; "
        f"echo {address} > /sys/bus/pci/drivers_probe; }}"
    )


def _owner_lines(address: PciAddress, entry: Entry) -> list[str]:
    if entry.user is None:
        return []
    owner = f'OWNER="{entry.user}"'
    if entry.bound == UIO:
        chown = f"cd {DEVICES}/{address}; chown {entry.user} config reset resource[0-6]*"
        return [f'SUBSYSTEM=="uio", KERNELS=="{address}", {owner}, RUN+="/bin/sh -c \'{chown}\'"']
    group = f"/sys/kernel/iommu_groups/%k/devices/{address}"
    lines = [
        # The device of a group has no parent that could be matched.
        f'SUBSYSTEM=="vfio", TEST=="{group}", {owner}',
        f'SUBSYSTEM=="vfio-dev", KERNELS=="{address}", {owner}',
    ]
    if IOMMUFD in entry.owners:
        lines.append(f'SUBSYSTEM=="misc", KERNEL=="iommu", {owner}')
    return lines

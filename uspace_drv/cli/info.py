"""`uspace info`: everything that can be said of a device without running a driver on it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from uspace_drv.cli.configuration import capability_lines, describe_configuration, header_lines
from uspace_drv.cli.group import examples
from uspace_drv.cli.identity import describe_ids
from uspace_drv.cli.output import Facts, json_option, show_facts, show_json
from uspace_drv.errors import NoDevice
from uspace_drv.opening import function_behind, open_backend
from uspace_drv.pci.address import DeviceAddress, PciAddress, Scheme
from uspace_drv.pci.config import read_ids
from uspace_drv.pci.dump import read_dump
from uspace_drv.pci.header import read_bars
from uspace_drv.pci.ids import FunctionIds
from uspace_drv.pci.names import PciNames
from uspace_drv.pci.sysfs import IommuGroup, PciBus
from uspace_drv.port import IrqKind, Window

NAMES = PciNames()
"""Of all functions of a dump: the file is read once."""


@click.command(
    "info",
    epilog=examples(
        "uspace info 0000:00:04.0", "uspace info virtual:edu --json", "uspace info -F dump.txt"
    ),
)
@click.argument("address", metavar="[ADDR]", required=False)
@click.option("-F", "--file", type=click.Path(path_type=Path), help="A dump that lspci -xxxx made.")
@json_option
def info(address: str | None, file: Path | None, as_json: bool) -> None:
    """Show what the device at ADDR is and has. It is not changed, and only a socket is opened.

    Capabilities lie beyond the 64 bytes of configuration space that the kernel shows to a user;
    root sees them. With -F, shows the functions in that file, or the one at ADDR.

    \b
    --json prints an object (with -F and no ADDR, a list of them):
      address, via (sysfs, dump, virtual, vfio-user), vendor, device, name, class_code, class,
        plugins, subsystem, revision
      driver, driver_override, enabled, numa_node, reset_methods (null or empty for a dump)
      iommu_group   number, type, members (each with address and driver), or null
      bars          number, size (null in a dump), start (null for a model), text
      header        type, forwards (of a bridge), registers
      interrupts    intx, msi, msix: how many; null where that cannot be read
      capabilities  id, offset, name, version (of an extended one), detail, registers;
        null where they cannot be read
      registers     name, offset, value, fields: by name, "+" or "-" for a bit
      notes         what else there is to know
    """
    if file is None and address is None:
        raise click.UsageError("which device? Give its ADDR, or a dump with -F.")
    if file is not None:
        found = _of_dump(file, PciAddress.parse(address) if address else None)
    else:
        where = DeviceAddress.parse(str(address))
        is_model = where.scheme in {Scheme.VIRTUAL, Scheme.VFIO_USER}
        found = [_of_model(where) if is_model else _of_function(where)]
    if as_json:
        show_json(found[0] if address else found)
        return
    for number, facts in enumerate(found):
        if number:
            click.echo()
        _show(facts)


def _of_dump(path: Path, wanted: PciAddress | None) -> list[Facts]:
    spaces = read_dump(path)
    if wanted is not None and wanted not in spaces:
        there = ", ".join(str(each) for each in spaces)
        raise NoDevice(f"{wanted}: not in {path}; there are {there}")
    shown = spaces if wanted is None else {wanted: spaces[wanted]}
    return [_of_space(address, config) for address, config in shown.items()]


def _of_space(address: PciAddress, config: Window) -> Facts:
    bars = [
        {"number": bar.number, "size": None, "start": f"{bar.address:#x}", "text": str(bar)}
        for bar in read_bars(config)
    ]
    return {
        **_identity(str(address), "dump", read_ids(config)),
        **dict.fromkeys(("driver", "driver_override", "numa_node", "iommu_group", "enabled")),
        "reset_methods": [],
        "bars": bars,
        **describe_configuration(config),
    }


def _of_model(where: DeviceAddress) -> Facts:
    with closing(open_backend(str(where))) as backend:
        ids = read_ids(backend.config) if backend.config else FunctionIds(0, 0)
        bars = [
            {
                "number": number,
                "size": size,
                "start": None,
                "text": f"bar {number}: {size:#x} bytes",
            }
            for number, size in backend.bar_sizes.items()
        ]
        return {
            **_identity(str(where), backend.via, ids),
            **dict.fromkeys(("driver", "driver_override", "numa_node", "iommu_group")),
            "enabled": True,
            "reset_methods": ["model"] if backend.can_reset else [],
            "bars": bars,
            **(describe_configuration(backend.config) if backend.config else {}),
            "interrupts": {kind.value: backend.irq_counts.get(kind, 0) for kind in IrqKind},
        }


def _of_function(where: DeviceAddress) -> Facts:
    bus = PciBus()
    function = bus.function(function_behind(where))
    bars = [
        {"number": bar.number, "size": bar.size, "start": f"{bar.start:#x}", "text": str(bar)}
        for bar in function.resources
    ]
    with bus.config(function.address) as config:
        return {
            **_identity(str(function.address), "sysfs", function.ids),
            "driver": function.driver,
            "driver_override": function.driver_override,
            "numa_node": function.numa_node,
            "iommu_group": _group(function.group, bus) if function.group else None,
            "enabled": function.enabled,
            "reset_methods": list(function.reset_methods),
            "bars": bars,
            **describe_configuration(config, f"; run: sudo uspace info {function.address}"),
        }


def _identity(address: str, via: str, ids: FunctionIds) -> Facts:
    return {
        "address": address,
        "via": via,
        **describe_ids(ids, NAMES),
        "subsystem": f"{ids.subvendor:04x}:{ids.subdevice:04x}",
        "revision": f"{ids.revision:#04x}",
    }


def _group(group: IommuGroup, bus: PciBus) -> Facts:
    members = [bus.function(address) for address in group.members]
    return {
        "number": group.number,
        "type": group.type,
        "members": [{"address": str(each.address), "driver": each.driver} for each in members],
    }


def _show(facts: Facts) -> None:
    is_real, is_dump = facts["via"] == "sysfs", facts["via"] == "dump"
    ids = f"{facts['vendor'][2:]}:{facts['device'][2:]}"
    click.echo(f"{facts['address']}: {facts['name'] or facts['class']}")
    show_facts(
        {
            "  ids": f"{ids}, subsystem {facts['subsystem']}, revision {facts['revision']}",
            "  class": f"{facts['class']} ({facts['class_code']})",
            "  driver": _driver(facts) if is_real else "",
            "  plugin": ", ".join(facts["plugins"]) or "none matches",
            "  IOMMU group": _group_lines(facts["iommu_group"]) if is_real else "",
            "  NUMA node": "" if facts["numa_node"] is None else str(facts["numa_node"]),
            "  reset": "" if is_dump else ", ".join(facts["reset_methods"]) or "no way to",
            "  BARs": [bar["text"] for bar in facts["bars"]],
            "  header": header_lines(facts["header"]),
            "  interrupts": _interrupts(facts["interrupts"]),
            "  capabilities": [
                line for each in facts["capabilities"] or () for line in capability_lines(each)
            ],
            "  note": facts["notes"],
        }
    )


def _driver(facts: Facts) -> str:
    override = facts["driver_override"]
    return (facts["driver"] or "none") + (f", forced to be {override}" if override else "")


def _group_lines(group: Facts | None) -> list[str]:
    if group is None:
        return ["none: no IOMMU protects memory from it"]
    members = [f"{each['address']} ({each['driver'] or 'no driver'})" for each in group["members"]]
    return [f"{group['number']}, type {group['type'] or 'unknown'}, of:", *members]


def _interrupts(counts: Facts) -> str:
    names = {"intx": "INTx", "msi": "MSI", "msix": "MSI-X"}
    shown = [f"{names[kind]}: {count}" for kind, count in counts.items() if count]
    return ", ".join(shown) or "none"

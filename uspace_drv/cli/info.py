"""`uspace info`: everything that can be said of a device without running a driver on it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import click

from uspace_drv.attachment import function_behind, open_backend
from uspace_drv.cli.group import examples
from uspace_drv.cli.identity import describe_ids
from uspace_drv.cli.output import Facts, json_option, show_facts, show_json
from uspace_drv.pci.address import DeviceAddress, Scheme
from uspace_drv.pci.capabilities import capabilities
from uspace_drv.pci.capability_values import Capability, Msi, Msix
from uspace_drv.pci.config import HEADER_SIZE, ConfigHeader, is_present, read_ids
from uspace_drv.pci.ids import FunctionIds
from uspace_drv.pci.names import PciNames
from uspace_drv.pci.sysfs import IommuGroup, PciBus, PciFunction
from uspace_drv.port import IrqKind, Window

LAST_PIN = 4  # INTD; all ones is what a function that is gone reads


@click.command(
    "info",
    epilog=examples("uspace info 0000:00:04.0", "uspace info virtual:edu --json"),
)
@click.argument("address", metavar="ADDR")
@json_option
def info(address: str, as_json: bool) -> None:
    """Show what the device at ADDR is and has. It is not changed, and only a socket is opened.

    Capabilities lie beyond the 64 bytes of configuration space that the kernel shows to a user;
    root sees them.

    \b
    --json prints an object:
      address, via (sysfs, virtual, vfio-user), vendor, device, name, class_code, class,
        plugins, subsystem, revision
      driver, driver_override, enabled, numa_node, reset_methods
      iommu_group   number, type, members (each with address and driver), or null
      bars          number, size, start (null for a model), text
      interrupts    intx, msi, msix: how many; null where that cannot be read
      capabilities  id, offset, name, detail; null where they cannot be read
      notes         what else there is to know
    """
    where = DeviceAddress.parse(address)
    is_model = where.scheme in {Scheme.VIRTUAL, Scheme.VFIO_USER}
    facts = _of_model(where) if is_model else _of_function(where)
    if as_json:
        show_json(facts)
    else:
        _show(facts)


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
            **(_from_config(backend.config) if backend.config else {}),
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
            **_from_config(config, function),
        }


def _identity(address: str, via: str, ids: FunctionIds) -> Facts:
    return {
        "address": address,
        "via": via,
        **describe_ids(ids, PciNames()),
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


def _from_config(config: Window, function: PciFunction | None = None) -> Facts:
    notes = []
    if not is_present(config):
        notes.append("configuration space reads all ones: the device is gone or powered down")
    hidden = config.size <= HEADER_SIZE
    if hidden:
        where = function.address if function else config.name
        notes.append(
            f"capabilities and message interrupts are not shown: this user may read "
            f"{config.size} bytes of configuration space; run: sudo uspace info {where}"
        )
    found = None if hidden else capabilities(config)
    pin = ConfigHeader(config).interrupt_pin.read()
    return {
        "interrupts": {"intx": int(0 < pin <= LAST_PIN), **_messages(found)},
        "capabilities": found and [_capability(each) for each in found],
        "notes": notes,
    }


def _messages(found: Sequence[Capability] | None) -> Facts:
    if found is None:
        return {"msi": None, "msix": None}
    return {
        "msi": sum(each.vectors for each in found if isinstance(each, Msi)),
        "msix": sum(each.vectors for each in found if isinstance(each, Msix)),
    }


def _capability(capability: Capability) -> Facts:
    return {
        "id": f"{capability.id:#x}",
        "offset": f"{capability.offset:#x}",
        "name": capability.name,
        "detail": capability.detail,
    }


def _show(facts: Facts) -> None:
    is_real = facts["via"] == "sysfs"
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
            "  reset": ", ".join(facts["reset_methods"]) or "no way to",
            "  BARs": [bar["text"] for bar in facts["bars"]],
            "  interrupts": _interrupts(facts["interrupts"]),
            "  capabilities": [_in_words(each) for each in facts["capabilities"] or ()],
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


def _in_words(capability: Facts) -> str:
    detail = f": {capability['detail']}" if capability["detail"] else ""
    return f"[{capability['offset']}] {capability['name']}{detail}"

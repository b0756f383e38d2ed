"""`uspace list`: what this machine has that a driver could be run on."""

from __future__ import annotations

import click

from uspace_drv.backends.uio_node import uio_nodes
from uspace_drv.cli.group import examples
from uspace_drv.cli.identity import describe_driver, describe_ids
from uspace_drv.cli.output import Facts, json_option, show_json, show_table
from uspace_drv.pci.host import Host
from uspace_drv.pci.ids import UioName
from uspace_drv.pci.names import PciNames
from uspace_drv.pci.sysfs import PciBus, PciFunction
from uspace_drv.plugins import installed_plugins, plugins_for


@click.command("list", epilog=examples("uspace list", "uspace list --json | jq '.functions[0]'"))
@json_option
def list_devices(as_json: bool) -> None:
    """List PCI functions, UIO nodes and device models.

    Takes no rights and changes nothing. Names come from pci.ids (Debian: apt install pci.ids),
    else from the plugin that matches.

    \b
    --json prints an object with three lists:
      functions  address, vendor, device, name, class_code, class, driver,
                 iommu_group, uio, plugins
      uio        address, name, function, plugins
      models     address, description
    What there is none of is null.
    """
    bus, names = PciBus(), PciNames()
    functions = bus.functions()
    found = {
        "functions": [_function(function, names) for function in functions],
        "uio": _uio_nodes(bus.host, functions),
        "models": _models(),
    }
    if as_json:
        show_json(found)
    else:
        _show(found)


def _function(function: PciFunction, names: PciNames) -> Facts:
    return {
        "address": str(function.address),
        **describe_ids(function.ids, names),
        "driver": function.driver,
        "iommu_group": function.group.number if function.group else None,
        "uio": f"uio:{function.uio}" if function.uio else None,
    }


def _uio_nodes(host: Host, functions: list[PciFunction]) -> list[Facts]:
    owners = {function.uio: function for function in functions if function.uio}
    nodes = []
    for node in uio_nodes(host):
        owner = owners.get(node.node)
        plugins = plugins_for(owner.ids if owner else UioName(node.name))
        nodes.append(
            {
                "address": f"uio:{node.node}",
                "name": node.name,
                "function": str(owner.address) if owner else None,
                "plugins": [found.name for found in plugins],
            }
        )
    return nodes


def _models() -> list[Facts]:
    return [
        {"address": f"virtual:{found.name}", "description": describe_driver(found.plugin.driver)}
        for found in installed_plugins()
        if found.plugin and found.plugin.model
    ]


def _show(found: dict[str, list[Facts]]) -> None:
    columns = ("address", "id", "name", "driver", "group", "plugin")
    show_table(columns, (_row(function) for function in found["functions"]))
    if not found["functions"]:
        click.echo("no PCI functions here")
    if found["uio"]:
        click.echo()
        nodes = (
            (n["address"], n["name"], n["function"] or "-", *n["plugins"]) for n in found["uio"]
        )
        show_table(("UIO node", "name", "function", "plugin"), nodes)
    click.echo()
    models = ((model["address"], model["description"]) for model in found["models"])
    show_table(("device model", ""), models)


def _row(function: Facts) -> list[str]:
    group = function["iommu_group"]
    return [
        function["address"],
        f"{function['vendor'][2:]}:{function['device'][2:]}",
        ": ".join(filter(None, [function["class"], function["name"]])),
        function["driver"] or "-",
        "-" if group is None else str(group),
        ", ".join(function["plugins"]) or "-",
    ]

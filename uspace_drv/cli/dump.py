"""`uspace dump`: the registers of a device, decoded, without a driver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import click

from uspace_drv.cli.group import examples
from uspace_drv.cli.output import Facts, json_option, show_json, show_table
from uspace_drv.cli.session import ids_in_sysfs
from uspace_drv.cli.values import register_json
from uspace_drv.device import Device
from uspace_drv.errors import NoDriver
from uspace_drv.opening import VIAS, identity_of, open_backend
from uspace_drv.pci.ids import Identity
from uspace_drv.plugins import Plugin, plugin_for, plugin_named
from uspace_drv.port import Window
from uspace_drv.registers import Declaration, Register, RegisterBlock

SKIPPED: Facts = {"value": None, "fields": {}, "text": ""}


@click.command(
    "dump",
    epilog=examples(
        "uspace dump virtual:edu",
        "uspace dump 0000:00:04.0 --bar 0",
        "uspace dump 0000:00:04.0 --json | jq '.registers[] | select(.value)'",
    ),
)
@click.argument("address", metavar="ADDR")
@click.option("bar", "--bar", type=int, help="Only this BAR.")
@click.option("name", "--driver", help="Use this plugin's tables instead of those that match.")
@click.option("--via", type=click.Choice(VIAS), help="How to open it.")
@json_option
def dump(address: str, bar: int | None, name: str | None, via: str | None, as_json: bool) -> None:
    """Read the registers of the device at ADDR, decoded by its plugin's table.

    No driver is started and nothing is written; registers that cannot be read, or whose read
    changes the device, are skipped. The kernel resets a device when VFIO opens it, so what is seen
    through VFIO is how the device wakes up.

    \b
    --json prints an object with address, via and registers, a list of:
      bar, offset, name, access, description
      value    hexadecimal, or null where it was skipped
      fields   by name; text is the same for people
      skipped  why, or null
    """
    known = plugin_named(name) if name else None
    if known is None and (ids := ids_in_sysfs(address)):
        _matching(ids, address)  # nobody binds a device that no plugin is for
    with (
        closing(open_backend(address, via=via)) as backend,
        closing(Device(backend)) as device,
    ):
        plugin = known or _matching(identity_of(backend), device.address)
        device.check_present()
        found = [
            row
            for number, block in _tables(plugin, bar)
            for row in _rows(number, block, device.bar(number))
        ]
        if as_json:
            show_json({"address": device.address, "via": device.via, "registers": found})
        else:
            _show(found)


def _matching(ids: Identity, address: str) -> Plugin:
    try:
        return plugin_for(ids, address)
    except NoDriver as error:
        raise NoDriver(f"{error}; to use the tables of another: --driver NAME") from error


def _tables(plugin: Plugin, bar: int | None) -> list[tuple[int, type[RegisterBlock]]]:
    if bar is not None and bar not in plugin.registers:
        known = ", ".join(str(number) for number in sorted(plugin.registers)) or "none"
        raise click.BadParameter(
            f"{plugin.driver.__name__} has no register table for BAR {bar}; it has {known}",
            param_hint="--bar",
        )
    return [pair for pair in sorted(plugin.registers.items()) if bar in {None, pair[0]}]


def _rows(bar: int, block: type[RegisterBlock], window: Window) -> Iterator[Facts]:
    for register in block.registers():
        skipped = _reason_to_skip(register)
        yield {
            "bar": bar,
            "offset": f"{register.offset:#x}",
            "name": register.name,
            "access": register.access.value,
            "description": register.doc,
            **(_read(register, window) if skipped is None else SKIPPED),
            "skipped": skipped,
        }


def _reason_to_skip(register: Declaration[Any, Any]) -> str | None:
    if not register.access.readable:
        return "write-only"
    return "a read changes the device" if register.side_effects else None


def _read(register: Declaration[Any, Any], window: Window) -> Facts:
    value = register.bind(window).read()
    if isinstance(value, Register):
        return {**register_json(value), "text": " ".join(value.shown())}
    return {"value": register.show(value), "fields": {}, "text": ""}


def _show(found: list[Facts]) -> None:
    rows = (
        (
            str(row["bar"]),
            row["offset"],
            row["name"],
            row["access"],
            row["value"] or "-",
            _note(row),
        )
        for row in found
    )
    show_table(("bar", "offset", "register", "access", "value", ""), rows)


def _note(row: Facts) -> str:
    if row["skipped"]:
        return f"skipped: {row['skipped']}"
    return str(row["text"] or row["description"])

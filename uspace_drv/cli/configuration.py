"""What configuration space says of a function, as `uspace info` prints it and puts it into JSON."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from uspace_drv.cli.output import Facts
from uspace_drv.pci.capabilities import capabilities
from uspace_drv.pci.capability_layouts import Reading
from uspace_drv.pci.capability_values import Capability, ExtendedCapability, Msi, Msix
from uspace_drv.pci.capability_words import describe
from uspace_drv.pci.config import HEADER_SIZE, ConfigHeader, is_present
from uspace_drv.pci.header import is_bridge, read_header, read_ranges
from uspace_drv.port import Window
from uspace_drv.registers import Register

LAST_PIN = 4  # INTD; all ones is what a function that is gone reads


def describe_configuration(config: Window, hint: str = "") -> Facts:
    """Return header, interrupts and capabilities; `hint` says what helps where they are hidden."""
    notes = []
    if not is_present(config):
        notes.append("configuration space reads all ones: the device is gone or powered down")
    hidden = config.size <= HEADER_SIZE
    if hidden:
        notes.append(
            f"capabilities and message interrupts are not shown: "
            f"{config.size} bytes of configuration space can be read{hint}"
        )
    found = None if hidden else capabilities(config)
    pin = ConfigHeader(config).interrupt_pin.read()
    return {
        "header": _header(config),
        "interrupts": {"intx": int(0 < pin <= LAST_PIN), **_messages(found)},
        "capabilities": found and [_capability(each) for each in found],
        "notes": notes,
    }


def _header(config: Window) -> Facts:
    bridge = is_bridge(config)
    return {
        "type": ConfigHeader(config).header_type.read().header_layout,
        "forwards": [str(each) for each in read_ranges(config)] if bridge else [],
        "registers": [_register(each) for each in read_header(config)],
    }


def _messages(found: Sequence[Capability] | None) -> Facts:
    if found is None:
        return {"msi": None, "msix": None}
    return {
        "msi": sum(each.vectors for each in found if isinstance(each, Msi)),
        "msix": sum(each.vectors for each in found if isinstance(each, Msix)),
    }


def _capability(capability: Capability) -> Facts:
    version = capability.version if isinstance(capability, ExtendedCapability) else None
    return {
        "id": f"{capability.id:#x}",
        "offset": f"{capability.offset:#x}",
        "name": capability.name,
        "version": version,
        "detail": capability.detail,
        "registers": [_register(each) for each in capability.registers],
    }


def _register(reading: Reading) -> Facts:
    return {
        "name": reading.name,
        "offset": f"{reading.offset:#x}",
        "value": f"{int(reading.value):#0{reading.width // 4 + 2}x}",
        "fields": describe(reading.value) if isinstance(reading.value, Register) else {},
    }


SHOWN = {"command", "status", "secondary_status", "bridge_control"}
"""Registers of the header that people are shown bit by bit: the others are said elsewhere."""

NUMBERS = {
    "cache_line_size", "latency_timer", "interrupt_line", "interrupt_pin", "primary_bus_number",
    "secondary_bus_number", "subordinate_bus_number", "secondary_latency_timer",
}  # fmt: skip


def header_lines(header: Facts) -> list[str]:
    """Return the registers of the header that say something, then what a bridge forwards."""
    registers = header["registers"]
    lines = [register_line(each) for each in registers if each["name"] in SHOWN]
    numbers = [f"{each['name']} {each['value']}" for each in registers if each["name"] in NUMBERS]
    forwards = [f"forwards {each}" for each in header["forwards"]]
    return [*lines, ", ".join(numbers), *forwards]


def capability_lines(capability: Facts) -> list[str]:
    """Return what a capability is, then its registers: one a line, but plain numbers together."""
    version = "" if capability["version"] is None else f" v{capability['version']}"
    detail = f": {capability['detail']}" if capability["detail"] else ""
    first = f"[{capability['offset']}{version}] {capability['name']}{detail}"
    lines = [first]
    for has_fields, group in groupby(capability["registers"], lambda each: bool(each["fields"])):
        said = [register_line(each) for each in group]
        lines += [f"  {line}" for line in (said if has_fields else [", ".join(said)])]
    return lines


def register_line(register: Facts) -> str:
    """Return name, value and fields of a register.

    Bits come last, as `name+` those that are set, then the others as `name-`.
    """
    fields: dict[str, str] = register["fields"]
    said = [f"{name}={text}" for name, text in fields.items() if text not in {"+", "-"}]
    bits = [f"{name}{sign}" for sign in "+-" for name, text in fields.items() if text == sign]
    return " ".join(filter(None, [register["name"], register["value"], ", ".join(said), *bits]))

"""Numbers with units (`uspace_drv.verbs.Unit`): how people read and write them."""

from __future__ import annotations

import re
from typing import Annotated, Any, get_args, get_origin

import click

from uspace_drv.verbs import Unit

BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
DECIMAL = ("", "k", "M", "G", "T", "P", "E")
SMALL = ("", "m", "u", "n")
SHIFTS = {"k": 10, "m": 20, "g": 30, "t": 40}
SIZE = re.compile(r"(?P<number>\w+?)\s*(?P<prefix>[kmgt])(i?b)?", re.IGNORECASE)


def unit_of(hint: Any) -> str:
    """Return the unit that a type hint names, also in `Size | None`; "" for none."""
    if get_origin(hint) is Annotated:
        return next((each.name for each in get_args(hint)[1:] if isinstance(each, Unit)), "")
    return next(filter(None, map(unit_of, get_args(hint))), "")


def with_unit(value: float, unit: str) -> str:
    """Return a number as people read it: 1.0 GiB, 1.2 us, 5.0 GB/s, 42 C, 1,234,567/s."""
    if unit == "B":
        return _scaled(value, unit, BINARY, 1024)
    if unit == "B/s":
        return _scaled(value, unit, DECIMAL, 1000)
    if unit == "s":
        return _seconds(value)
    number = f"{value:,}" if isinstance(value, int) else f"{value:,.{0 if value >= 1000 else 2}f}"
    return f"{number}{unit}" if unit.startswith("/") else f"{number} {unit}".rstrip()


def to_size(text: Any) -> int:
    """Read bytes: 4096, 0x1000, 4K, 64M, 1G, 2T (powers of 1024)."""
    if isinstance(text, int):
        return text
    found = SIZE.fullmatch(text)
    number, prefix = (found["number"], found["prefix"].lower()) if found else (text, "")
    try:
        return int(number, 0) << SHIFTS.get(prefix, 0)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a size like 4096, 4K or 1G") from None


def _scaled(value: float, unit: str, prefixes: tuple[str, ...], step: int) -> str:
    """Return the value below 1000 of its prefix, with one place; without a prefix as it is."""
    power = 0
    while abs(value) >= step and power < len(prefixes) - 1:
        value /= step
        power += 1
    return f"{value:.1f} {prefixes[power]}{unit}" if power else f"{value:g} {unit}"


def _seconds(value: float) -> str:
    power = 0
    while 0 < abs(value) < 1 and power < len(SMALL) - 1:
        value *= 1000
        power += 1
    return f"{value:.4g} {SMALL[power]}s" if value < 1000 else f"{value:,.0f} s"

"""Configuration space from a file, as `lspci -x`, `-xxx` or `-xxxx` prints it.

Format: lspci(8), option -F: a line that starts with the function's address, then lines of an offset
and up to sixteen bytes, all in hexadecimal. Other lines may stand between.
"""

from __future__ import annotations

import re
from pathlib import Path

from uspace_drv.errors import HostError, NoDevice
from uspace_drv.native import Window
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.config import EXTENDED_CONFIG_SIZE, HEADER_SIZE

_FUNCTION = re.compile(r"(?P<domain>[0-9a-f]{4,8}:)?(?P<rest>[0-9a-f]{2}:[01][0-9a-f]\.[0-7])\b")
_ROW = re.compile(r"(?P<offset>[0-9a-f]{2,3}):(?P<bytes>( [0-9a-f]{2}){1,16})\s*")


def read_dump(path: Path) -> dict[PciAddress, Window]:
    """Return the functions in the file with what it holds of their configuration space.

    What lies between two lines and is in none reads as ones, as where nobody answers; functions
    with less than a header (64 bytes) are left out. Raises `HostError` where the file cannot be
    read, `NoDevice` where there is no function in it.
    """
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        raise HostError(f"{path}: cannot be read: {error.strerror}", cause=error) from error
    found = parse_dump(text)
    if not found:
        raise NoDevice(
            f"{path}: no configuration space of a function in it; expected what lspci -xxxx prints"
        )
    return found


def parse_dump(text: str) -> dict[PciAddress, Window]:
    """Return what `read_dump` does, of the file's content."""
    spaces: dict[PciAddress, bytearray] = {}
    space = bytearray()  # rows before the first function belong to nobody
    for line in text.splitlines():
        if row := _ROW.fullmatch(line):
            _put(space, int(row["offset"], 16), bytes.fromhex(row["bytes"]))
        elif head := _FUNCTION.match(line):
            address = PciAddress.parse(f"{head['domain'] or '0000:'}{head['rest']}")
            space = spaces[address] = bytearray()
    return {
        address: Window.over_buffer(f"{address} config", data)
        for address, data in spaces.items()
        if len(data) >= HEADER_SIZE
    }


def _put(space: bytearray, offset: int, data: bytes) -> None:
    end = min(offset + len(data), EXTENDED_CONFIG_SIZE)
    space.extend(b"\xff" * (end - len(space)))
    space[offset:end] = data[: end - offset]

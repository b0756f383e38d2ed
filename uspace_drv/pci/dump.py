"""Configuration space from a file, as `lspci -x`, `-xxx` or `-xxxx` prints it.

Format: lspci(8), option -F: a line that starts with the function's address, then rows of an offset
and sixteen bytes, all in hexadecimal. Other lines may stand between.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from uspace_drv.errors import HostError, NoDevice
from uspace_drv.native import Window
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.config import CONFIG_SIZE, EXTENDED_CONFIG_SIZE, HEADER_SIZE

_FUNCTION = re.compile(r"(?P<domain>[0-9a-f]{4,8}:)?(?P<rest>[0-9a-f]{2}:[01][0-9a-f]\.[0-7])\b")
_ROW = re.compile(r"(?P<offset>[0-9a-f]+0):(?P<bytes>\s.*)?", re.IGNORECASE)
_BYTE = re.compile(r"[0-9a-f]{2}", re.IGNORECASE)
_ROW_BYTES = 16
_CARDBUS_SIZE = 0x80  # what lspci -x prints of a bridge to CardBus


def read_dump(path: Path) -> dict[PciAddress, Window]:
    """Return the functions in the file with what it holds of their configuration space.

    Each has 64, 128 or a multiple of 256 bytes; those without a row are left out. Raises
    `HostError` where the file cannot be read, and where a row is damaged or missing, with its
    line; `NoDevice` where there is no function in it.
    """
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        raise HostError(f"{path}: cannot be read: {error.strerror}", cause=error) from error
    found = parse_dump(text, path)
    if not found:
        raise NoDevice(
            f"{path}: no configuration space of a function in it; expected what lspci -xxxx prints"
        )
    return found


def parse_dump(text: str, path: Path = Path("dump")) -> dict[PciAddress, Window]:
    """Return what `read_dump` does, of the file's content; errors name `path`."""
    parser = _Parser(path, text.splitlines())
    for number, line in enumerate(parser.lines):
        if row := _ROW.fullmatch(line):
            parser.add_row(number, int(row["offset"], 16), row["bytes"] or "")
        elif head := _FUNCTION.match(line):
            parser.require_whole()
            parser.begin(PciAddress.parse(f"{head['domain'] or '0000:'}{head['rest']}"))
    parser.require_whole()
    return {
        address: Window.over_buffer(f"{address} config", data)
        for address, data in parser.spaces.items()
        if data
    }


@dataclass
class _Parser:
    """The functions so far, and where the next row of the last one has to stand."""

    path: Path
    lines: list[str]
    spaces: dict[PciAddress, bytearray] = field(default_factory=dict)
    space: bytearray | None = None
    next_line: int = 0

    def begin(self, address: PciAddress) -> None:
        """Go on with another function."""
        self.space = self.spaces[address] = bytearray()

    def add_row(self, number: int, offset: int, text: str) -> None:
        """Append a row; it has to follow the one before."""
        if self.space is None:
            raise self._damage(number, "the address of a function before this row")
        if offset != len(self.space) or offset >= EXTENDED_CONFIG_SIZE:
            raise self._damage(self._after_the_last_row(number), self._expected)
        words = text.split()
        if len(words) != _ROW_BYTES or not all(map(_BYTE.fullmatch, words)):
            raise self._damage(number, self._expected)
        self.space += bytes.fromhex(text)
        self.next_line = number + 1

    def require_whole(self) -> None:
        """Refuse a function that ends where no lspci ends."""
        if self.space and not _is_whole(len(self.space)):
            raise self._damage(self._after_the_last_row(self.next_line), self._expected)

    @property
    def _expected(self) -> str:
        size = len(self.space or b"")
        row = f"{_ROW_BYTES} bytes after {size:02x}:"
        if size >= EXTENDED_CONFIG_SIZE:
            return "the address of another function"
        return f"{row} or the address of another function" if _is_whole(size) else row

    def _after_the_last_row(self, number: int) -> int:
        """The line at which the row is not that was expected; `number` where there is no row."""
        first = self.next_line if self.space else number
        filled = (at for at in range(first, len(self.lines)) if self.lines[at].strip())
        return next(filled, len(self.lines))

    def _damage(self, number: int, expected: str) -> HostError:
        at_end = number >= len(self.lines)
        found = "the end of the file" if at_end else repr(self.lines[number])
        return HostError(
            f"{self.path}:{number + 1}: expected {expected}, found {found}; the dump is damaged, "
            "make it again: lspci -xxxx"
        )


def _is_whole(size: int) -> bool:
    """Whether lspci prints so much: a header, or the whole space, old or extended, or less of it.

    Of the extended space a dump may have a part, by steps of 256 bytes.
    """
    if size > EXTENDED_CONFIG_SIZE:
        return False
    return size in (HEADER_SIZE, _CARDBUS_SIZE) or (size > 0 and size % CONFIG_SIZE == 0)

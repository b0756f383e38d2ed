"""An ACPI table that declares one device of the board (ACPI 6.5, chapters 19 and 20.2, AML)."""

from __future__ import annotations

import struct
import uuid

_PROPERTIES = uuid.UUID("daffd814-6eba-4d8c-8a91-bc9bbf4aa301")
"""Marks a package of named properties (_DSD Device Properties UUID)."""


def platform_device(
    hardware_id: str, *, memory: int, size: int, interrupt: int, properties: dict[str, str]
) -> bytes:
    """An SSDT with one device below \\_SB: registers at `memory`, a level-triggered `interrupt`.

    The kernel makes a platform device of it, called `hardware_id` and ':00'.
    """
    resources = _fixed_memory(memory, size) + _level_interrupt(interrupt) + b"\x79\x00"
    pairs = [_package(_string(name), _string(value)) for name, value in properties.items()]
    device = _sized(
        b"\x5b\x82",
        b"USPC",
        _name("_HID", _string(hardware_id)),
        _name("_CRS", _buffer(resources)),
        _name("_DSD", _package(_buffer(_PROPERTIES.bytes_le), _package(*pairs))),
    )
    return _table(_sized(b"\x10", b"\\_SB_", device))


def _fixed_memory(start: int, size: int) -> bytes:
    # Read-only by its flag, which means nothing to UIO: uio_pdrv_genirq skips any other memory.
    return struct.pack("<BHBII", 0x86, 9, 0, start, size)


def _level_interrupt(number: int) -> bytes:
    """A consumer's, level, active high, exclusive (section 6.4.3.6)."""
    return struct.pack("<BHBBI", 0x89, 6, 0x01, 1, number)


def _sized(opcode: bytes, *parts: bytes) -> bytes:
    """An object that begins with its own length, here in two bytes (section 20.2.4)."""
    content = b"".join(parts)
    length = len(content) + 2
    return opcode + bytes([0x40 | length & 0xF, length >> 4]) + content


def _name(segment: str, value: bytes) -> bytes:
    return b"\x08" + segment.encode() + value


def _string(text: str) -> bytes:
    return b"\x0d" + text.encode() + b"\0"


def _buffer(content: bytes) -> bytes:
    return _sized(b"\x11", bytes([0x0A, len(content)]), content)


def _package(*elements: bytes) -> bytes:
    return _sized(b"\x12", bytes([len(elements)]), *elements)


def _table(body: bytes) -> bytes:
    """The header of section 5.2.6; all bytes of a table add up to 0."""
    fields = (b"SSDT", 36 + len(body), 2, 0, b"USPACE", b"PLATFORM", 1, b"USPC", 1)
    table = bytearray(struct.pack("<4sIBB6s8sI4sI", *fields) + body)
    table[9] = -sum(table) & 0xFF
    return bytes(table)

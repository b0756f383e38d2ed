"""Functions whose capabilities hold random bits, in places where every reader must find them.

Only what leads somewhere is no accident: ids, pointers, lengths, and the types that lspci and the
specification have a name for.
"""

from __future__ import annotations

import random
import struct

LATENCY_TOLERANCE = 0x18
RESIZABLE = (0x15, 0x24)
PORTS = (0, 1, 4, 5, 6, 7, 8, 9, 10)
_BRIDGES = {4, 5, 6, 7, 8}
_POINTER, _LIST = 0x34, 0x10

STANDARD = [
    # id, offset, bytes: with no more than their own between two of them
    (0x01, 0x40, 0x08), (0x05, 0x48, 0x18), (0x11, 0x60, 0x0C), (0x10, 0x6C, 0x3C),
    (0x13, 0xA8, 0x08), (0x0D, 0xB0, 0x08), (0x04, 0xB8, 0x04), (0x12, 0xBC, 0x08),
    (0x0A, 0xC4, 0x04), (0x09, 0xC8, 0x18), (0x06, 0xE0, 0x04), (0x0C, 0xE4, 0x04),
    (0x03, 0xE8, 0x08), (0x0B, 0xF0, 0x04),
]  # fmt: skip

EXTENDED = [
    # id, bytes
    (0x01, 0x38), (0x02, 0x70), (0x03, 0x0C), (0x0D, 0x08), (0x0E, 0x08), (0x0F, 0x08),
    (0x10, 0x40), (0x13, 0x10), (0x18, 0x08), (0x19, 0x10), (0x1B, 0x08), (0x1D, 0x10),
    (0x1E, 0x10), (0x1F, 0x0C), (0x2E, 0x18), (0x04, 0x10), (0x25, 0x0C), (0x26, 0x24),
    (0x08, 0x10), (0x0B, 0x10), (0x07, 0x10), (0x12, 0x30), (0x15, 0x1C), (0x17, 0x0C),
    (0x23, 0x10), (0x24, 0x1C), (0x2F, 0x10),
]  # fmt: skip


def made_space(seed: int) -> bytearray:
    """4096 bytes of configuration space; each seed gives one port type, so nine give all."""
    rng = random.Random(seed)
    space = bytearray(rng.randbytes(0x1000))
    port = PORTS[seed % len(PORTS)]
    _header(space, rng, is_bridge=port in _BRIDGES, is_virtio=seed % 3 == 0)
    for number, (kind, offset, _size) in enumerate(STANDARD):
        following = STANDARD[number + 1][1] if number + 1 < len(STANDARD) else 0
        space[offset : offset + 2] = bytes((kind, following))
    express = 0x6C
    version = rng.choice((1, 2))
    flags = rng.getrandbits(6) << 8 | port << 4 | version
    struct.pack_into("<H", space, express + 2, flags)
    space[0xC8 + 2 : 0xC8 + 5] = bytes((0x18, rng.randrange(10), rng.randrange(6)))
    _extended(space, rng)
    return space


def _header(space: bytearray, rng: random.Random, *, is_bridge: bool, is_virtio: bool) -> None:
    struct.pack_into("<HH", space, 0, *((0x1AF4, 0x1041) if is_virtio else (0x1234, 0x5678)))
    space[6] |= _LIST
    space[0x0A:0x0C] = b"\x04\x06" if is_bridge else b"\x00\x02"
    space[0x0E] = 0x80 * rng.getrandbits(1) | is_bridge
    space[_POINTER] = STANDARD[0][1]
    space[0x3D] = rng.randrange(5)
    space[0x3C] = rng.randrange(1, 200)
    space[0x14 if is_bridge else 0x24] &= ~4  # the last BAR has none after it for its upper half
    if is_bridge:
        # Base and limit agree on the kind of their window.
        for base, limit, kind in ((0x1C, 0x1D, rng.getrandbits(1)), (0x20, 0x22, 0),
                                  (0x24, 0x26, rng.getrandbits(1))):  # fmt: skip
            space[base] = space[base] & 0xF0 | kind
            space[limit] = space[limit] & 0xF0 | kind


def _extended(space: bytearray, rng: random.Random) -> None:
    order = rng.sample(EXTENDED, len(EXTENDED))
    offset = 0x100
    for number, (kind, size) in enumerate(order):
        following = offset + size if number + 1 < len(order) else 0
        head = following << 20 | rng.randrange(1, 16) << 16 | kind
        struct.pack_into("<I", space, offset, head)
        if kind == LATENCY_TOLERANCE:
            space[offset + 5] &= ~0x10  # scales from 6 on have no meaning, but lspci multiplies
            space[offset + 7] &= ~0x10
        elif kind in RESIZABLE:
            _resizable(space, offset, rng)
        offset += size


def _resizable(space: bytearray, offset: int, rng: random.Random) -> None:
    """Up to three BARs, in order; the first says how many. No sizes beyond 128 TiB."""
    for index in range(3):
        control = offset + 8 + 8 * index
        space[control] = rng.randrange(1, 4) << 5 | index
        space[control + 2 : control + 4] = b"\0\0"


def as_dump(spaces: list[bytearray]) -> str:
    """The text that lspci -xxxx would print, one function after the other."""
    blocks = []
    for number, space in enumerate(spaces):
        rows = [f"{number:02x}:00.0 made"]
        rows += [f"{at:02x}: {space[at : at + 16].hex(' ')}" for at in range(0, len(space), 16)]
        blocks.append("\n".join(rows))
    return "\n\n".join(blocks) + "\n"

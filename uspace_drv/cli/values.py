"""Values that registers hold and verbs return: as JSON, and as people read them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from uspace_drv.registers import Register

BYTES_PER_LINE = 16
PLAIN = (bool, int, float, str, type(None))


def jsonable(value: Any) -> Any:
    """Return what JSON can say of it: enums by name, bytes in hexadecimal, arrays as lists."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, Register):
        return register_json(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: jsonable(getattr(value, each.name)) for each in fields(value)}
    return _collection(value)


def register_json(value: Register) -> dict[str, Any]:
    """Return the whole number in hexadecimal, and each field."""
    content = {name: jsonable(getattr(value, name)) for name in value.FIELDS}
    return {"value": f"{value.raw:#0{value.WIDTH // 4 + 2}x}", "fields": content}


def in_words(value: Any) -> str:
    """Return it as people read it; several lines where it has several parts."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return "\n".join(hex_dump(bytes(value)))
    if isinstance(value, Mapping):
        return "\n".join(f"{name}: {in_words(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return "\n".join(map(in_words, value))
    return repr(value) if isinstance(value, Register) or is_dataclass(value) else str(value)


def hex_dump(data: bytes) -> Iterator[str]:
    """Yield lines of offset, bytes and text; equal lines in a row are one '*', as in hexdump(1)."""
    last = None
    for start in range(0, len(data), BYTES_PER_LINE):
        line = data[start : start + BYTES_PER_LINE]
        if line != last:
            text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in line)
            yield f"{start:08x}  {line.hex(' '):<47}  |{text}|"
            starred = False
        elif not starred:
            yield "*"
            starred = True
        last = line
    yield f"{len(data):08x}"


def _collection(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_key(name): jsonable(part) for name, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(part) for part in value]
    if hasattr(value, "tolist"):  # numpy, which is not imported for this
        return jsonable(value.tolist())
    return str(value)


def _key(name: object) -> str:
    plain = jsonable(name)
    return plain if isinstance(plain, str) else json.dumps(plain)

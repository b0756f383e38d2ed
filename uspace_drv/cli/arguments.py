"""Typed arguments: how a text on the command line becomes the value that a signature asks for."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click

from uspace_drv.cli.units import to_size, unit_of
from uspace_drv.errors import HostError

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True)
class Converter:
    """What a text is turned into: `convert` also takes a value that is one already (a default)."""

    name: str
    explanation: str
    convert: Callable[[Any], Any]
    is_flag: bool = False

    def show(self, default: object) -> str | bool:
        """Return how help prints a default; nothing for None."""
        if isinstance(default, Enum):
            return default.name.lower()
        return default is not None


def converter_for(hint: Any) -> Converter | None:
    """Return the converter to a type, or None where no text can stand for it."""
    if get_origin(hint) in {Union, types.UnionType}:
        found = [converter_for(part) for part in get_args(hint) if part is not type(None)]
        return next((converter for converter in found if converter), None)
    if get_origin(hint) is Annotated:
        return _SIZE if unit_of(hint) == "B" else converter_for(get_args(hint)[0])
    if get_origin(hint) is Literal:
        return _choice({str(value): value for value in get_args(hint)})
    if hint in _CONVERTERS:
        return _CONVERTERS[hint]
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _choice({member.name.lower(): member for member in hint})
    # NewType, as in Iova, is the type below it.
    below = getattr(hint, "__supertype__", None)
    return None if below is None else converter_for(below)


def to_int(text: Any) -> int:
    """Read 5, 0x1f, 0b101, 1_000."""
    try:
        return text if isinstance(text, int) else int(text, 0)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not an integer like 5 or 0x1f") from None


def to_float(text: Any) -> float:
    """Read 2, 0.5, 1e-3."""
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a number like 2 or 0.5") from None


def to_bool(text: Any) -> bool:
    """Read true and false, and the words that mean the same."""
    word = str(text).lower()
    if word not in TRUE + FALSE:
        raise click.BadParameter(f"{text!r} is neither true nor false")
    return word in TRUE


def to_bytes(text: Any) -> bytes:
    """Read hexadecimal digits, text:WORDS, or @FILE (@- is standard input)."""
    if not isinstance(text, str):
        return bytes(text)
    if text.startswith("text:"):
        return text.removeprefix("text:").encode()
    if text.startswith("@"):
        return _content(text[1:])
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not hexadecimal; give deadbeef, text:{text} or @FILE"
        ) from None


def _content(name: str) -> bytes:
    if name == "-" and sys.stdin is None:
        raise HostError("cannot read standard input: it is closed; give @FILE instead of @-")
    try:
        if name == "-":
            return sys.stdin.buffer.read()
        return Path(name).read_bytes()
    except OSError as error:
        raise click.BadParameter(f"cannot read {name}: {error.strerror}") from error


def _choice(values: dict[str, Any]) -> Converter:
    known = "|".join(values)

    def convert(text: Any) -> Any:
        if text in values.values():
            return text
        word = str(text).lower()
        found = next((value for name, value in values.items() if name.lower() == word), None)
        if found is None:
            raise click.BadParameter(f"{text!r} is not one of {known}")
        return found

    return Converter(known, f"one of {known}", convert)


_SIZE = Converter("size", "bytes: 4096, 4K, 64M, 1G (powers of 1024)", to_size)

_CONVERTERS: dict[Any, Converter] = {
    int: Converter("integer", "an integer; 0x, 0b and 0o work", to_int),
    float: Converter("number", "a number", to_float),
    str: Converter("text", "a text", str),
    bool: Converter("boolean", "true or false", to_bool, is_flag=True),
    bytes: Converter("bytes", "bytes: deadbeef, text:WORDS, @FILE, @- (standard input)", to_bytes),
    Path: Converter("path", "a path", Path),
}

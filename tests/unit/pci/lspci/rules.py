"""How the words of lspci are said to stand for bits and fields of our registers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

HEX8 = r"([0-9a-f]{8})"
"""Eight hexadecimal digits, as a group."""


@dataclass(frozen=True)
class Value:
    """A pattern whose groups, joined by blanks, say the content of one field or register.

    `path` is 'register' or 'register.field'. Without `show`, the words that we have for it are
    expected; else what `show` makes of the number.
    """

    pattern: str
    path: str
    show: Callable[[int], str] | None = None


@dataclass(frozen=True)
class Rule:
    """The flags of a section, by lspci's name ('register.field'), and its values."""

    flags: Mapping[str, str] = field(default_factory=dict)
    values: tuple[Value, ...] = ()


def of(register: str, flags: str, *values: Value) -> Rule:
    """A section about one register: 'TheirName=field' for flags, paths without the register."""
    pairs = (pair.split("=") for pair in flags.split())
    return Rule(
        {theirs: f"{register}.{ours}" for theirs, ours in pairs},
        tuple(Value(v.pattern, v.path and f"{register}.{v.path}", v.show) for v in values),
    )


def both(*rules: Rule) -> Rule:
    """A section about several registers."""
    flags = {name: path for rule in rules for name, path in rule.flags.items()}
    return Rule(flags, tuple(value for rule in rules for value in rule.values))


def hexadecimal(digits: int) -> Callable[[int], str]:
    return lambda number: f"{number:0{digits}x}"


def decimal(number: int) -> str:
    return str(number)


def ignore(pattern: str) -> Value:
    """What says nothing that is in a register, or nothing that is not compared elsewhere."""
    return Value(pattern, "")


Sections = Mapping[tuple[bool, int], Mapping[str, Rule]]
"""By whether a capability is extended and its id, then by lspci's label."""

"""Tables written as class bodies: each name once, nothing overlaps, nothing lies outside.

Registers (fields), register blocks (registers) and descriptors (members) are such tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

from uspace_drv.errors import LayoutError


class Entry:
    """One line of a table. The class body gives it its name, the class is its owner."""

    name = "?"
    owner = "?"

    def set_name(self, name: str, owner: str) -> None:
        """Take the names that the class body gives."""
        self.name = name
        self.owner = owner


E = TypeVar("E", bound=Entry)


class _Body(dict[str, object]):
    """The names of a class body while it runs: without it a second entry would hide the first."""

    def __init__(self, owner: str) -> None:
        super().__init__()
        self._owner = owner

    def __setitem__(self, name: str, value: object) -> None:
        if isinstance(self.get(name), Entry):
            raise LayoutError(f"{self._owner}: {name} is declared twice")
        super().__setitem__(name, value)


class Table(type):
    """The class of tables: names their entries and keeps their own attributes out of reach."""

    RESERVED: frozenset[str] = frozenset()

    @classmethod
    def __prepare__(
        cls, name: str, bases: tuple[type, ...], /, **options: object
    ) -> MutableMapping[str, object]:
        return _Body(name)

    def __new__(
        mcs, name: str, bases: tuple[type, ...], body: Mapping[str, object], /, **options: Any
    ) -> Table:
        """Name the entries; refuse one whose name the table itself needs."""
        attributes = dict(body)
        if bases:
            attributes.setdefault("__slots__", ())
        for key, entry in body.items():
            if isinstance(entry, Entry):
                for base in bases:
                    if hasattr(base, key) or key in getattr(base, "RESERVED", ()):
                        raise LayoutError(f"{name}: {key} is already a name of {base.__name__}")
                entry.set_name(key, name)
        return super().__new__(mcs, name, bases, attributes, **options)


def entries(table: Table, kind: type[E]) -> dict[str, E]:
    """Return the entries of this class body, in its order; each must be a `kind`."""
    found: dict[str, E] = {}
    for name, entry in vars(table).items():
        if isinstance(entry, kind):
            found[name] = entry
        elif isinstance(entry, Entry):
            seen, place = type(entry).__name__, table.__bases__[0].__name__
            raise LayoutError(
                f"{table.__name__}: {name} is a {seen}, which has no place in a {place}"
            )
    return found


class Span(NamedTuple):
    """From `start` up to but not including `stop`, and how an error names it."""

    start: int
    stop: int
    label: str


def check_spans(owner: str, spans: Iterable[Span], size: int, unit: str) -> None:
    """Raise `LayoutError` unless all lie within `size` (counted in `unit`) and none overlap."""
    ordered = sorted(spans)
    for span in ordered:
        if span.start < 0 or span.stop > size:
            raise LayoutError(f"{owner}: {span.label} is outside of the {size} {unit}")
    for before, after in pairwise(ordered):
        if before.stop > after.start:
            raise LayoutError(f"{owner}: {after.label} overlaps {before.label}")

"""What a verb returned, as people read it: a dataclass as facts, a list of them as a table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeGuard, get_type_hints

import click

from uspace_drv.cli.output import is_terminal, show_facts, show_table
from uspace_drv.cli.units import unit_of, with_unit
from uspace_drv.cli.values import in_words

NOTHING = "-"


def show_result(result: Any) -> None:
    """Print it; bytes go into a file or a pipe as they are, and None is a word on the terminal."""
    if isinstance(result, bytes | bytearray) and not is_terminal():
        click.echo(bytes(result), nl=False)
    elif _is_record(result):
        show_facts(_cells(result))
    elif _is_table(result):
        rows = [_cells(each) for each in result]
        show_table(list(rows[0]), [list(map(_in_one_line, row.values())) for row in rows])
    elif result is None or _is_empty(result):
        _tell("done" if result is None else "none")
    else:
        click.echo(in_words(result))


def _is_empty(value: object) -> bool:
    return isinstance(value, list | tuple | str) and not value


def _is_record(value: object) -> bool:
    return is_dataclass(value) and not isinstance(value, type)


def _is_table(value: object) -> TypeGuard[Sequence[Any]]:
    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and _is_record(value[0])
        and len(set(map(type, value))) == 1
    )


def _cells(record: Any) -> dict[str, str | list[str]]:
    """Return the fields of a dataclass in words, in their order, by headings."""
    units = _units(type(record))
    return {
        each.name.replace("_", " "): _cell(getattr(record, each.name), units.get(each.name, ""))
        for each in fields(record)
    }


def _units(kind: type[Any]) -> dict[str, str]:
    try:
        hints = get_type_hints(kind, include_extras=True)
    except NameError:  # a type that is imported for type checkers only: numbers go without units
        return {}
    return {name: unit_of(hint) for name, hint in hints.items()}


def _cell(value: Any, unit: str) -> str | list[str]:
    if value is None or _is_empty(value):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return [_in_one_line(_cell(each, unit)) for each in value]
    if isinstance(value, int | float) and unit:
        return with_unit(value, unit)
    return in_words(value).splitlines()


def _in_one_line(cell: str | list[str]) -> str:
    return cell if isinstance(cell, str) else ", ".join(cell)


def _tell(words: str) -> None:
    """Say it where a person looks; a program that reads the output gets nothing."""
    if sys.stderr is not None and sys.stderr.isatty():
        click.echo(words, err=True)

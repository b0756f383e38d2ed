"""Tables whose rows stand in groups, each below its name, with notes under it.

Where a terminal is too narrow for a table, its rows take two lines; words go on below, and no
figure is broken.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from textwrap import wrap

import click

from uspace_drv.cli.output import GAP, UNWRAPPED, is_terminal

UNBROKEN = "\u00a0"
"""Stands between a number and its unit while lines are broken."""
NARROW = 100
"""Columns of a terminal below which facts with long texts stand below one another."""

Row = dict[str, str]
"""Texts by the title of their column."""


@dataclass(frozen=True)
class Group:
    """Rows that belong together; every row has the same columns."""

    title: str
    rows: list[Row]
    notes: list[str] = field(default_factory=list)


def show_groups(groups: Sequence[Group], by_weight: Sequence[str], needed: int = 1) -> None:
    """Print them with one width for each column.

    Columns that are empty are left out, and those that the terminal has no room for: the lightest
    first. They stand in the order of the rows. If one of the `needed` heaviest has no room, the
    heaviest, which names a row, gets a line of its own above the others.
    """
    rows = [row for group in groups for row in group.rows]
    first, *others = by_weight
    titles = _fitting(rows, by_weight, room())
    stacked = any(row[title] for row in rows for title in by_weight[:needed] if title not in titles)
    if stacked:
        titles = _fitting(rows, others, room() - GAP)
    widths = {title: _width(rows, title) for title in titles}

    def show(row: Row) -> None:
        if stacked:
            click.echo(f"{'':{GAP}}{row[first]}")
        click.echo(f"{'':{GAP if stacked else 0}}{_line(row, widths)}")

    if rows:
        show({title: title for title in rows[0]})
    for group in groups:
        say(group.title)
        for row in group.rows:
            show(row)
        for note in group.notes:
            say(f"! {note}", GAP)


def say(words: str, indent: int = 0) -> None:
    """Print a sentence; on a terminal it goes on in the next line, indented, between words."""
    if not is_terminal():
        click.echo(f"{'':{indent}}{words}")
        return
    lines = wrap(
        words.replace(" %", f"{UNBROKEN}%"), max(room(), indent + GAP + 1),
        initial_indent=" " * indent, subsequent_indent=" " * (indent + GAP),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    click.echo("\n".join(lines).replace(UNBROKEN, " "))


def room() -> int:
    """Return how many columns there are to print in."""
    return shutil.get_terminal_size().columns if is_terminal() else UNWRAPPED


def _fitting(rows: list[Row], by_weight: Sequence[str], room_left: int) -> list[str]:
    """Return the columns that have room, in the order of the rows."""
    kept = set()
    for title in by_weight:
        needed = GAP + _width(rows, title)
        if needed <= room_left and any(row[title] for row in rows):
            kept.add(title)
            room_left -= needed
    return [title for title in (rows[0] if rows else ()) if title in kept]


def _width(rows: list[Row], title: str) -> int:
    return max([len(title), *(len(row[title]) for row in rows)])


def _line(row: Row, widths: dict[str, int]) -> str:
    gap = " " * GAP
    return (gap + gap.join(row[title].ljust(width) for title, width in widths.items())).rstrip()

"""Tables whose rows stand in groups, each below its name, with notes under it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field

import click

from uspace_drv.cli.output import GAP, UNWRAPPED, is_terminal

Row = dict[str, str]
"""Texts by the title of their column."""


@dataclass(frozen=True)
class Group:
    """Rows that belong together; every row has the same columns."""

    title: str
    rows: list[Row]
    notes: list[str] = field(default_factory=list)


def show_groups(groups: Sequence[Group], by_weight: Sequence[str]) -> None:
    """Print them with one width for each column.

    Columns that are empty are left out, and those that the terminal has no room for: the lightest
    first. They stand in the order of the rows.
    """
    rows = [row for group in groups for row in group.rows]
    titles = _fitting(rows, by_weight)
    widths = {title: _width(rows, title) for title in titles}
    if rows:
        click.echo(_line({title: title for title in titles}, widths))
    for group in groups:
        click.echo(group.title)
        for row in group.rows:
            click.echo(_line(row, widths))
        for note in group.notes:
            click.echo(f"{'':{GAP}}! {note}")


def _fitting(rows: list[Row], by_weight: Sequence[str]) -> list[str]:
    room = shutil.get_terminal_size().columns if is_terminal() else UNWRAPPED
    kept = set()
    for title in by_weight:
        needed = GAP + _width(rows, title)
        if needed <= room and any(row[title] for row in rows):
            kept.add(title)
            room -= needed
    return [title for title in (rows[0] if rows else ()) if title in kept]


def _width(rows: list[Row], title: str) -> int:
    return max([len(title), *(len(row[title]) for row in rows)])


def _line(row: Row, widths: dict[str, int]) -> str:
    gap = " " * GAP
    return (gap + gap.join(row[title].ljust(width) for title, width in widths.items())).rstrip()

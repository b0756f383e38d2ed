"""What commands print: tables and lists for people, JSON for programs.

In JSON, ids, offsets and register values are hexadecimal strings; sizes and counts are numbers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

Facts = dict[str, Any]
"""What a command found out, as it goes into JSON."""

UNWRAPPED = 10_000
"""Columns of what is no terminal: a program that reads lines wants them whole."""

WHOLE = {"address", "id", "offset", "access", "value"}
"""Columns that a narrow terminal does not break: addresses and numbers are copied from there."""

NARROWEST = 8
"""Columns of text that are always left to the others."""

GAP = 2

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, see above.")


def console() -> Console:
    """Return where to print. Names from elsewhere hold brackets: nothing is taken for markup."""
    width = None if is_terminal() else UNWRAPPED
    return Console(width=width, markup=False, emoji=False, highlight=False)


def is_terminal() -> bool:
    """Whether somebody sees what is printed; it may also have nowhere to go."""
    return sys.stdout is not None and sys.stdout.isatty()


def show_json(value: object) -> None:
    """Print it as JSON."""
    click.echo(json.dumps(value, indent=2))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print rows under their headings."""
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    lines = list(rows)
    needed = 0
    for number, column in enumerate(columns):
        widths = [len(column), *(len(line[number]) for line in lines if number < len(line))]
        least = max(widths) if column in WHOLE else min(max(widths), NARROWEST)
        table.add_column(column, overflow="fold", no_wrap=column in WHOLE, min_width=least)
        needed += least + GAP
    for line in lines:
        table.add_row(*line)
    _print(table, needed)


def show_facts(facts: Mapping[str, str | Iterable[str]]) -> None:
    """Print names with their values, one line each or several; what is empty is left out."""
    shown = {
        name: [line for line in ([value] if isinstance(value, str) else value) if line]
        for name, value in facts.items()
    }
    names = max((len(name) for name, lines in shown.items() if lines), default=0)
    grid = Table.grid(padding=(0, GAP, 0, 0))
    grid.add_column(style="bold", no_wrap=True, min_width=names)
    grid.add_column(overflow="fold")
    for name, lines in shown.items():
        for number, line in enumerate(lines):
            grid.add_row("" if number else name, line)
    _print(grid, names + GAP + NARROWEST)


def _print(table: Table, needed: int) -> None:
    """Print it without the blanks that fill its last column; the least it needs it gets."""
    out = console()
    out.width = max(out.width, needed)  # a terminal wraps what is too long, rich would cut it
    with out.capture() as captured:
        out.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def tick(good: bool) -> str:
    """Return a mark that the terminal can show."""
    if "utf" in (getattr(sys.stdout, "encoding", None) or "").lower():
        return "✓" if good else "✗"
    return "ok" if good else "FAILED"

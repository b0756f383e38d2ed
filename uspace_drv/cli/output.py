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

Facts = dict[str, Any]
"""What a command found out, as it goes into JSON."""

UNWRAPPED = 10_000
"""Columns of what is no terminal: a program that reads lines wants them whole."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, see above.")


def console() -> Console:
    """Return where to print. Names from elsewhere hold brackets: nothing is taken for markup."""
    width = None if sys.stdout.isatty() else UNWRAPPED
    return Console(width=width, markup=False, emoji=False, highlight=False)


def show_json(value: object) -> None:
    """Print it as JSON."""
    click.echo(json.dumps(value, indent=2))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under their headings."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        # An address or a number is copied from the screen: it stays whole.
        table.add_column(column, no_wrap=column in {"address", "id", "offset", "value"})
    for row in rows:
        table.add_row(*row)
    _print(table)


def show_facts(facts: Mapping[str, str | Iterable[str]]) -> None:
    """Print names with their values, one line each or several; what is empty is left out."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    for name, value in facts.items():
        lines = [value] if isinstance(value, str) else list(value)
        for number, line in enumerate(filter(None, lines)):
            grid.add_row("" if number else name, line)
    _print(grid)


def _print(table: Table) -> None:
    """Print it without the blanks that fill its last column."""
    out = console()
    with out.capture() as captured:
        out.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def tick(good: bool) -> str:
    """Return a mark that the terminal can show."""
    if "utf" in (sys.stdout.encoding or "").lower():
        return "✓" if good else "✗"
    return "ok" if good else "FAILED"

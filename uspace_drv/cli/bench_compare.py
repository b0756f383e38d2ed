"""`uspace bench compare`: two results files side by side, as a table or for programs."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import click
import msgspec

from uspace_drv.bench.comparing import Compared, WayBeside, compare_results
from uspace_drv.bench.report import units
from uspace_drv.bench.results import read_results
from uspace_drv.cli.bench_table import NARROW, Group, Row, room, say, show_groups
from uspace_drv.cli.output import GAP, show_json, show_table

BY_WEIGHT = ("way", "A", "B", "ratio change", "B by A", "ratio A", "ratio B")
NEEDED = 4
"""Of these, what nobody should miss: the way, both figures and how the ratio changed."""


def show_comparison(before: Path, after: Path, *, as_json: bool) -> None:
    """Print what both have beside one another, the facts that differ, and what only one has."""
    a, b = read_results(before), read_results(after)
    compared = compare_results(a, b, names=(str(before), str(after)))
    if as_json:
        show_json(msgspec.to_builtins(compared))
        return
    say(f"A: {before}, {a.started}")
    say(f"B: {after}, {b.started}")
    if not compared.ways:
        click.echo("\nnothing is in both")
    _show_ways(compared.ways)
    _show_facts(compared)
    for name, only in (("A", compared.only_a), ("B", compared.only_b)):
        for words in only:
            say(f"only in {name}: {words}")


def _show_ways(ways: Iterable[WayBeside]) -> None:
    """Print a table for each suite."""
    for suite, members in groupby(ways, lambda each: each.suite):
        click.echo()
        say(f"{suite}: B by A, and B by A of the ratios to the baseline (95 %)")
        groups = [
            _group(name, list(each))
            for name, each in groupby(members, lambda each: each.comparison)
        ]
        show_groups(groups, BY_WEIGHT, NEEDED)


def _group(name: str, ways: list[WayBeside]) -> Group:
    notes = dict.fromkeys(note for way in ways for note in way.notes)
    return Group(name, [_row(way) for way in ways], list(notes))


def _row(way: WayBeside) -> Row:
    return {
        "way": way.way,
        "A": units.figure(way.figure, way.a.middle),
        "B": units.figure(way.figure, way.b.middle),
        "B by A": units.times(way.change),
        "ratio A": "1 (baseline)" if way.is_baseline else units.times(way.ratio_a),
        "ratio B": "1 (baseline)" if way.is_baseline else units.times(way.ratio_b),
        "ratio change": units.times(way.ratio_change),
    }


def _show_facts(compared: Compared) -> None:
    if not compared.facts:
        return
    click.echo("\nHow the machines differ:")
    missing = "(not told)"
    rows = [(each.name, each.a or missing, each.b or missing) for each in compared.facts]
    if room() >= NARROW:
        show_table(("fact", "A", "B"), rows)
        return
    for name, a, b in rows:
        click.echo(name)
        say(f"A: {a}", GAP)
        say(f"B: {b}", GAP)

"""What `uspace bench` prints: the tables of a run, the suites that there are, a report anew."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from uspace_drv.bench.installed import InstalledSuite, installed_suites
from uspace_drv.bench.report import results_page, write_report
from uspace_drv.bench.report.rows import COLUMNS, comparison_rows
from uspace_drv.bench.report.sentences import QUOTIENT, damages, doubts
from uspace_drv.bench.results import ComparisonResult, Results, SuiteResult, read_results
from uspace_drv.cli.bench_file import SUFFIXES, require_free, with_suffix, without_suffix
from uspace_drv.cli.bench_table import NARROW, Group, room, say, show_groups
from uspace_drv.cli.output import GAP, show_json, show_table

BY_WEIGHT = (
    "way", "figure", "ratio (95 %)", "p50", "p99", "CPU ratio (95 %)", "CPU/op", "p99.9",
)  # fmt: skip
"""Columns; a terminal shows as many of them as have room, the file has them all."""
NEEDED = 3
"""Of these, what nobody should miss: the way, its figure and the ratio."""


def show_results(results: Results) -> None:
    """Print a table for each suite, and with it what its figures suffer from and what it lacks."""
    for suite in results.suites:
        click.echo()
        say(f"{suite.name}: {suite.summary}{_where(suite, results)}")
        show_groups([_group(suite.name, each) for each in suite.comparisons], BY_WEIGHT, NEEDED)
        for each in suite.skipped:
            say(f"skipped: {each.what}: {each.why}", GAP)
    if any(each.ratios for suite in results.suites for each in suite.comparisons):
        click.echo()
        say(QUOTIENT)
    click.echo()


def show_files(paths: Iterable[Path], *, err: bool = False) -> None:
    """Print what was written, a name a line."""
    click.echo("written:", err=err)
    for path in paths:
        click.echo(f"  {path}", err=err)


def show_suites(*, as_json: bool) -> None:
    """Print the suites that are installed, broken ones too."""
    found = installed_suites()
    if as_json:
        show_json([_as_data(each) for each in found])
        return
    rows = [(each.name, _summary(each), each.origin) for each in found]
    if room() < NARROW:
        for name, summary, origin in rows:
            say(f"{name}: {summary}")
            say(f"from {origin}", GAP)
        return
    show_table(("suite", "what it measures", "from"), rows)


def print_markdown(path: Path) -> None:
    """Print a results file as Markdown."""
    click.echo(results_page(read_results(path)), nl=False)


def rewrite_report(path: Path, output: Path | None) -> None:
    """Write the report of a results file, beside it or under another name that must be free."""
    results = read_results(path)
    for words in damages(results):
        click.echo(f"{path}: {words}", err=True)
    base = without_suffix(path if output is None else output)
    reports = SUFFIXES[1:]
    if output is not None:
        require_free(base, reports)
    for suffix in reports:
        old = with_suffix(base, suffix)
        if old.exists():
            click.echo(f"replaced: {old}", err=True)
    show_files(write_report(results, base))


def _where(suite: SuiteResult, results: Results) -> str:
    """Return the device and, if there is more than one machine, the one where it was measured."""
    places = [suite.device_in_words]
    if len(results.machines) > 1 and suite.machine < len(results.machines):
        places.append(results.machines[suite.machine].facts.get("role", ""))
    named = ", ".join(filter(None, places))
    return f" ({named})" if named else ""


def _group(suite: str, comparison: ComparisonResult) -> Group:
    rows = [
        {title: show(row) for title, show in COLUMNS.items()}
        for row in comparison_rows(suite, comparison)
    ]
    return Group(comparison.name, rows, doubts(comparison))


def _summary(found: InstalledSuite) -> str:
    return found.suite.summary if found.suite else f"broken: {found.reason}"


def _as_data(found: InstalledSuite) -> dict[str, object]:
    suite = found.suite
    return {
        "name": found.name,
        "summary": suite.summary if suite else None,
        "origin": found.origin,
        "reason": found.reason,
        "devices": list(suite.guest.devices) if suite else [],
    }

"""Results as Markdown, and the pages of docs/ that are made of kept results files.

GitHub Flavored Markdown, section 4.10 (tables) and 6.1 of CommonMark (backslash escapes).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from uspace_drv.bench.report import sentences
from uspace_drv.bench.report.rows import columns, comparison_rows
from uspace_drv.bench.results import Machine, Results, SuiteResult, read_results
from uspace_drv.errors import LayoutError

HEAD = """# Results

Kept results files of `uspace bench`, and what they say; [benchmarks.md](benchmarks.md) has the
method and its limits. This page is made by `scripts/results-page` from the files in `results/`,
and a test compares it with them. `uspace bench report FILE` draws plots of such a file.
"""
NOTHING = "\nNo results file is kept yet.\n"

BLOCK = re.compile(r"(<!-- from (\S+) (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
"""A part of a page that cites a suite of a kept file."""

SPECIAL = re.compile(r"[\\`*\[\]<>|$~#&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def results_page(results: Results) -> str:
    """Return all of a results file but its latencies as Markdown: commands, machines, tables."""
    titles = ", ".join(suite.name for suite in results.suites) or "nothing"
    parts = [
        f"## {escape(titles)} ({escape(results.started)})",
        *(f"**{escape(each)}**" for each in sentences.missing(results)),
        "Measure the same again:",
        _code(sentences.command(results)),
        *(_machine(number, machine) for number, machine in enumerate(results.machines)),
        *(_suite(suite, results) for suite in results.suites),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def kept_page(folder: Path) -> str:
    """Return the page about all results files of a folder, by name."""
    files = sorted(folder.glob("*.json"))
    pages = [
        f"\nFrom [{escape(path.name)}]({folder.name}/{path.name}):\n\n"
        + results_page(read_results(path))
        for path in files
    ]
    return HEAD + ("".join(pages) or NOTHING)


def renewed(text: str, folder: Path) -> str:
    """Return a page whose blocks say again what the kept files say.

    A block stands between `<!-- from FILE SUITE -->` and `<!-- end -->`. `LayoutError` if the file
    has no such suite, `HostError` if there is no such file.
    """

    def block(found: re.Match[str]) -> str:
        path, suite = folder / found[2], found[3]
        suites = [each for each in read_results(path).suites if each.name == suite]
        if not suites:
            raise LayoutError(f"{path}: has no suite {suite!r}, and a page cites it")
        return f"{found[1]}{''.join(suite_table(each) for each in suites)}{found[4]}"

    return BLOCK.sub(block, text)


def suite_table(suite: SuiteResult) -> str:
    """Return all comparisons of a suite as one table, and under it the doubts about them."""
    rows = [row for each in suite.comparisons for row in comparison_rows(suite.name, each)]
    texts = {"comparison": [row.comparison for row in rows], **columns(rows)}
    doubts = [
        f"- {escape(each.name)}: {escape('; '.join(sentences.doubts(each)))}"
        for each in suite.comparisons
        if sentences.doubts(each)
    ]
    table = [
        _line(texts),
        _line("---" for _ in texts),
        *map(_line, zip(*texts.values(), strict=True)),
    ]
    parts = (table if rows else [], doubts)
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def escape(text: str) -> str:
    """Return text on one line that Markdown shows as it is."""
    plain = " ".join(text.split())
    return SPECIAL.sub(lambda found: f"\\{found[0]}", plain)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(escape, cells))} |"


def _code(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _machine(number: int, machine: Machine) -> str:
    facts = [f"- {escape(name)}: {escape(fact)}" for name, fact in machine.facts.items()]
    return "\n".join([f"Machine {number + 1}:", "", *facts])


def _suite(suite: SuiteResult, results: Results) -> str:
    several = len(results.machines) > 1
    where = [f"on machine {suite.machine + 1}"] if several else []
    device = [f"device {escape(suite.device_in_words)}"] if suite.device else []
    skipped = [f"- not measured: {escape(f'{each.what}: {each.why}')}" for each in suite.skipped]
    parts = [
        f"### {escape(suite.name)}",
        f"{escape(suite.summary)}{''.join(f', {each}' for each in (*device, *where))}",
        escape(sentences.suite_sentence(suite)),
        suite_table(suite).strip(),
        sentences.QUOTIENT if suite.comparisons else "",
        "\n".join(skipped),
    ]
    return "\n\n".join(part for part in parts if part)

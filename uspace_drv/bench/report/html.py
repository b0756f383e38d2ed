"""A results file as one HTML page that needs nothing else: no script, no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from uspace_drv.bench.report import sentences
from uspace_drv.bench.report.panels import panels
from uspace_drv.bench.report.rows import columns, comparison_rows
from uspace_drv.bench.report.svg import inline_svg
from uspace_drv.bench.report.theme import DARK, LIGHT, Theme, variables
from uspace_drv.bench.results import ComparisonResult, Results, SuiteResult


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A drawn panel, and the doubts about what it shows."""

    title: str
    picture: Markup
    doubts: list[str]


@dataclass(frozen=True, kw_only=True)
class Table:
    """All ways of one comparison, the texts by column, and the doubts about them."""

    title: str
    titles: list[str]
    lines: list[tuple[str, ...]]
    doubts: list[str]


@dataclass(frozen=True, kw_only=True)
class Section:
    """One suite on the page."""

    id: str
    result: SuiteResult
    sentence: str
    plots: list[Plot]
    tables: list[Table]


def report_html(results: Results) -> str:
    """Return the page; the same for the same results. What the file says is escaped."""
    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        results=results,
        command=sentences.command(results),
        missing=sentences.missing(results),
        method=sentences.METHOD,
        quotient=sentences.QUOTIENT,
        light=_declarations(LIGHT),
        dark=_declarations(DARK),
        sections=[_section(number, suite) for number, suite in enumerate(results.suites)],
    )


def _section(number: int, suite: SuiteResult) -> Section:
    plots = [
        Plot(
            title=panel.title,
            # It is made by matplotlib, which escapes names, and has to stay markup.
            picture=Markup(inline_svg(panel, f"s{number}p{place}-")),
            doubts=_joined_doubts(panel.comparisons),
        )
        for place, panel in enumerate(panels(suite))
    ]
    return Section(
        id=f"suite-{number}",
        result=suite,
        sentence=sentences.suite_sentence(suite),
        plots=plots,
        tables=[_table(suite.name, each) for each in suite.comparisons],
    )


def _joined_doubts(comparisons: Sequence[ComparisonResult]) -> list[str]:
    """Return each doubt once, after the comparisons that it is about, where a plot has several."""
    found: dict[str, list[str]] = {}
    for each in comparisons:
        for doubt in sentences.doubts(each):
            found.setdefault(doubt, []).append(each.name)
    if len(comparisons) == 1:
        return list(found)
    return [
        f"{'all' if len(names) == len(comparisons) else '; '.join(names)}: {doubt}"
        for doubt, names in found.items()
    ]


def _table(suite: str, comparison: ComparisonResult) -> Table:
    texts = columns(comparison_rows(suite, comparison))
    texts.pop("doubts", None)
    return Table(
        title=comparison.name,
        titles=list(texts),
        lines=list(zip(*texts.values(), strict=True)),
        doubts=sentences.doubts(comparison),
    )


def _declarations(theme: Theme) -> Markup:
    colours = {"--paper": theme.paper or "none", **variables(theme)}
    return Markup("; ").join(f"{name}: {colour}" for name, colour in colours.items())

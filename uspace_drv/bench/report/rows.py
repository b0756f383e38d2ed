"""The figures of a results file as rows of text and numbers; every table is made of them.

Terminal, HTML and Markdown show the same rows, so that no two of them can disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import median

from uspace_drv.bench.histogram import Histogram
from uspace_drv.bench.report import units
from uspace_drv.bench.results import ComparisonResult, Interval, Ratio, Results, Round, WayResult
from uspace_drv.bench.statistics import figure_of
from uspace_drv.bench.suite import Figure
from uspace_drv.errors import LayoutError

BASELINE = "1 (baseline)"
BETTER, WORSE, EVEN, UNDECIDED = "better", "worse", "even", "undecided"
EVEN_WITHIN = 0.1
"""Half width by middle up to which an interval that holds 1 says that nothing differs.

The true ratio is then at most a fifth from 1; a wider one may hide a difference that matters.
"""
NOISY, NOT_NARROW, INCOMPLETE = "noisy", "not narrow", "incomplete"
DAMAGED = "damaged"
PERCENTILES = {"p50": 50.0, "p99": 99.0, "p999": 99.9, "most": 100.0}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way of one comparison: texts to show, "" where nothing was measured, and raw numbers.

    `verdict` and `busy_verdict` are "better", "worse", "even", "undecided" (the interval
    holds 1, and is too wide for "even") or "" (the baseline, or no ratio). Raw
    numbers are seconds or operations a second.
    """

    suite: str
    comparison: str
    way: str
    baseline: bool = False
    figure: str = ""
    data: str = ""
    ratio: str = ""
    verdict: str = ""
    busy: str = ""
    own: str = ""
    busy_ratio: str = ""
    busy_verdict: str = ""
    p50: str = ""
    p99: str = ""
    p999: str = ""
    most: str = ""
    rounds: int = 0
    marks: tuple[str, ...] = ()
    value: float | None = None
    ratio_value: Interval | None = None
    busy_value: float | None = None
    own_value: float | None = None
    busy_ratio_value: Interval | None = None
    percentiles: dict[str, float] = field(default_factory=dict)

    @property
    def ratio_words(self) -> str:
        """The ratio and what it means: 2.36 x (2.31 to 2.42) better."""
        return f"{self.ratio} {self.verdict}".rstrip()

    @property
    def busy_ratio_words(self) -> str:
        """The ratio of processor time for each operation, and what it means."""
        return f"{self.busy_ratio} {self.busy_verdict}".rstrip()


COLUMNS: dict[str, Callable[[Row], str]] = {
    "way": lambda row: row.way,
    "figure": lambda row: row.figure,
    "data": lambda row: row.data,
    "ratio (95 %)": lambda row: row.ratio_words,
    "CPU/op": lambda row: row.busy,
    "own CPU/op": lambda row: row.own,
    "CPU ratio (95 %)": lambda row: row.busy_ratio_words,
    "p50": lambda row: row.p50,
    "p99": lambda row: row.p99,
    "p99.9": lambda row: row.p999,
    "max": lambda row: row.most,
    "rounds": lambda row: str(row.rounds),
    "doubts": lambda row: ", ".join(row.marks),
}
"""Titles of columns, and what of a row stands there."""


def summary_rows(results: Results) -> list[Row]:
    """Return a row for each way of each comparison, in the order of the file."""
    return [
        row
        for suite in results.suites
        for comparison in suite.comparisons
        for row in comparison_rows(suite.name, comparison)
    ]


def comparison_rows(suite: str, comparison: ComparisonResult) -> list[Row]:
    """Return a row for each way of one comparison."""
    return [_row(suite, comparison, way) for way in comparison.ways]


def columns(rows: Iterable[Row]) -> dict[str, list[str]]:
    """Return the texts of each column, by its title; columns with nothing in them are left out."""
    made = list(rows)
    texts = {title: [show(row) for row in made] for title, show in COLUMNS.items()}
    return {title: column for title, column in texts.items() if any(column)}


def marks(comparison: ComparisonResult) -> tuple[str, ...]:
    """Return why the figures of a comparison deserve doubt, in a word or two each."""
    doubts = {
        INCOMPLETE: not comparison.complete,
        NOISY: bool(comparison.noise.notes),
        DAMAGED: bool(damage(comparison)),
        NOT_NARROW: comparison.complete and not comparison.narrow,
    }
    return tuple(word for word, holds in doubts.items() if holds)


def damage(comparison: ComparisonResult) -> list[str]:
    """Say what of a comparison cannot be, or cannot be read; a report leaves it out."""
    words = []
    if all(way.name != comparison.baseline for way in comparison.ways):
        words.append(f"none of its ways is its baseline, {comparison.baseline!r}")
    for way in comparison.ways:
        rounds, good = len(way.rounds), len(round_figures(comparison.figure, way.rounds))
        if good < rounds:
            words.append(f"{way.name}: {rounds - good} of {rounds} rounds have no figure, left out")
        if way.latencies and latencies(way) is None:
            words.append(f"{way.name}: latencies cannot be read or are none, left out")
    return words


def round_figures(kind: str, rounds: Iterable[Round]) -> list[float]:
    """Return what is compared, in seconds or operations a second, of each round that has it."""
    found = []
    for each in rounds:
        # Who reads a file shows what there is; who measures is told of a round that has nothing.
        with suppress(LayoutError, ValueError):
            found.append(figure_of(each, kind))
    return found


def busy_by_round(rounds: Iterable[Round]) -> list[float]:
    """Return the machine's processor seconds for each operation, by round where it was counted."""
    return [r.busy / r.operations for r in rounds if r.busy is not None and r.operations > 0]


def own_by_round(rounds: Iterable[Round]) -> list[float]:
    """Return the process's own processor seconds for each operation, by round."""
    return [r.own / r.operations for r in rounds if r.own is not None and r.operations > 0]


def latencies(way: WayResult) -> Histogram | None:
    """Return all latencies of a way; None if there are none, or none that can be read."""
    return None if way.latencies is None else _decoded(way.latencies)


def verdict(interval: Interval | None, *, more_is_better: bool) -> str:
    """Say what a ratio to the baseline means; if its interval holds 1, whether that is sure."""
    if interval is None:
        return ""
    if interval.low <= 1 <= interval.high:
        narrow = interval.high - interval.low <= 2 * EVEN_WITHIN * interval.middle
        return EVEN if narrow else UNDECIDED
    return BETTER if (interval.low > 1) == more_is_better else WORSE


@lru_cache(maxsize=256)
def _decoded(text: str) -> Histogram | None:
    try:
        found = Histogram.decode(text)
    except ValueError:
        return None  # `marks` says so beside the figures
    return found if found.count else None


def _row(suite: str, comparison: ComparisonResult, way: WayResult) -> Row:
    value = _middle(round_figures(comparison.figure, way.rounds))
    busy, own = _middle(busy_by_round(way.rounds)), _middle(own_by_round(way.rounds))
    percentiles = _percentiles(way)
    ratio = next((each for each in comparison.ratios if each.way == way.name), None)
    return Row(
        suite=suite, comparison=comparison.name, way=way.name,
        figure=units.figure(comparison.figure, value), value=value,
        data=units.data_rate(_bytes_a_second(comparison, value)),
        busy=units.seconds(busy), busy_value=busy, own=units.seconds(own), own_value=own,
        percentiles=percentiles, rounds=len(way.rounds), marks=marks(comparison),
        **{name: units.seconds(percentile) for name, percentile in percentiles.items()},  # type: ignore[arg-type]
        **_ratio_texts(comparison, way, None if way.name == comparison.baseline else ratio),  # type: ignore[arg-type]
    )  # fmt: skip


def _ratio_texts(
    comparison: ComparisonResult, way: WayResult, ratio: Ratio | None
) -> dict[str, object]:
    """Return what a row says of the ratios of a way."""
    if way.name == comparison.baseline:
        return {"baseline": True, "ratio": BASELINE}
    if ratio is None:
        return {}
    return {
        "ratio": units.times(ratio.figure),
        "ratio_value": ratio.figure,
        "verdict": verdict(ratio.figure, more_is_better=comparison.figure == Figure.RATE),
        "busy_ratio": units.times(ratio.busy),
        "busy_ratio_value": ratio.busy,
        "busy_verdict": verdict(ratio.busy, more_is_better=False),
    }


def _percentiles(way: WayResult) -> dict[str, float]:
    found = latencies(way)
    if found is None:
        return {}
    return {name: found.percentile(percent) / 1e9 for name, percent in PERCENTILES.items()}


def _bytes_a_second(comparison: ComparisonResult, value: float | None) -> float | None:
    """Return the data rate, if what is compared is a rate or a time, and data moves."""
    if not comparison.size or not value or comparison.figure == Figure.LATENCY:
        return None
    return comparison.size * value if comparison.figure == Figure.RATE else comparison.size / value


def _middle(values: list[float]) -> float | None:
    return median(values) if values else None

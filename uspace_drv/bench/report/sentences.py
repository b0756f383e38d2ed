"""What a results file says in words: the main ratios, doubts about figures, what is missing."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import groupby

from uspace_drv.bench.report import units
from uspace_drv.bench.report.rows import INCOMPLETE, NOT_NARROW, damage, marks, verdict
from uspace_drv.bench.results import ComparisonResult, Interval, Ratio, Results, SuiteResult
from uspace_drv.bench.suite import Figure

MOST_WAYS = 4
"""Ways that the sentence of a suite names; tables have all."""

WHAT = {
    Figure.TIME: ("takes", "the time"),
    Figure.RATE: ("has", "the rate"),
    Figure.LATENCY: ("has", "the median latency"),
}
MARK_NOTES = {
    INCOMPLETE: "interrupted before it was done",
    NOT_NARROW: "intervals not narrow yet",
}

QUOTIENT = (
    "Ratios are medians of the rounds' ratios, so they may differ from the quotient of two figures."
)
"""Stands under tables."""

METHOD = (
    "Every comparison runs its ways by turns on one machine, forth and back, round by round, after"
    " a first round that does not count.",
    "Each round gives a ratio: the figure of a way over that of the baseline in the same round."
    " The ratio shown is the median of them; its interval holds it with 95 % confidence (bootstrap"
    " over rounds).",
    '"Better" and "worse" are said only where the interval leaves 1 out; else it is "even",'
    ' or "undecided" where the interval is wider than a tenth of its middle to each side.'
    " Above 1 is better for rates, below 1 for times and processor time.",
    "Figures are medians over rounds. p50 to max are of all latencies of all rounds together.",
    "CPU is the busy time of all processors of the machine for each operation, interrupts and"
    " whatever else ran included; own CPU is that of the measuring process and its children.",
    "An emulated device tells what the software on the way costs, not what hardware would do, and"
    " a guest without KVM stretches kernel and user space alike but not equally: a ratio from there"
    " holds for that machine. Compare ratios between machines, not figures.",
)
"""How all of it was measured, and the limits of that."""


def command(results: Results) -> str:
    """Return the command that measures the same again, as a shell takes it."""
    return shlex.join(results.command)


def missing(results: Results) -> list[str]:
    """Say what an interrupted run did not finish; empty for a whole one."""
    parts = [
        f"{suite.name}: {comparison.name}: {MARK_NOTES[INCOMPLETE]}"
        for suite in results.suites
        for comparison in suite.comparisons
        if not comparison.complete
    ]
    if results.complete and not parts:
        return []
    return ["Partial results: the run was interrupted or is not over.", *parts]


def doubts(comparison: ComparisonResult) -> list[str]:
    """Say why the figures of a comparison deserve doubt; the notes on noise first."""
    found = marks(comparison)
    return [
        *comparison.noise.notes,
        *([MARK_NOTES[INCOMPLETE]] if INCOMPLETE in found else []),
        *(f"damaged: {each}" for each in damage(comparison)),
        *([MARK_NOTES[NOT_NARROW]] if NOT_NARROW in found else []),
    ]


def damages(results: Results) -> list[str]:
    """Say what of a file is damaged, and where in it."""
    return [
        f"{suite.name}, {comparison.name}: damaged: {each}"
        for suite in results.suites
        for comparison in suite.comparisons
        for each in damage(comparison)
    ]


def suite_sentence(suite: SuiteResult) -> str:
    """Say in a sentence how the ways of a suite stand to their baselines, over all comparisons."""
    ratios = list(_ratios(suite))
    if not ratios:
        return "No ratio was measured."
    kinds = dict.fromkeys((comparison.baseline, comparison.figure) for comparison, _ in ratios)
    return " ".join(
        _baseline_sentence(
            *kind, [each for each in ratios if (each[0].baseline, each[0].figure) == kind]
        )
        for kind in kinds
    )


def _ratios(suite: SuiteResult) -> Iterator[tuple[ComparisonResult, Ratio]]:
    for comparison in suite.comparisons:
        for ratio in comparison.ratios:
            if ratio.way != comparison.baseline:
                yield comparison, ratio


def _baseline_sentence(
    baseline: str, figure: str, ratios: list[tuple[ComparisonResult, Ratio]]
) -> str:
    ways = list(dict.fromkeys(ratio.way for _, ratio in ratios))
    ordered = sorted((ratio for _, ratio in ratios), key=lambda ratio: ways.index(ratio.way))
    parts = [
        _way_words(way, figure, list(group))
        for way, group in groupby(ordered, lambda each: each.way)
    ]
    if len(parts) > MOST_WAYS:
        parts[MOST_WAYS:] = [f"{len(parts) - MOST_WAYS} more ways are in the tables"]
    return f"Against {baseline}: {'; '.join(parts)}."


def _way_words(way: str, figure: str, ratios: list[Ratio]) -> str:
    more = figure == Figure.RATE
    verb, what = next((WHAT[kind] for kind in Figure if kind == figure), ("has", "the figure"))
    verdicts = [verdict(ratio.figure, more_is_better=more) for ratio in ratios]
    words = f"{way} {verb} {_span([ratio.figure for ratio in ratios])} {what} ({_tally(verdicts)})"
    busy = [ratio.busy for ratio in ratios if ratio.busy is not None]
    return f"{words}, for {_span(busy)} the CPU" if busy else words


def _span(intervals: list[Interval]) -> str:
    """Return a ratio with its interval, or the lowest and the highest middle of several."""
    if len(intervals) == 1:
        return units.times(intervals[0])
    middles = [each.middle for each in intervals]
    low, high = units.digits(min(middles)), units.digits(max(middles))
    return f"{low} x" if low == high else f"{low} x to {high} x"


def _tally(verdicts: list[str]) -> str:
    """Return "better", or how often of several: better in 3 of 4, even in 1."""
    if len(verdicts) == 1:
        return verdicts[0]
    counts = {each: verdicts.count(each) for each in dict.fromkeys(verdicts)}
    (first, count), *others = counts.items()
    rest = "".join(f", {word} in {number}" for word, number in others)
    return f"{first} in {count} of {len(verdicts)}{rest}"

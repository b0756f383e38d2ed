"""Chooses the plots of a suite from what its comparisons have: axes, ratios, latencies, CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite

from matplotlib.figure import FigureBase

from uspace_drv.bench.report.plots import (
    Bar,
    Line,
    clean,
    draw_bars,
    draw_latencies,
    draw_lines,
    draw_ratios,
)
from uspace_drv.bench.report.rows import busy_by_round, latencies, round_figures
from uspace_drv.bench.report.theme import Theme
from uspace_drv.bench.results import ComparisonResult, Interval, Ratio, SuiteResult
from uspace_drv.bench.statistics import interval
from uspace_drv.bench.suite import Figure

WIDTH = 7.4
"""Inches; a panel of the page and a column of the sheet."""
ROWS = 32
"""Lines of a plot of ratios or bars; more go to a plot of their own."""

NAMES = {Figure.TIME: "time", Figure.RATE: "rate", Figure.LATENCY: "median latency"}


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One plot: what it is called, what it was drawn from, and how to draw it."""

    title: str
    comparisons: tuple[ComparisonResult, ...]
    height: float
    draw: Callable[[FigureBase, Theme], None]


def panels(suite: SuiteResult) -> list[Panel]:
    """Return the plots of a suite, those that say most first."""
    numbers = way_numbers(suite)
    alone = list(suite.comparisons)
    lines = []
    for axis, group in _along_axes(suite.comparisons):
        lines.append(_line_panel(axis, group, numbers))
        alone = [each for each in alone if all(each is not other for other in group)]
    return _numbered(
        [
            *(panel for panel in lines if panel is not None),
            *_ratio_panels(alone, numbers),
            *_busy_panels(suite.comparisons, numbers),
            *_latency_panels(suite.comparisons, numbers),
        ]
    )


def _numbered(found: Sequence[Panel]) -> list[Panel]:
    """Number those that share a title, so that a reader knows that there are more."""
    titles = [panel.title for panel in found]
    return [
        panel
        if (count := titles.count(panel.title)) == 1
        else replace(
            panel, title=f"{panel.title} ({titles[: place + 1].count(panel.title)} of {count})"
        )
        for place, panel in enumerate(found)
    ]


def way_numbers(suite: SuiteResult) -> dict[str, int]:
    """Number the ways of a suite, so that one looks the same in all plots."""
    names = [way.name for comparison in suite.comparisons for way in comparison.ways]
    ratios = [ratio.way for comparison in suite.comparisons for ratio in comparison.ratios]
    return {name: number for number, name in enumerate(dict.fromkeys([*names, *ratios]))}


def _along_axes(
    comparisons: Sequence[ComparisonResult],
) -> Iterator[tuple[str, list[ComparisonResult]]]:
    """Yield an axis and the comparisons of one chart that differ in it and in no other.

    Two at the same place are no line: what they differ in is in no axis.
    """
    charts: dict[tuple[str, str], list[ComparisonResult]] = {}
    for each in comparisons:
        charts.setdefault((each.chart, each.figure), []).append(each)
    for members in charts.values():
        axis = _longest_axis(members)
        groups: dict[object, list[ComparisonResult]] = {}
        for each in members:
            rest = frozenset((name, at) for name, at in each.axes.items() if name != axis)
            groups.setdefault(rest, []).append(each)
        for group in groups.values():
            if axis is not None and len({each.axes[axis] for each in group}) == len(group) > 1:
                yield axis, sorted(group, key=lambda each: each.axes[axis])


def _longest_axis(members: Sequence[ComparisonResult]) -> str | None:
    """Return the axis with numbers in all comparisons that has most different ones."""
    names = [
        name
        for name in members[0].axes
        if all(isinstance(each.axes.get(name), int) for each in members)
    ]
    return max(names, key=lambda name: len({each.axes[name] for each in members}), default=None)


def _line_panel(axis: str, group: list[ComparisonResult], numbers: dict[str, int]) -> Panel | None:
    lines = []
    for way in dict.fromkeys(way.name for each in group for way in each.ways):
        points = [
            (float(each.axes[axis]), found)
            for each in group
            if (found := _figure_interval(each, way)) is not None
        ]
        if points:
            places, figures = zip(*points, strict=True)
            lines.append(Line(way=way, number=numbers[way], places=[*places], figures=[*figures]))
    if not lines:
        return None
    first = group[0]
    rest = ", ".join(f"{name} {at}" for name, at in first.axes.items() if name != axis)
    title = f"{_named(first).capitalize()} by {axis}: {first.chart or first.operation}"
    return Panel(
        title=f"{title}, {rest}" if rest else title,
        comparisons=tuple(group),
        height=2.9 + 0.16 * len(lines),
        draw=partial(draw_lines, lines=lines, axis=axis, kind=first.figure),
    )


def _figure_interval(comparison: ComparisonResult, way: str) -> Interval | None:
    rounds = [each for found in comparison.ways if found.name == way for each in found.rounds]
    figures = round_figures(comparison.figure, rounds)
    return interval(figures) if figures else None


def _ratio_panels(
    comparisons: Sequence[ComparisonResult], numbers: dict[str, int]
) -> Iterator[Panel]:
    """Yield plots of ratios, one for each kind of figure."""
    for kind in dict.fromkeys(each.figure for each in comparisons):
        members = [each for each in comparisons if each.figure == kind]
        blocks = [(each, _ratio_bars(each, numbers)) for each in members]
        for group, bars in _sheets([block for block in blocks if block[1]]):
            side = "above" if kind == Figure.RATE else "below"
            named = _named(group[0])
            baselines = dict.fromkeys(each.baseline for each in group)
            base = clean(next(iter(baselines)), 30) if len(baselines) == 1 else "the baseline"
            label = f"{named} by that of {base}; {side} 1 is better"
            yield Panel(
                title=f"Ratios: {named}", comparisons=group, height=_height(bars),
                draw=partial(draw_ratios, bars=bars, label=label),
            )  # fmt: skip


def _ratio_bars(comparison: ComparisonResult, numbers: dict[str, int]) -> list[Bar]:
    bars = [
        Bar(label=ratio.way, number=numbers[ratio.way], interval=ratio.figure)
        for ratio in comparison.ratios
        if ratio.way != comparison.baseline and _drawable(ratio)
    ]
    return [Bar(label=comparison.name), *bars] if bars else []


def _drawable(ratio: Ratio) -> bool:
    """Whether a logarithmic axis has a place for it; files may say anything."""
    ends = (ratio.figure.low, ratio.figure.middle, ratio.figure.high)
    return all(isfinite(end) and 1e-12 < end < 1e12 for end in ends)


def _busy_panels(
    comparisons: Sequence[ComparisonResult], numbers: dict[str, int]
) -> Iterator[Panel]:
    """Yield plots of processor time for each operation."""
    blocks = [(each, _busy_bars(each, numbers)) for each in comparisons]
    for group, bars in _sheets([block for block in blocks if block[1]]):
        label = "busy time of all processors for each operation, 95 % interval; less is better"
        yield Panel(
            title="CPU per operation", comparisons=group, height=_height(bars),
            draw=partial(draw_bars, bars=bars, label=label),
        )  # fmt: skip


def _busy_bars(comparison: ComparisonResult, numbers: dict[str, int]) -> list[Bar]:
    counted = [
        (way.name, interval(busy)) for way in comparison.ways if (busy := busy_by_round(way.rounds))
    ]
    bars = [
        Bar(label=name, number=numbers[name], interval=busy)
        for name, busy in counted
        if busy.middle > 0 and busy.high < 1e12
    ]
    return [Bar(label=comparison.name), *bars] if bars else []


def _latency_panels(
    comparisons: Sequence[ComparisonResult], numbers: dict[str, int]
) -> Iterator[Panel]:
    for each in comparisons:
        if any(latencies(way) is not None for way in each.ways):
            yield Panel(
                title=f"Latency: {each.name}",
                comparisons=(each,),
                height=2.9 + 0.16 * len(each.ways),
                draw=partial(draw_latencies, comparison=each, numbers=numbers),
            )


def _sheets(
    blocks: Sequence[tuple[ComparisonResult, list[Bar]]],
) -> Iterator[tuple[tuple[ComparisonResult, ...], list[Bar]]]:
    """Join the bars of comparisons until a plot is full."""
    group: list[ComparisonResult] = []
    bars: list[Bar] = []
    for comparison, own in blocks:
        if bars and len(bars) + len(own) > ROWS:
            yield tuple(group), bars
            group, bars = [], []
        group.append(comparison)
        bars = [*bars, *own]
    if bars:
        yield tuple(group), bars


def _height(bars: Sequence[Bar]) -> float:
    return 0.8 + 0.24 * len(bars)


def _named(comparison: ComparisonResult) -> str:
    return next((words for kind, words in NAMES.items() if kind == comparison.figure), "figure")

"""Draws one plot each: latencies, figures along an axis, ratios, processor time.

Matplotlib's object interface only, on a figure that is handed in, so that nothing is left behind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from uspace_drv.bench.histogram import Histogram
from uspace_drv.bench.report import units
from uspace_drv.bench.report.rows import latencies
from uspace_drv.bench.report.theme import Style, Theme, style
from uspace_drv.bench.results import ComparisonResult, Interval

PERCENTS = (0, 50, 90, 99, 99.9, 99.99, 99.999, 99.9999)
POINTS = 400
"""Points of one line that are kept: more cannot be seen."""
LOGARITHMIC_FROM = 8.0
"""An axis whose ends differ by more is logarithmic."""
SLIVERS_FROM = 30.0
"""Bars that differ by more would hide the shortest: marks on a logarithmic axis stand for them."""
JOINED_FROM = 3
"""Points that a line joins; between two it would claim more than was measured."""
HEADING = 60
LABEL = 46
"""Characters of a name that have room in a plot; tables have all of it."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One way along an axis: places, and the figure with its interval at each."""

    way: str
    number: int
    places: list[float]
    figures: list[Interval]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One line of a plot of ratios or of seconds, with its interval; a heading has neither."""

    label: str
    number: int | None = None
    interval: Interval | None = None


def draw_latencies(
    figure: FigureBase, theme: Theme, comparison: ComparisonResult, numbers: dict[str, int]
) -> None:
    """Draw what share of the latencies of each way is not above each time, the tail stretched."""
    axes, drawn = figure.subplots(), []
    highest = 1.0
    for way in comparison.ways:
        found = latencies(way)
        if found is not None:
            look = style(theme, numbers[way.name])
            times, tail = _tail(found)
            highest = max(highest, tail[-1])
            (line,) = axes.plot(
                times, tail, look.line, color=look.colour, marker=look.marker, markersize=4,
                markevery=max(1, len(times) // 6), drawstyle="steps-post", linewidth=1.4,
            )  # fmt: skip
            drawn.append((line, way.name))
    _logarithmic(axes.set_xscale, axes.xaxis, lambda value: _short("time", value))
    shown = [each for each in PERCENTS if _stretched(each / 100) <= highest + 0.2]
    axes.set_yticks([_stretched(each / 100) for each in shown], [f"{each:g} %" for each in shown])
    axes.set_ylim(0, highest + 0.1)
    axes.set_ylabel("not slower (tail stretched)")
    axes.set_xlabel(f"time of one {clean(comparison.operation, LABEL)}")
    axes.grid(visible=True)
    _legend(figure, drawn)


def draw_lines(
    figure: FigureBase, theme: Theme, lines: Sequence[Line], axis: str, kind: str
) -> None:
    """Draw each way's figure, with its interval, along an axis that comparisons differ in."""
    axes, drawn = figure.subplots(), []
    for line in lines:
        look = style(theme, line.number)
        middles = np.array([each.middle for each in line.figures])
        below = middles - [each.low for each in line.figures]
        above = np.array([each.high for each in line.figures]) - middles
        bars = axes.errorbar(
            line.places, middles, yerr=np.maximum([below, above], 0), color=look.colour,
            marker=look.marker, markersize=4.5, linewidth=1.4, capsize=4,
            linestyle=look.line if len(line.places) >= JOINED_FROM else "none",
        )  # fmt: skip
        drawn.append((bars.lines[0], line.way))
    places = sorted({place for line in lines for place in line.places})
    heights = [each.middle for line in lines for each in line.figures]
    if _wide(places):
        _logarithmic(axes.set_xscale, axes.xaxis, partial(_place, axis))
    if len(places) <= 12:
        axes.set_xticks(places, [_place(axis, place) for place in places])
        axes.xaxis.set_minor_locator(NullLocator())
    if _wide(heights):
        _logarithmic(axes.set_yscale, axes.yaxis, lambda value: _short(kind, value))
    else:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(kind, value)))
        axes.set_ylim(bottom=0)
    axes.set_xlabel(clean(axis, LABEL))
    axes.grid(visible=True)
    _legend(figure, drawn)


def draw_ratios(figure: FigureBase, theme: Theme, bars: Sequence[Bar], label: str) -> None:
    """Draw ratios with their intervals around 1, the numbers beside them."""
    axes = figure.subplots()
    for place, bar in enumerate(bars):
        if bar.interval is not None and bar.number is not None:
            look = style(theme, bar.number)
            _mark(axes, place, bar.interval, look.colour, look.marker)
    at = [place for place, bar in enumerate(bars) if bar.interval is not None]
    above, below = [place - 0.5 for place in at], [place + 0.5 for place in at]
    axes.vlines([1] * len(at), above, below, color=theme.ink, linewidth=1)
    ends = [end for bar in bars if bar.interval for end in (bar.interval.low, bar.interval.high)]
    low, high = min([*ends, 0.9]), max([*ends, 1.1])
    axes.set_xscale("log")
    axes.set_xlim(low / 1.15, high * 1.15)
    _few_ticks(axes, high / low)
    _names(axes, theme, bars)
    texts = axes.twinx()
    texts.set_ylim(axes.get_ylim())
    texts.set_yticks(range(len(bars)), [units.times(bar.interval) for bar in bars], color=theme.ink)
    texts.tick_params(length=0)
    axes.set_xlabel(label)
    axes.grid(visible=True, axis="x")


def draw_bars(figure: FigureBase, theme: Theme, bars: Sequence[Bar], label: str) -> None:
    """Draw seconds with their intervals, the number at the end; headings stand between them."""
    axes = figure.subplots()
    found = [bar.interval for bar in bars if bar.interval is not None]
    ends = [end for each in found for end in (each.low, each.middle, each.high)]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    slivers = low > 0 and high / low >= SLIVERS_FROM
    for place, bar in enumerate(bars):
        if bar.interval is not None and bar.number is not None:
            look = style(theme, bar.number)
            if slivers:
                _mark(axes, place, bar.interval, look.colour, look.marker)
            else:
                _bar(axes, theme, place, bar.interval.middle, look)
                _mark(axes, place, bar.interval, theme.ink, "")
            axes.annotate(
                units.seconds(bar.interval.middle), (bar.interval.high, place), (7, 0),
                va="center", textcoords="offset points",
            )  # fmt: skip
    _seconds_axis(axes, low, high, logarithmic=slivers)
    _names(axes, theme, bars)
    axes.set_xlabel(label)
    axes.grid(visible=True, axis="x")


def clean(text: str, most: int) -> str:
    """Return a name on one line with nothing that a font lacks a shape for, cut if it is long."""
    plain = "".join(each if each.isprintable() else " " for each in text)
    plain = " ".join(plain.split())
    return plain if len(plain) <= most else plain[: most - 1] + "…"


def _bar(axes: Axes, theme: Theme, place: int, value: float, look: Style) -> None:
    axes.barh(
        [place], [value], height=0.72, color=look.colour, hatch=look.hatch, linewidth=0,
        edgecolor=theme.paper or theme.faint,
    )  # fmt: skip


def _mark(axes: Axes, place: int, found: Interval, colour: str, marker: str) -> None:
    """Draw an interval, and where its middle is, unless a bar says that."""
    axes.errorbar(
        [found.middle], [place], capsize=3, markersize=5, linewidth=1.4, color=colour,
        xerr=[[max(found.middle - found.low, 0)], [max(found.high - found.middle, 0)]],
        marker=marker,
    )  # fmt: skip


def _seconds_axis(axes: Axes, low: float, high: float, *, logarithmic: bool) -> None:
    """Give an axis of seconds ticks in words, and room for the numbers at its right."""
    if logarithmic:
        # A fifth of the decades, and what a number needs where there are few.
        axes.set_xlim(low / 1.3, high * max((high / low) ** 0.2, 1.3))
        _logarithmic(axes.set_xscale, axes.xaxis, lambda value: _short("time", value))
        return
    axes.set_xlim(0, high * 1.18)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short("time", value)))
    axes.locator_params(axis="x", nbins=6)


def _names(axes: Axes, theme: Theme, bars: Sequence[Bar]) -> None:
    """Name each line at the left, with headings inside the plot where they have room."""
    labels = ["" if bar.number is None else clean(bar.label, LABEL) for bar in bars]
    axes.set_yticks(range(len(bars)), labels)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    across = axes.get_yaxis_transform()
    for place, bar in enumerate(bars):
        if bar.number is None:
            axes.text(
                0.008, place, clean(bar.label, HEADING), transform=across, va="center",
                fontweight="bold", color=theme.ink,
            )  # fmt: skip


def _legend(figure: FigureBase, drawn: Sequence[tuple[Artist, str]]) -> None:
    names = [clean(name, LABEL * 2) for _, name in drawn]
    columns = 1 if any(len(name) > LABEL for name in names) else 2
    if drawn:
        # Labels that begin with _ are left out of legends, so names come in afterwards.
        blank = ["-"] * len(names)
        legend = figure.legend(
            [artist for artist, _ in drawn], blank, loc="outside lower center", ncols=columns
        )
        for text, name in zip(legend.get_texts(), names, strict=True):
            text.set_text(name)


def _tail(histogram: Histogram) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return seconds and stretched shares, thinned to what can be seen."""
    values, shares = histogram.distribution()
    last = 1 - 0.5 / histogram.count
    tail = -np.log10(1 - np.minimum(shares, last))
    _, kept = np.unique(np.round(tail / tail[-1] * POINTS), return_index=True)
    kept = np.union1d(kept, [len(tail) - 1])
    times = np.concatenate([values[:1], values[kept]]) / 1e9
    return times, np.concatenate([[0.0], tail[kept]])


def _stretched(share: float) -> float:
    return -math.log10(1 - share)


def _wide(values: Iterable[float]) -> bool:
    found = list(values)
    return bool(found) and min(found) > 0 and max(found) / min(found) >= LOGARITHMIC_FROM


def _logarithmic(
    set_scale: Callable[[str], None], axis: object, words: Callable[[float], str]
) -> None:
    """Make an axis logarithmic with ticks in words: 1, 2 and 5 where they have room."""
    set_scale("log")
    low, high = axis.get_view_interval()  # type: ignore[attr-defined]
    subs = (1.0, 2.0, 5.0) if high < 100 * low else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs))  # type: ignore[attr-defined]
    axis.set_major_formatter(FuncFormatter(lambda value, _: words(value)))  # type: ignore[attr-defined]
    axis.set_minor_formatter(NullFormatter())  # type: ignore[attr-defined]


def _few_ticks(axes: Axes, spread: float) -> None:
    """Put as many ticks on an axis of ratios as have room: round numbers, also within a decade."""
    subs = [1.0] if spread > 100 else [1.0, 2.0, 5.0] if spread > 12 else [1.0, 2.0, 3.0, 5.0, 7.0]
    locator = LogLocator(subs=subs) if spread > 3 else MaxNLocator(6)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_minor_locator(NullLocator())


def _place(axis: str, place: float) -> str:
    """Return where on an axis something is; sizes are in KiB and MiB."""
    if axis == "size" and place >= 1024:
        return f"{place / 2**20:g} MiB" if place >= 2**20 else f"{place / 2**10:g} KiB"
    return f"{place:.10g}"


def _short(kind: str, value: float) -> str:
    """Return a figure for an axis, where 1.00 us is 1 us."""
    number, space, unit = units.figure(kind, value).partition(" ")
    if "." in number and "e" not in number and "/" not in number:
        number = number.rstrip("0").rstrip(".")
    return f"{number}{space}{unit}"

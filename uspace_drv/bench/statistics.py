"""Medians with the intervals that hold them, by bootstrap over rounds: the same for the same data.

Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13: the percentile interval. A
median asks for nothing about how the figures are distributed, and one bad round does not move it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from uspace_drv.bench.results import ComparisonResult, Interval, Ratio, Round, WayResult
from uspace_drv.bench.suite import Figure
from uspace_drv.errors import LayoutError

RESAMPLES = 2000
"""Enough for the second digit of an interval's ends; more would only cost time."""

CONFIDENCE = 0.95
SEED = 1


def interval(values: Sequence[float]) -> Interval:
    """Return the median of at least one value, and where it lies with 95 % confidence.

    One value says nothing about its confidence: its interval is that value.
    """
    return _ends(float(np.median(values)), _medians(values, np.random.default_rng(SEED)))


def quotient(values: Sequence[float], others: Sequence[float]) -> Interval:
    """Return the ratio of two medians, measured apart: `values` by `others`, both positive."""
    chance = np.random.default_rng(SEED)
    middle = float(np.median(values)) / float(np.median(others))
    return _ends(middle, _medians(values, chance) / _medians(others, chance))


def half_width(of: Interval) -> float:
    """Return half of the width of an interval as a fraction of its middle, which is positive."""
    return (of.high - of.low) / 2 / of.middle


def spread(values: Sequence[float]) -> float:
    """Return how far the middle half of positive values is apart, as a fraction of the median."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float((high - low) / middle)


def kind_of(figure: str) -> Figure:
    """Return what a results file compares by its name there; `LayoutError` if there is no such."""
    try:
        return Figure(figure)
    except ValueError as error:
        raise LayoutError(f"no figure {figure!r}; there are {', '.join(Figure)}") from error


def figure_of(measured: Round, figure: str) -> float:
    """Return the number that is compared, in seconds or operations a second; it is positive.

    A round that has none, or one that cannot be, is a `LayoutError`.
    """
    value = kind_of(figure).of(measured.operations, measured.seconds, measured.median)
    if value is None or not 0 < value < float("inf"):
        raise LayoutError(
            f"a round without a {figure}: {measured.operations} operations in"
            f" {measured.seconds:.6f} s, median latency {measured.median}"
        )
    return value


def figures(way: WayResult, figure: str) -> list[float]:
    """Return the figure of each round of a way."""
    return [figure_of(each, figure) for each in way.rounds]


def round_ratios(way: WayResult, baseline: WayResult, figure: str) -> list[float]:
    """Return one way's figure by the baseline's, for each round in which both were measured."""
    pairs = zip(figures(way, figure), figures(baseline, figure), strict=False)
    return [value / base for value, base in pairs]


def ratios(result: ComparisonResult) -> list[Ratio]:
    """Set every way beside the baseline; a way that was not measured has no ratio."""
    baseline = next((each for each in result.ways if each.name == result.baseline), None)
    if baseline is None:
        return []
    return [
        Ratio(
            way=way.name,
            figure=interval(round_ratios(way, baseline, result.figure)),
            busy=_busy_ratio(way, baseline),
        )
        for way in result.ways
        if way is not baseline and way.rounds and baseline.rounds
    ]


def busy_each(measured: Round) -> float | None:
    """Return the processor seconds for one operation; None where they could not be counted.

    Less than nothing may come out of a round that is short beside a tick of the kernel's clock.
    """
    if measured.busy is None or measured.busy <= 0:
        return None
    return measured.busy / measured.operations


def _busy_ratio(way: WayResult, baseline: WayResult) -> Interval | None:
    """All rounds or none: to leave out those that came out too low would lift the rest."""
    found = []
    for measured, base in zip(way.rounds, baseline.rounds, strict=False):
        own, other = busy_each(measured), busy_each(base)
        if own is None or other is None:
            return None
        found.append(own / other)
    return interval(found)


def _medians(values: Sequence[float], chance: np.random.Generator) -> NDArray[np.float64]:
    """Return the medians of samples drawn from the values, each as large as they are."""
    drawn = chance.integers(0, len(values), (RESAMPLES, len(values)))
    return np.asarray(np.median(np.asarray(values, np.float64)[drawn], axis=1))


def _ends(middle: float, resampled: NDArray[np.float64]) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail]).tolist()
    return Interval(middle=middle, low=min(low, middle), high=max(high, middle))

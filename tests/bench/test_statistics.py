"""Medians and their intervals: what holds for all figures, and how often they are right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uspace_drv.bench.results import ComparisonResult, Interval, Round, WayResult
from uspace_drv.bench.statistics import (
    figure_of,
    half_width,
    interval,
    kind_of,
    quotient,
    ratios,
    spread,
)
from uspace_drv.errors import LayoutError

positive = st.floats(1e-9, 1e9)
lists = st.lists(positive, min_size=1, max_size=20)


@settings(max_examples=50, deadline=None)
@given(lists)
def test_an_interval_holds_its_middle_and_lies_among_the_values(values: list[float]) -> None:
    found = interval(values)
    assert found.middle == pytest.approx(float(np.median(values)))
    assert min(values) <= found.low <= found.middle <= found.high <= max(values)


@settings(max_examples=50, deadline=None)
@given(lists, st.integers(-20, 20))
def test_an_interval_in_another_unit_is_the_same(values: list[float], power: int) -> None:
    unit = 2.0**power  # exact, so that nothing is rounded
    one, other = interval(values), interval([unit * each for each in values])
    assert other.middle == unit * one.middle
    assert (other.low, other.high) == pytest.approx((unit * one.low, unit * one.high))


def test_the_same_figures_have_the_same_interval() -> None:
    values = np.random.default_rng(7).normal(10, 1, 30).tolist()
    assert interval(values) == interval(values)
    assert quotient(values, values[:7]) == quotient(values, values[:7])


def test_one_value_is_its_own_interval() -> None:
    assert interval([4.0]) == Interval(middle=4.0, low=4.0, high=4.0)
    assert quotient([4.0], [2.0]) == Interval(middle=2.0, low=2.0, high=2.0)


@pytest.mark.parametrize("count", [5, 12, 30])
def test_an_interval_holds_the_true_median_about_95_times_of_100(count: int) -> None:
    chance = np.random.default_rng(3)
    runs = 300
    held = 0
    for _ in range(runs):
        found = interval(chance.lognormal(0, 0.3, count).tolist())  # skewed, as times are
        held += found.low <= 1.0 <= found.high
    assert 0.91 <= held / runs <= 0.99


def test_a_quotient_holds_the_true_one_about_95_times_of_100() -> None:
    chance = np.random.default_rng(3)
    runs = 300
    held = 0
    for _ in range(runs):
        a, b = chance.normal(30, 2, 10), chance.normal(10, 1, 15)
        found = quotient(a.tolist(), b.tolist())
        held += found.low <= 3.0 <= found.high
    assert 0.91 <= held / runs <= 0.995


def test_one_bad_round_does_not_move_a_quotient() -> None:
    found = quotient([4.0, 4.0, 400.0], [2.0, 2.0, 0.002])
    assert (found.middle, found.low <= 2.0 <= found.high) == (2.0, True)


def test_more_rounds_make_an_interval_narrower() -> None:
    values = np.random.default_rng(1).normal(10, 1, 64).tolist()
    assert half_width(interval(values)) < half_width(interval(values[:8])) / 1.5


def test_a_half_width_is_a_fraction_of_the_middle() -> None:
    assert half_width(Interval(middle=4.0, low=3.0, high=5.0)) == 0.25


def test_one_bad_round_does_not_spread_the_rest() -> None:
    assert spread([10, 10, 10, 10, 1000]) == 0
    assert spread([8, 9, 10, 11, 12]) == pytest.approx(0.2)


def of(*rounds: Round, name: str) -> WayResult:
    return WayResult(name=name, rounds=list(rounds))


def compared(figure: str, *ways: WayResult) -> ComparisonResult:
    return ComparisonResult(
        name="read", operation="read", figure=figure, baseline="kernel", ways=list(ways)
    )


@pytest.mark.parametrize(("figure", "expected"), [("time", 0.25), ("rate", 4), ("latency", 0.5)])
def test_a_figure_is_of_its_kind(figure: str, expected: float) -> None:
    assert figure_of(Round(operations=8, seconds=2.0, median=0.5), figure) == expected


@pytest.mark.parametrize(
    ("measured", "figure"),
    [
        (Round(operations=0, seconds=1.0), "time"),
        (Round(operations=0, seconds=1.0), "rate"),
        (Round(operations=1, seconds=0.0), "rate"),
        (Round(operations=1, seconds=float("inf")), "time"),
        (Round(operations=1, seconds=1.0), "latency"),
        (Round(operations=1, seconds=1.0, median=float("nan")), "latency"),
    ],
)
def test_a_round_without_a_figure_is_refused(measured: Round, figure: str) -> None:
    with pytest.raises(LayoutError, match=f"a round without a {figure}: "):
        figure_of(measured, figure)


def test_an_unknown_figure_lists_those_that_there_are() -> None:
    with pytest.raises(LayoutError, match="no figure 'speed'; there are time, rate, latency"):
        kind_of("speed")


def test_ratios_pair_the_rounds() -> None:
    """The machine becomes ten times slower half-way; the ratio of each round does not notice."""
    slow = [1.0, 1.0, 1.0, 10.0, 10.0]
    result = compared(
        "time",
        of(*(Round(operations=8, seconds=3 * each, busy=each) for each in slow), name="user"),
        of(*(Round(operations=8, seconds=each, busy=2 * each) for each in slow), name="kernel"),
    )
    (found,) = ratios(result)
    assert found.way == "user"
    assert found.figure == Interval(middle=3.0, low=3.0, high=3.0)
    assert found.busy == Interval(middle=0.5, low=0.5, high=0.5)


def test_processor_time_is_compared_for_each_operation() -> None:
    result = compared(
        "rate",
        of(Round(operations=40, seconds=1.0, busy=2.0), name="user"),
        of(Round(operations=10, seconds=1.0, busy=1.0), name="kernel"),
    )
    (found,) = ratios(result)
    assert (found.figure.middle, found.busy and found.busy.middle) == (4.0, 0.5)


@pytest.mark.parametrize("busy", [None, 0.0, -0.01])
def test_a_round_without_processor_time_leaves_no_ratio_of_it(busy: float | None) -> None:
    good, bad = (Round(operations=1, seconds=1.0, busy=each) for each in (1.0, busy))
    for user, kernel in ((good, bad), (bad, good)):
        result = compared("time", of(good, user, name="user"), of(good, kernel, name="kernel"))
        assert [each.busy for each in ratios(result)] == [None]


def test_half_a_round_has_no_ratio() -> None:
    one, two = Round(operations=1, seconds=1.0), Round(operations=1, seconds=2.0)
    result = compared("time", of(two, one, name="user"), of(one, name="kernel"), of(name="new"))
    assert [(each.way, each.figure.middle) for each in ratios(result)] == [("user", 2.0)]
    assert ratios(compared("time", of(one, name="user"), of(name="kernel"))) == []
    assert ratios(compared("time", of(one, name="user"))) == []

"""Two results files side by side: what changed beside the baseline, and what only one has."""

from __future__ import annotations

from typing import Any

import pytest

from uspace_drv.bench.comparing import FactBeside, compare_results
from uspace_drv.bench.results import (
    ComparisonResult,
    Interval,
    Machine,
    Noise,
    Results,
    Round,
    SuiteResult,
    WayResult,
)
from uspace_drv.bench.suite import Figure
from uspace_drv.errors import LayoutError


def way(name: str, *seconds: float) -> WayResult:
    return WayResult(name=name, rounds=[Round(operations=1, seconds=each) for each in seconds])


def comparison(*ways: WayResult, **more: Any) -> ComparisonResult:
    members: dict[str, Any] = {
        "name": "read",
        "operation": "op",
        "figure": "time",
        "baseline": "kernel",
    }
    return ComparisonResult(**{**members, "ways": list(ways), **more})


def results(*comparisons: ComparisonResult, **facts: str) -> Results:
    suite = SuiteResult(name="nvme", summary="", comparisons=list(comparisons))
    return Results(started="", command=[], machines=[Machine(facts=facts)], suites=[suite])


def test_a_faster_machine_changes_the_figure_and_not_the_ratio() -> None:
    a = results(comparison(way("user", 2, 2, 2), way("kernel", 8, 8, 8)))
    b = results(comparison(way("user", 1, 1, 1), way("kernel", 4, 4, 4)))
    user, kernel = compare_results(a, b).ways
    assert (user.suite, user.comparison, user.operation) == ("nvme", "read", "op")
    assert (user.way, user.figure, user.is_baseline) == ("user", Figure.TIME, False)
    assert (user.a.middle, user.b.middle, user.change.middle) == (2.0, 1.0, 0.5)
    assert user.ratio_a == user.ratio_b == Interval(middle=0.25, low=0.25, high=0.25)
    assert user.ratio_change == Interval(middle=1.0, low=1.0, high=1.0)
    assert (kernel.way, kernel.is_baseline, kernel.change.middle) == ("kernel", True, 0.5)
    assert (kernel.ratio_a, kernel.ratio_b, kernel.ratio_change) == (None, None, None)


def test_a_change_has_the_interval_of_both() -> None:
    a = results(comparison(way("user", 9, 10, 11, 10, 9.5, 10.5), way("kernel", *[10] * 6)))
    b = results(comparison(way("user", 18, 20, 22, 20, 19, 21), way("kernel", *[10] * 6)))
    user, _ = compare_results(a, b).ways
    assert user.ratio_change is not None
    assert user.ratio_change.low < 2.0 == user.ratio_change.middle < user.ratio_change.high


def test_another_baseline_leaves_no_ratio() -> None:
    ways = way("user", 2), way("kernel", 4)
    a, b = results(comparison(*ways)), results(comparison(*ways, baseline="user"))
    user, kernel = compare_results(a, b).ways
    assert [user.ratio_a, user.ratio_b, user.ratio_change] == [None] * 3
    assert [kernel.ratio_a, kernel.ratio_b, kernel.ratio_change] == [None] * 3
    assert user.change.middle == 1.0


def test_a_baseline_without_rounds_leaves_no_ratio() -> None:
    a = results(comparison(way("user", 2), way("kernel")))
    b = results(comparison(way("user", 2), way("kernel", 4)))
    compared = compare_results(a, b)
    (user,) = compared.ways
    assert (user.ratio_a, user.ratio_change) == (None, None)
    assert user.ratio_b is not None
    assert compared.only_b == ["nvme, read, kernel (time)"]


def test_what_only_one_has_is_told() -> None:
    a = results(comparison(way("user", 2), way("kernel", 4)))
    b = results(
        comparison(way("kernel", 4), way("new", 1)), comparison(way("kernel", 1), name="write")
    )
    compared = compare_results(a, b)
    assert [each.way for each in compared.ways] == ["kernel"]
    assert compared.only_a == ["nvme, read, user (time)"]
    assert compared.only_b == ["nvme, read, new (time)", "nvme, write, kernel (time)"]


def test_another_figure_is_another_thing() -> None:
    a = results(comparison(way("kernel", 4)))
    b = results(comparison(way("kernel", 4), figure="rate"))
    compared = compare_results(a, b)
    assert compared.ways == []
    assert compared.only_a == ["nvme, read, kernel (time)"]
    assert compared.only_b == ["nvme, read, kernel (rate)"]


def test_facts_that_differ_are_told_once() -> None:
    ways = way("user", 2), way("kernel", 4)
    a = results(comparison(*ways), processor="slow", kernel="6.1", numpy="2")
    b = results(comparison(*ways), processor="fast", kernel="6.1", fio="3")
    assert compare_results(a, b).facts == [
        FactBeside(name="processor", a="slow", b="fast"),
        FactBeside(name="numpy", a="2", b=None),
        FactBeside(name="fio", a=None, b="3"),
    ]
    assert compare_results(a, a).facts == []


def test_a_machine_that_the_file_does_not_have_tells_no_facts() -> None:
    a = results(comparison(way("kernel", 4)), processor="slow")
    a.suites[0].machine = 7
    b = results(comparison(way("kernel", 4)), processor="fast")
    assert compare_results(a, b).facts == [FactBeside(name="processor", a=None, b="fast")]


def test_doubts_of_both_are_told() -> None:
    a = results(comparison(way("kernel", 4), noise=Noise(notes=["steal"])))
    b = results(comparison(way("kernel", 4), complete=False))
    (kernel,) = compare_results(a, b).ways
    assert kernel.notes == ["A: steal", "B: was interrupted"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (comparison(way("kernel", 0)), "a round without a time"),
        (comparison(way("kernel", 1), figure="speed"), "no figure 'speed'"),
        (comparison(way("kernel", 1), figure="latency"), "a round without a latency"),
        (comparison(way("user", 1)), "no way of its comparison is the baseline, 'kernel'"),
    ],
)
def test_rounds_that_cannot_be_are_refused(wrong: ComparisonResult, message: str) -> None:
    good = results(comparison(way("kernel", 1)))
    with pytest.raises(LayoutError, match=rf"^b\.json: damaged: nvme, read, .*{message}"):
        compare_results(good, results(wrong), names=("a.json", "b.json"))

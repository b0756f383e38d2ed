"""Ways made of a function or a statement, for a hundredth of a second each."""

from __future__ import annotations

import time

import pytest

from uspace_drv.bench import Setting, repeat, statement
from uspace_drv.bench import ways as ways_module
from uspace_drv.bench.ways import loops_for


def test_a_function_is_repeated_and_each_call_timed() -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1

    sample = repeat(Setting(seconds=0.01), call)()
    assert sample.operations == calls - 1, "the call that warms up is not counted"
    assert sample.seconds >= 0.01
    assert sample.latencies is not None
    assert sample.latencies.count == sample.operations
    assert sample.own is not None
    assert sample.busy is not None


def test_a_call_of_many_operations_counts_as_many() -> None:
    sample = repeat(Setting(seconds=0.01), lambda: time.sleep(0.002), calls=4)()
    assert sample.operations % 4 == 0
    assert sample.latencies is not None
    assert sample.latencies.count == sample.operations // 4
    assert 500_000 <= sample.latencies.percentile(0) < 2_000_000, "of one operation"


def test_no_more_latencies_are_kept_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways_module, "MOST", 3)
    assert repeat(Setting(seconds=10.0), lambda: None)().operations == 3


def test_one_call_is_made_though_the_time_is_up() -> None:
    assert repeat(Setting(seconds=0.0), lambda: None)().operations == 1


def test_what_a_function_raises_goes_up() -> None:
    with pytest.raises(ZeroDivisionError):
        repeat(Setting(seconds=0.01), lambda: 1 / 0)()


class FakeTimer:
    """A statement takes 20 ms a call, an empty loop half of that; so `timeit.Timer` would say."""

    bare = 0.01

    def __init__(self, code: str, globals: object = None) -> None:  # noqa: A002 - Timer's name
        self.code = code

    def autorange(self) -> tuple[int, float]:
        return 10, self.timeit(10)

    def timeit(self, number: int) -> float:
        return number * (self.bare if self.code == "pass" else 0.02)


def test_a_statement_is_timed_without_its_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timeit.Timer", FakeTimer)
    sample = statement(Setting(seconds=1.0), "values.append(1)", {"values": []})()
    assert sample.operations == 50
    assert sample.seconds == pytest.approx(0.5)
    assert sample.latencies is None


def test_an_empty_loop_that_was_held_up_takes_nothing_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("timeit.Timer", FakeTimer)
    way = statement(Setting(seconds=1.0), "1", {})
    first = way()
    FakeTimer.bare, before = 0.03, FakeTimer.bare
    try:
        assert way().seconds == pytest.approx(first.seconds)
    finally:
        FakeTimer.bare = before


def test_a_statement_as_fast_as_nothing_gets_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner refuses it: a made-up time would be a ratio of a million."""
    monkeypatch.setattr("timeit.Timer", FakeTimer)
    monkeypatch.setattr(FakeTimer, "bare", 0.03)
    assert statement(Setting(seconds=1.0), "1", {})().seconds <= 0


def test_a_statement_is_done_as_often_each_time() -> None:
    values: list[int] = []
    way = statement(Setting(seconds=0.01), "values.append(1)", {"values": values})
    first = way()
    values.clear()
    second = way()
    assert first.operations == second.operations == len(values)
    assert 0 < second.seconds < 5


def test_a_slow_first_call_does_not_make_samples_short() -> None:
    calls = []

    def run(count: int) -> float:
        calls.append(count)
        return 1.0 if len(calls) == 1 else count * 1e-6

    assert loops_for(0.1, run) == pytest.approx(100_000, rel=0.01)

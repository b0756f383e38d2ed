"""A run that breaks: the suite cleans up, what was measured stays, and the first error is told."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from tests.bench.fake_bench import Bench, comparison
from uspace_drv.bench import Comparison, Sample, Setting
from uspace_drv.bench.runner import Plan
from uspace_drv.errors import HostError

PLAN = Plan(least_rounds=4, most_rounds=4)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def failing(bench: Bench, at: int, fail: Callable[[], object]) -> Callable[[], Sample]:
    """A way that fails when it is called for that time, from 0."""
    way, calls = bench.way("b"), iter(range(1000))

    def measure() -> Sample:
        if next(calls) == at:
            fail()
        return way()

    return measure


def raise_it(error: BaseException) -> Callable[[], object]:
    def fail() -> None:
        raise error

    return fail


class Cleaned:
    """A generator's work that notes that it cleaned up, and may fail there."""

    def __init__(self, *comparisons: Comparison, fail: Callable[[], object] | None = None) -> None:
        self.comparisons, self.fail, self.times = comparisons, fail, 0

    def __call__(self, setting: Setting) -> Iterator[Comparison]:
        try:
            yield from self.comparisons
        finally:
            self.times += 1
            if self.fail:
                self.fail()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), OSError("gone")])
def test_what_was_measured_stays_and_says_that_it_is_not_all(
    bench: Bench, error: BaseException
) -> None:
    ways = {"a": bench.way("a"), "b": failing(bench, 3, raise_it(error))}
    suite = Cleaned(comparison({"b": bench.way("x")}, name="before"), comparison(ways))
    with pytest.raises(type(error)) as caught:
        bench.run_generator(suite, PLAN)
    assert caught.value is error
    assert suite.times == 1
    before, result = bench.into.comparisons
    assert (before.complete, result.complete) == (True, False)
    # Warm-up ab, then ab, ba, and a of the third round.
    assert [len(each.rounds) for each in result.ways] == [3, 2]
    assert [each.way for each in result.ratios] == ["a"]
    assert bench.saved[-1] == [True, False]
    assert "end" not in [each[0] for each in bench.told if each[2] == "c"]


def test_a_comparison_that_failed_in_its_warm_up_is_kept_without_rounds(bench: Bench) -> None:
    with pytest.raises(OSError, match="gone"):
        bench.run(comparison({"b": failing(bench, 0, raise_it(OSError("gone")))}))
    (result,) = bench.into.comparisons
    assert (result.complete, result.ratios, result.ways[0].rounds) == (False, [], [])
    assert bench.saved == [[False]]


def test_a_suite_that_fails_before_its_first_comparison_goes_up(bench: Bench) -> None:
    def compare(setting: Setting) -> Iterator[Comparison]:
        setting.skip("all", "no device")
        if setting.skipped:
            raise HostError("no device")
        yield comparison({"b": bench.way("b")})

    with pytest.raises(HostError, match="no device"):
        bench.run_generator(compare)
    assert bench.saved == [[]]
    assert [each.what for each in bench.into.skipped] == ["all"]


def test_a_suite_that_fails_when_it_is_called_goes_up(bench: Bench) -> None:
    def compare(_: Setting) -> Iterator[Comparison]:
        raise HostError("no device")

    with pytest.raises(HostError, match="no device"):
        bench.run_generator(compare)
    assert bench.saved == [[]]


def test_a_suite_that_fails_in_the_middle_keeps_what_it_had(bench: Bench) -> None:
    def compare(_: Setting) -> Iterator[Comparison]:
        yield comparison({"b": bench.way("b")})
        raise HostError("bind failed")

    with pytest.raises(HostError, match="bind failed"):
        bench.run_generator(compare)
    assert bench.saved[-1] == [True]


def test_the_first_error_carries_that_of_the_cleaning_up(bench: Bench) -> None:
    ways = {"b": failing(bench, 2, raise_it(KeyboardInterrupt()))}
    suite = Cleaned(comparison(ways), fail=raise_it(HostError("cannot bind it back")))
    with pytest.raises(KeyboardInterrupt) as caught:
        bench.run_generator(suite, PLAN)
    assert caught.value.__notes__ == [
        "then, while leaving: let the suite clean up: HostError: cannot bind it back"
    ]
    assert bench.saved == [[False]]


def test_a_full_disk_loses_no_results(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    full = HostError("results.json: cannot be written: No space left on device")
    again = HostError("results.json: still full")
    failures = iter([full, again])

    def save() -> None:
        raise next(failures)

    monkeypatch.setattr(bench, "save", save)
    suite = Cleaned(*(comparison({"b": bench.way("b")}, name=name) for name in "xy"))
    with pytest.raises(HostError) as caught:
        bench.run_generator(suite)
    assert caught.value is full
    assert caught.value.__notes__ == [
        "then, while leaving: save the results: HostError: results.json: still full"
    ]
    assert suite.times == 1
    (result,) = bench.into.comparisons
    assert result.complete, "it was measured to its end; only the file is missing"
    assert len(result.ways[0].rounds) == 2


def test_a_disk_that_is_full_at_the_very_end_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "save", raise_it(HostError("full")))
    with pytest.raises(HostError, match="full"):
        bench.run()


def test_a_watcher_that_fails_stops_the_run_as_ctrl_c_does(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "rounds", lambda *_: raise_it(BrokenPipeError())())
    suite = Cleaned(comparison({"b": bench.way("b")}))
    with pytest.raises(BrokenPipeError):
        bench.run_generator(suite)
    assert (suite.times, bench.saved) == (1, [[False]])


def test_a_second_ctrl_c_waits_until_the_suite_has_cleaned_up(bench: Bench) -> None:
    done = []

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        done.append("put back")

    ways = {"b": failing(bench, 1, raise_it(OSError("first")))}
    with pytest.raises(KeyboardInterrupt) as caught:
        bench.run_generator(Cleaned(comparison(ways), fail=interrupt), PLAN)
    assert done == ["put back"]
    assert str(caught.value.__context__) == "first"
    assert bench.saved == [[False]]


def test_an_iterator_needs_no_close(bench: Bench) -> None:
    ways = {"b": failing(bench, 1, raise_it(OSError("first")))}
    with pytest.raises(OSError, match="first"):
        bench.run(comparison(ways))

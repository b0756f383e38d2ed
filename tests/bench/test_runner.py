"""The runner: which way is called when, when it is enough, and what the results hold then."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.bench.fake_bench import Bench, comparison
from uspace_drv.bench import Comparison, Figure, Histogram, Sample, Setting
from uspace_drv.bench.runner import Plan
from uspace_drv.errors import DeviceError, LayoutError


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_ways_alternate_after_a_warm_up(bench: Bench) -> None:
    ways = {name: bench.way(name) for name in "abc"}
    (result,) = bench.run(comparison(ways), plan=Plan(least_rounds=3, most_rounds=3))
    assert "".join(bench.calls) == "abc" + "abc" + "cba" + "abc"
    assert [len(each.rounds) for each in result.ways] == [3, 3, 3], "the warm-up is not stored"
    assert result.complete


def test_a_result_says_what_was_compared(bench: Bench) -> None:
    (result,) = bench.run(
        comparison(
            {"a": bench.way("a", lambda _: 3.0), "b": bench.way("b")},
            figure=Figure.RATE,
            size=4096,
            axes={"depth": 2},
            chart="by depth",
        )
    )
    assert (result.name, result.operation, result.figure) == ("c", "op", "rate")
    assert (result.size, result.axes, result.chart) == (4096, {"depth": 2}, "by depth")
    assert result.baseline == "b"
    (ratio,) = result.ratios
    assert (ratio.way, ratio.busy) == ("a", None)
    assert ratio.figure.middle == pytest.approx(1 / 3)


def test_latencies_of_all_rounds_are_counted_and_not_those_of_the_warm_up(bench: Bench) -> None:
    samples = iter([[9], [1000, 2000, 3000], [4000]])

    def measure() -> Sample:
        latencies = next(samples)
        counted = Histogram.of(latencies)
        return Sample(operations=len(latencies), seconds=1.0, latencies=counted)

    (result,) = bench.run(comparison({"b": measure}, figure=Figure.LATENCY))
    (way,) = result.ways
    assert way.latencies is not None
    assert Histogram.decode(way.latencies).count == 4
    assert [each.median for each in way.rounds] == pytest.approx([2e-6, 4e-6], rel=1e-3)


def uneven(count: int) -> float:
    """How long calls take that differ more than any precision allows."""
    return 1.0 + count % 3


def test_it_ends_when_all_are_narrow(bench: Bench) -> None:
    ways = {"a": bench.way("a"), "b": bench.way("b")}
    (result,) = bench.run(comparison(ways), plan=Plan(least_rounds=4, seconds=1000))
    assert (len(result.ways[0].rounds), result.narrow) == (4, True)


def test_one_wide_way_is_reason_enough_to_go_on(bench: Bench) -> None:
    ways = {"a": bench.way("a"), "b": bench.way("b"), "c": bench.way("c", uneven)}
    (result,) = bench.run(comparison(ways), plan=Plan(most_rounds=9, seconds=1000))
    assert (len(result.ways[0].rounds), result.narrow) == (9, False)


def test_a_baseline_alone_is_judged_by_its_own_figure(bench: Bench) -> None:
    (result,) = bench.run(comparison({"b": bench.way("b", uneven)}), plan=Plan(most_rounds=9))
    assert (len(result.ways[0].rounds), result.ratios, result.narrow) == (9, [], False)
    (result,) = Bench().run(comparison({"b": bench.way("b")}), plan=Plan(most_rounds=9))
    assert (len(result.ways[0].rounds), result.narrow) == (5, True)


def test_it_ends_before_a_round_that_the_time_is_too_short_for(bench: Bench) -> None:
    ways = {"a": bench.way("a", uneven), "b": bench.way("b", lambda _: 1.0)}
    bench.run(comparison(ways), plan=Plan(least_rounds=2, seconds=20))
    assert 15 < bench.now <= 20, "warm-up included"


def test_the_least_rounds_are_measured_whatever_they_take(bench: Bench) -> None:
    ways = {"b": bench.way("b", uneven)}
    (result,) = bench.run(comparison(ways), plan=Plan(least_rounds=3, seconds=0.5))
    assert len(result.ways[0].rounds) == 3


def test_the_watcher_is_told_how_far_it_is(bench: Bench) -> None:
    ways = {"a": bench.way("a", uneven), "b": bench.way("b")}
    bench.run(comparison(ways), plan=Plan(seconds=50))
    assert bench.told[0] == ("begin", "s", "c")
    assert bench.told[-1] == ("end", "s", "c")
    steps = [(fraction, left) for what, fraction, left in bench.told if what == "rounds"]
    assert all(0 <= fraction <= 1 and 0 <= left <= 50 for fraction, left in steps)
    assert [left for _, left in steps] == sorted((left for _, left in steps), reverse=True)
    assert steps[0][0] < 0.2
    assert steps[-1][0] > 0.8


def test_what_is_skipped_is_told_once_as_it_comes(bench: Bench) -> None:
    bench.setting.skip("before", "of another suite")

    def compare(setting: Setting) -> Iterator[Comparison]:
        setting.skip("first", "why")
        yield comparison({"b": bench.way("b")})
        setting.skip("second", "why")
        yield comparison({"b": bench.way("b")}, name="d")
        setting.skip("third", "why")

    bench.run_generator(compare)
    assert [each.what for each in bench.into.skipped] == ["first", "second", "third"]
    whats = [each[0] + ":" + each[2] for each in bench.told if each[0] != "rounds"]
    assert whats == [
        *("skipped:first", "begin:c", "end:c", "skipped:second"),
        *("begin:d", "end:d", "skipped:third"),
    ]


def test_results_are_saved_after_each_comparison_and_on_the_way_out(bench: Bench) -> None:
    bench.run(*(comparison({"b": bench.way("b")}, name=name) for name in "xy"))
    assert bench.saved == [[True], [True, True], [True, True]]


def test_noise_is_noted_beside_the_figure(bench: Bench) -> None:
    ways = {"a": bench.way("a"), "b": bench.way("b", uneven)}
    (result,) = bench.run(comparison(ways), plan=Plan(most_rounds=6))
    assert "b: the middle half of its rounds is" in " ".join(result.noise.notes)
    assert "a: the middle half" not in " ".join(result.noise.notes)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ways": {}}, "suite s, c: there are no ways to compare"),
        ({"baseline": "x"}, "suite s, c: the baseline 'x' is none of its ways: b"),
        ({"ways": {"b": 3}}, "suite s, c: the way 'b' is a int, not a function"),
        ({"ways": {"b": lambda: None}}, "suite s, c, b: returned a NoneType, not a Sample"),
        (
            {"ways": {"b": lambda: Sample(operations=1, seconds=0.0)}},
            "suite s, c, b: says that it took 0.0 s",
        ),
        (
            {"ways": {"b": lambda: Sample(operations=1, seconds=1.0)}, "figure": Figure.LATENCY},
            "suite s, c, b: latencies are compared, and its sample has none",
        ),
    ],
)
def test_a_suite_that_contradicts_itself_is_refused_by_name(
    bench: Bench, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(LayoutError, match=message):
        bench.run(comparison(**{"ways": {"b": bench.way("b")}, **wrong}))


def test_what_is_no_comparison_is_refused(bench: Bench) -> None:
    wrong: Any = lambda _: iter(["nonsense"])  # noqa: E731
    with pytest.raises(LayoutError, match="suite s: yields a str, not a Comparison"):
        bench.run_generator(wrong)


def test_two_comparisons_of_one_name_could_not_be_told_apart(bench: Bench) -> None:
    one = comparison({"b": bench.way("b")})
    with pytest.raises(LayoutError, match="suite s, c: there is a comparison of that name already"):
        bench.run(one, one)
    assert [each.complete for each in bench.into.comparisons] == [True]


def test_a_way_that_does_nothing_is_an_error_of_the_device(bench: Bench) -> None:
    with pytest.raises(DeviceError, match=r"suite s, c, b: did not a single operation in 0\.500 s"):
        bench.run(comparison({"b": lambda: Sample(operations=0, seconds=0.5)}))

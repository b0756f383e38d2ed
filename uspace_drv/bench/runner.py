"""Measures the comparisons of a suite: the ways in turn, round by round, until it is known enough.

A round calls every way once; the next one calls them in reverse, so that whatever drifts falls on
all alike. The first round of each comparison warms up and is thrown away.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from uspace_drv.bench.histogram import Histogram
from uspace_drv.bench.noise import NoiseMeter, round_notes
from uspace_drv.bench.results import ComparisonResult, Round, Skipped, SuiteResult, WayResult
from uspace_drv.bench.setting import Setting
from uspace_drv.bench.statistics import figures, half_width, interval, ratios
from uspace_drv.bench.suite import Comparison, Figure, Sample, Suite, Way
from uspace_drv.errors import DeviceError, LayoutError
from uspace_drv.teardown import Teardown


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long to measure: `seconds` for each comparison, its warm-up and all its ways included.

    At least `least_rounds` are measured, whatever they take. `precision` is asked of every ratio:
    half of the width of its interval as a fraction of its middle.
    """

    least_rounds: int = 5
    most_rounds: int = 60
    seconds: float = 30.0
    precision: float = 0.02


class Watcher(Protocol):
    """Is told how far it is; what it raises stops the run as Ctrl-C does."""

    def begin(self, suite: str, comparison: Comparison) -> None:
        """Show that a comparison begins with its warm-up."""

    def rounds(self, fraction: float, seconds_left: float) -> None:
        """Show how much of the comparison's time is over, and what is left of it at worst."""

    def end(self, suite: str, result: ComparisonResult) -> None:
        """Show what came of a comparison that is complete."""

    def skipped(self, suite: str, skipped: Skipped) -> None:
        """Show what is not measured, and why; once for each."""


Clock = Callable[[], float]


def run_suite(  # noqa: PLR0913, PLR0917 - what to run, how, and where its results go
    name: str,
    suite: Suite,
    setting: Setting,
    plan: Plan,
    into: SuiteResult,
    save: Callable[[], None],
    watcher: Watcher,
    *,
    clock: Clock = time.monotonic,
) -> None:
    """Measure a suite and fill `into` as it goes; `save` is called after each comparison.

    Whatever is raised, by the suite, a way, `save`, the watcher or Ctrl-C, goes on to the caller
    after the suite has cleaned up and `save` was called once more; what fails meanwhile is its
    note. The comparison that was interrupted stays in `into` with `complete=False` and the rounds
    that it has. A suite that contradicts itself is a `LayoutError`, a way that does nothing a
    `DeviceError`. What `setting` notes as skipped from now on is copied into `into`.
    """
    told, opened = len(setting.skipped), len(setting.opened)

    def tell() -> None:
        nonlocal told
        into.via = ", ".join(setting.opened[opened:])
        while told < len(setting.skipped):
            skipped = setting.skipped[told]
            told += 1
            into.skipped.append(skipped)
            watcher.skipped(name, skipped)

    way_out = Teardown()
    way_out.push("save the results", save)
    way_out.push("tell what was skipped", tell)
    try:
        comparisons = suite.compare(setting)
        way_out.push("let the suite clean up", getattr(comparisons, "close", _nothing))
        for comparison in _checked(name, comparisons, into):
            tell()
            watcher.begin(name, comparison)
            measured = _Measurement(f"suite {name}, {comparison.name}", comparison, plan, clock)
            into.comparisons.append(measured.result)
            measured.run(watcher)
            tell()
            save()
            watcher.end(name, measured.result)
    except BaseException as error:
        way_out.run(error)
        raise
    way_out.run()


def _nothing() -> None:
    """Clean up after an iterator that is no generator."""


def _checked(name: str, comparisons: Iterator[object], into: SuiteResult) -> Iterator[Comparison]:
    """Refuse comparisons that cannot be measured, or not be told apart in the results."""
    for each in comparisons:
        if not isinstance(each, Comparison):
            raise LayoutError(f"suite {name}: yields a {type(each).__name__}, not a Comparison")
        where = f"suite {name}, {each.name}"
        if any(each.name == other.name for other in into.comparisons):
            raise LayoutError(f"{where}: there is a comparison of that name already")
        if not each.ways:
            raise LayoutError(f"{where}: there are no ways to compare")
        if each.baseline not in each.ways:
            ways = ", ".join(each.ways)
            raise LayoutError(
                f"{where}: the baseline {each.baseline!r} is none of its ways: {ways}"
            )
        functions: dict[str, object] = dict(each.ways)
        for way, function in functions.items():
            if not callable(function):
                kind = type(function).__name__
                raise LayoutError(f"{where}: the way {way!r} is a {kind}, not a function")
        yield each


@dataclass
class _Measurement:
    """One comparison while it is measured; `result` is always as far as it goes."""

    where: str
    comparison: Comparison
    plan: Plan
    clock: Clock
    result: ComparisonResult = field(init=False)
    latencies: dict[str, Histogram] = field(default_factory=dict)

    def __post_init__(self) -> None:
        asked = self.comparison
        self.result = ComparisonResult(
            name=asked.name,
            operation=asked.operation,
            figure=str(asked.figure),
            baseline=asked.baseline,
            size=asked.size,
            axes=dict(asked.axes),
            chart=asked.chart,
            ways=[WayResult(name=name) for name in asked.ways],
            complete=False,
        )

    def run(self, watcher: Watcher) -> None:
        """Warm up, then measure round by round; the result is finished even if that fails."""
        meter = NoiseMeter()
        try:
            with meter:
                self._measure(watcher, meter)
            self.result.complete = True
        finally:
            self._finish(meter)

    def _measure(self, watcher: Watcher, meter: NoiseMeter) -> None:
        plan, start = self.plan, self.clock()
        for name, way in self.comparison.ways.items():
            self._take(name, way)
        done, each = 0, self.clock() - start
        rounds_start = self.clock()
        while True:
            passed = self.clock() - start
            least = (plan.least_rounds - done) * each
            most = min(plan.seconds - passed, (plan.most_rounds - done) * each)
            left = max(least, most, 0.0)
            watcher.rounds(min(1.0, passed / max(passed + left, 1e-9)), left)
            if done >= plan.least_rounds and (
                done >= plan.most_rounds or passed + each > plan.seconds or self._is_narrow()
            ):
                return
            self._round(reverse=done % 2 == 1)
            meter.look()
            done += 1
            each = (self.clock() - rounds_start) / done

    def _round(self, *, reverse: bool) -> None:
        ways = list(zip(self.result.ways, self.comparison.ways.values(), strict=True))
        for result, way in reversed(ways) if reverse else ways:
            sample = self._take(result.name, way)
            median = None
            if sample.latencies is not None:
                median = sample.latencies.percentile(50) / 1e9
                self.latencies.setdefault(result.name, Histogram()).add(sample.latencies)
            result.rounds.append(
                Round(
                    operations=sample.operations,
                    seconds=sample.seconds,
                    busy=sample.busy,
                    own=sample.own,
                    median=median,
                )
            )

    def _take(self, name: str, way: Way) -> Sample:
        """Call a way, and refuse a sample that no figure can be made of."""
        sample: object = way()
        where = f"{self.where}, {name}"
        if not isinstance(sample, Sample):
            raise LayoutError(f"{where}: returned a {type(sample).__name__}, not a Sample")
        if sample.operations <= 0:
            raise DeviceError(f"{where}: did not a single operation in {sample.seconds:.3f} s")
        if not 0 < sample.seconds < float("inf"):
            raise LayoutError(f"{where}: says that it took {sample.seconds} s")
        if self.comparison.figure == Figure.LATENCY and not (
            sample.latencies and sample.latencies.count
        ):
            raise LayoutError(f"{where}: latencies are compared, and its sample has none")
        return sample

    def _is_narrow(self) -> bool:
        """Whether every interval is; where there is nothing beside the baseline, its own."""
        found = [each.figure for each in ratios(self.result)]
        if not found:
            found = [interval(figures(self.result.ways[0], self.result.figure))]
        self.result.narrow = all(half_width(each) <= self.plan.precision for each in found)
        return self.result.narrow

    def _finish(self, meter: NoiseMeter) -> None:
        for way in self.result.ways:
            if way.name in self.latencies:
                way.latencies = self.latencies[way.name].encode()
        self.result.ratios = ratios(self.result)
        self.result.noise = meter.noise
        self.result.noise.notes += round_notes(self.result)

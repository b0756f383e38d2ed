"""A runner's surroundings for tests: ways that count, a clock that they advance, a watcher."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from uspace_drv.bench import Comparison, Sample, Setting, Suite, Way
from uspace_drv.bench.results import ComparisonResult, Skipped, SuiteResult
from uspace_drv.bench.runner import Plan, run_suite


@dataclass
class Bench:
    """Runs suites by a clock of its own, and keeps what the watcher was told."""

    now: float = 0.0
    calls: list[str] = field(default_factory=list)
    told: list[tuple[Any, ...]] = field(default_factory=list)
    saved: list[list[bool]] = field(default_factory=list)
    setting: Setting = field(default_factory=Setting)
    into: SuiteResult = field(default_factory=lambda: SuiteResult(name="s", summary=""))

    def way(self, name: str, seconds: Callable[[int], float] = lambda _: 1.0) -> Way:
        """A way that does ten operations and takes as long as is said of each of its calls."""

        def measure() -> Sample:
            taken = seconds(self.calls.count(name))
            self.calls.append(name)
            self.now += taken
            return Sample(operations=10, seconds=taken)

        return measure

    def run(self, *comparisons: Comparison, plan: Plan | None = None) -> list[ComparisonResult]:
        return self.run_generator(lambda _: iter(comparisons), plan)

    def run_generator(
        self, compare: Callable[[Setting], Iterator[Comparison]], plan: Plan | None = None
    ) -> list[ComparisonResult]:
        suite = Suite(summary="", compare=compare)
        plan = plan or Plan(least_rounds=2, most_rounds=2)
        clock = lambda: self.now  # noqa: E731
        run_suite("s", suite, self.setting, plan, self.into, self.save, self, clock=clock)
        return self.into.comparisons

    def save(self) -> None:
        self.saved.append([each.complete for each in self.into.comparisons])

    def begin(self, suite: str, comparison: Comparison) -> None:
        self.told.append(("begin", suite, comparison.name))

    def rounds(self, fraction: float, seconds_left: float) -> None:
        self.told.append(("rounds", fraction, seconds_left))

    def end(self, suite: str, result: ComparisonResult) -> None:
        self.told.append(("end", suite, result.name))

    def skipped(self, suite: str, skipped: Skipped) -> None:
        self.told.append(("skipped", suite, skipped.what))


def comparison(ways: Mapping[str, Way], **more: Any) -> Comparison:
    return Comparison(**{"name": "c", "operation": "op", "ways": ways, "baseline": "b", **more})

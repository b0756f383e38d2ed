"""Sets two results files side by side: what both measured, what differs, what only one has.

A figure of another machine says as much about that machine as about the way. The ratio to the
baseline was measured on one machine each, so it is what can be compared between two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from uspace_drv.bench.results import (
    ComparisonResult,
    Interval,
    Results,
    SuiteResult,
    WayResult,
)
from uspace_drv.bench.statistics import figures, interval, kind_of, quotient, round_ratios
from uspace_drv.bench.suite import Figure
from uspace_drv.errors import LayoutError


@dataclass(frozen=True, kw_only=True)
class WayBeside:
    """One way that both files have; `change` is B by A of the figure itself.

    `ratio_a` and `ratio_b` are the way by its baseline in each file, `ratio_change` B by A of
    those: with 1 inside its interval, nothing has changed beside the baseline. They are None for
    the baseline, and where the files have different ones. `notes` say why to doubt either.
    """

    suite: str
    comparison: str
    operation: str
    way: str
    is_baseline: bool
    figure: Figure
    a: Interval
    b: Interval
    change: Interval
    ratio_a: Interval | None
    ratio_b: Interval | None
    ratio_change: Interval | None
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class FactBeside:
    """A fact in which the machines differ; None where one does not tell it."""

    name: str
    a: str | None
    b: str | None


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Two files side by side; what only one has is told in words, "suite, comparison, way"."""

    ways: list[WayBeside]
    facts: list[FactBeside]
    only_a: list[str]
    only_b: list[str]


_Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class _Measured:
    """A way of one file and where it stands there."""

    suite: SuiteResult
    comparison: ComparisonResult
    way: WayResult

    @property
    def values(self) -> list[float]:
        return figures(self.way, self.comparison.figure)

    @property
    def is_baseline(self) -> bool:
        return self.way.name == self.comparison.baseline

    @property
    def ratios(self) -> list[float]:
        """The way by its baseline, round by round; none for the baseline itself."""
        result = self.comparison
        base = next((each for each in result.ways if each.name == result.baseline), None)
        if base is None or self.is_baseline:
            return []
        return round_ratios(self.way, base, result.figure)


def compare_results(a: Results, b: Results, *, names: tuple[str, str] = ("A", "B")) -> Compared:
    """Set `b` beside `a`, way by way, in the order of `a`.

    The same way is one of the same name in comparisons of the same name and the same figure. Rounds
    that no figure can be made of, and a baseline that is none of the ways, are a `LayoutError` that
    says where: in which file (by its name in `names`), comparison and way.
    """
    for name, results in zip(names, (a, b), strict=True):
        _require_whole(name, results)
    ours, theirs = dict(_measured(a)), dict(_measured(b))
    both = [key for key in ours if key in theirs]
    return Compared(
        ways=[_beside(ours[key], theirs[key]) for key in both],
        facts=_facts(a, b, {(ours[key].suite.machine, theirs[key].suite.machine) for key in both}),
        only_a=[_words(key) for key in ours if key not in theirs],
        only_b=[_words(key) for key in theirs if key not in ours],
    )


def _require_whole(name: str, results: Results) -> None:
    for key, each in _measured(results):
        where = f"{name}: damaged: {_words(key)}"
        result = each.comparison
        if all(way.name != result.baseline for way in result.ways):
            raise LayoutError(
                f"{where}: no way of its comparison is the baseline, {result.baseline!r}"
            )
        try:
            figures(each.way, result.figure)
        except LayoutError as error:
            raise LayoutError(f"{where}: {error}") from error


def _measured(results: Results) -> Iterator[tuple[_Key, _Measured]]:
    for suite in results.suites:
        for comparison in suite.comparisons:
            for way in comparison.ways:
                if way.rounds:
                    key = (suite.name, comparison.name, way.name, comparison.figure)
                    yield key, _Measured(suite, comparison, way)


def _beside(a: _Measured, b: _Measured) -> WayBeside:
    same = a.comparison.baseline == b.comparison.baseline
    ratios_a, ratios_b = a.ratios if same else [], b.ratios if same else []
    return WayBeside(
        suite=a.suite.name,
        comparison=a.comparison.name,
        operation=a.comparison.operation,
        way=a.way.name,
        is_baseline=a.is_baseline,
        figure=kind_of(a.comparison.figure),
        a=interval(a.values),
        b=interval(b.values),
        change=quotient(b.values, a.values),
        ratio_a=interval(ratios_a) if ratios_a else None,
        ratio_b=interval(ratios_b) if ratios_b else None,
        ratio_change=quotient(ratios_b, ratios_a) if ratios_a and ratios_b else None,
        notes=[*_notes("A", a.comparison), *_notes("B", b.comparison)],
    )


def _notes(name: str, result: ComparisonResult) -> Iterator[str]:
    if not result.complete:
        yield f"{name}: was interrupted"
    yield from (f"{name}: {note}" for note in result.noise.notes)


def _facts(a: Results, b: Results, pairs: set[tuple[int, int]]) -> list[FactBeside]:
    """The facts that differ between the machines on which the same was measured, each once."""
    found: dict[FactBeside, None] = {}
    for one, other in sorted(pairs):
        ours, theirs = _machine(a, one), _machine(b, other)
        for name in {**ours, **theirs}:
            if ours.get(name) != theirs.get(name):
                found[FactBeside(name=name, a=ours.get(name), b=theirs.get(name))] = None
    return list(found)


def _machine(results: Results, index: int) -> dict[str, str]:
    """The facts of one machine; none if the file does not have it."""
    return results.machines[index].facts if 0 <= index < len(results.machines) else {}


def _words(key: _Key) -> str:
    suite, comparison, way, figure = key
    return f"{suite}, {comparison}, {way} ({figure})"

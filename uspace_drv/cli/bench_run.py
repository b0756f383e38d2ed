"""One run of `uspace bench`: chooses suites, measures them here or in guests, keeps what it has."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path

import click

from uspace_drv.bench.fingerprint import fingerprint
from uspace_drv.bench.guest import ROLE, EventLines, GuestRun
from uspace_drv.bench.installed import InstalledSuite, installed_suites
from uspace_drv.bench.noise import FEW
from uspace_drv.bench.report import write_report
from uspace_drv.bench.results import Results, Skipped, SuiteResult, as_json
from uspace_drv.bench.runner import Plan, Watcher, run_suite
from uspace_drv.bench.setting import Setting
from uspace_drv.bench.suite import Suite
from uspace_drv.cli.bench_file import ResultsFile
from uspace_drv.cli.bench_show import show_files, show_results
from uspace_drv.cli.bench_signals import Interrupts
from uspace_drv.cli.bench_watch import teller
from uspace_drv.cli.group import started_as
from uspace_drv.cli.output import show_json
from uspace_drv.errors import HostError, UspaceError

SECONDS, QUICK_SECONDS = 30.0, 3.0
LONGEST_SAMPLE = 1.0
SAMPLES = 50
"""A comparison has time for so many samples, of all ways."""

PATIENCE, QUICK_PATIENCE = 7200.0, 1200.0
"""Seconds that a guest may take for a suite, boot included."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the command line asked for; `names` empty for all suites."""

    names: Sequence[str] = ()
    quick: bool = False
    vm: bool = False
    device: str | None = None
    beside: str | None = None
    via: str | None = None
    unsafe_dma_without_iommu: bool = False
    seconds: float | None = None
    output: Path | None = None
    as_json: bool = False
    lines: bool = False

    @property
    def time(self) -> float:
        """Seconds for a comparison."""
        return self.seconds or (QUICK_SECONDS if self.quick else SECONDS)

    def plan(self) -> Plan:
        """Return how long to measure."""
        return Plan(least_rounds=FEW, seconds=self.time)

    def setting(self) -> Setting:
        """Return where to measure; samples are as long as the time for a comparison allows."""
        return Setting(
            device=self.device, beside=self.beside, via=self.via, quick=self.quick,
            seconds=min(LONGEST_SAMPLE, self.time / SAMPLES),
            unsafe_dma_without_iommu=self.unsafe_dma_without_iommu,
        )  # fmt: skip

    def words(self) -> list[str]:
        """Return what a guest has to be told of it."""
        return [*(["--quick"] if self.quick else []), "--seconds", f"{self.time:g}"]


def measure(wishes: Wishes) -> None:
    """Measure, print tables, write the report; the first failure of a suite is raised at the end.

    On Ctrl-C and SIGTERM, too, all that was measured is saved and shown.
    """
    chosen = chosen_suites(wishes.names)
    started = datetime.now().astimezone()
    results = Results(started=started.isoformat("T", "seconds"), command=_command())
    base = wishes.output or Path(f"uspace-bench-{started:%Y%m%d-%H%M%S}")
    file = ResultsFile(base, results)
    file.start()
    with Interrupts() as interrupts:
        one = _Run(wishes, results, file, interrupts)
        try:
            one.measure_all(chosen)
        except BaseException as leaving:
            one.end(leaving)
            raise
        one.end(None)


def chosen_suites(names: Sequence[str]) -> list[InstalledSuite]:
    """Return the suites of these names, or all; a `UsageError` says which one may be meant.

    One that was named but cannot be loaded is a `HostError`.
    """
    found = {each.name: each for each in installed_suites()}
    for name in names:
        if name not in found:
            close = get_close_matches(name, [*found, "list", "compare", "report"], 1)
            there = ", ".join(found) or "none"
            hint = f"did you mean {close[0]}?" if close else f"there are: {there}"
            raise click.UsageError(f"no suite is called {name!r}; {hint}")
        if found[name].suite is None:
            raise HostError(f"suite {name} cannot be loaded: {found[name].reason}")
    return [found[name] for name in dict.fromkeys(names)] or list(found.values())


@dataclass
class _Run:
    wishes: Wishes
    results: Results
    file: ResultsFile
    interrupts: Interrupts
    failures: list[UspaceError] = field(default_factory=list)
    start: float = field(default_factory=time.monotonic)
    say: Callable[[str], object] = lambda words: click.echo(words, err=True)
    builds: bool = False

    def measure_all(self, chosen: list[InstalledSuite]) -> None:
        """Measure one suite after the other; what one suffers from does not stop the others."""
        self.results.machines.append(fingerprint(self.wishes.device))
        if self.wishes.vm:
            here = self.results.machines[0]
            here.facts = {ROLE: "host of the guests", **here.facts}
        with self._watching([each.name for each in chosen]) as watcher:
            for each in chosen:
                self._try(each, watcher)
                self._save()

    def _try(self, found: InstalledSuite, watcher: Watcher) -> None:
        """Measure a suite; what is no `UspaceError` is a mistake in it, and says in which one."""
        try:
            self._measure(found, watcher)
        except UspaceError as failure:
            self.interrupts.check(failure)
            self._note(found.name, failure)
        except Exception as mistake:
            self.interrupts.check(mistake)
            mistake.add_note(f"in suite {self._place(found.name)}")
            raise
        else:
            into = self._suite(found.name)
            if into is None or not (into.comparisons or into.skipped):
                self.say(f"{found.name}: measured nothing")

    def end(self, leaving: BaseException | None) -> None:
        """Save, show and report what there is; raise what failed, or add it to `leaving`."""
        self.results.complete = leaving is None and not self.failures
        problems = list({str(each): each for each in self.failures}.values())
        if self._is_worth_keeping():
            self._keep_and_show(problems)
            kept = "what was measured is kept, marked as incomplete"
        else:
            self._discard(failed=bool(problems or leaving))
            kept = "nothing was measured, so nothing is kept"
        if leaving is not None:
            is_signal = isinstance(leaving, KeyboardInterrupt | SystemExit)
            click.echo(f"ended early{'' if is_signal else ', by a failure'}: {kept}", err=True)
            if isinstance(leaving, SystemExit):  # nobody else says it
                click.echo("interrupted", err=True)
            for problem in problems:
                leaving.add_note(str(problem))
        elif problems:
            first, *others = problems
            for problem in others:
                first.add_note(str(problem))
            raise first

    def _is_worth_keeping(self) -> bool:
        """Whether anything was measured; the host of a guest wants to know why not."""
        suites = self.results.suites
        if self.wishes.lines:
            return any(suite.comparisons or suite.skipped for suite in suites)
        comparisons = (each for suite in suites for each in suite.comparisons)
        return any(each.complete or any(way.rounds for way in each.ways) for each in comparisons)

    def _discard(self, *, failed: bool) -> None:
        self.file.discard()
        if self.wishes.as_json:
            show_json(as_json(self.results))
        if not failed:
            click.echo("nothing was measured, so nothing is written", err=True)

    def _keep_and_show(self, problems: list[UspaceError]) -> None:
        self.results.seconds = time.monotonic() - self.start
        kept, problem = self.file.finish()
        if problem is not None:
            problems.append(problem)
        if self.wishes.lines:
            return
        written: list[Path] = []
        try:
            # First what goes to files: whoever reads the tables may close the pipe.
            if kept is not None:
                written = self._report(kept, problems)
        finally:
            if self.wishes.as_json:
                show_json(as_json(self.results))
            else:
                show_results(self.results)
        if written:
            show_files(written, err=self.wishes.as_json)

    def _report(self, kept: Path, problems: list[UspaceError]) -> list[Path]:
        base = kept.with_name(kept.name.removesuffix(".json"))
        try:
            return [kept, *write_report(self.results, base)]
        except HostError as failure:
            problems.append(failure)
            return [kept]

    def _measure(self, found: InstalledSuite, watcher: Watcher) -> None:
        if found.suite is None:
            skipped = Skipped(what="all of it", why=f"cannot be loaded: {found.reason}")
            self._add(found.name, "broken").skipped.append(skipped)
            watcher.skipped(found.name, skipped)
        elif self.wishes.vm:
            self._measure_in_guest(found.name, found.suite, watcher)
        else:
            into = self._add(found.name, found.suite.summary)
            run_suite(
                found.name, found.suite, self.wishes.setting(), self.wishes.plan(), into,
                self._save, watcher,
            )  # fmt: skip

    def _measure_in_guest(self, name: str, suite: Suite, watcher: Watcher) -> None:
        self.say(f"{name}: in a guest, which takes a minute to boot")
        GuestRun(
            name=name, machine=suite.guest, words=self.wishes.words(), via=self.wishes.via,
            timeout=QUICK_PATIENCE if self.wishes.quick else PATIENCE, tell=self._tell_build,
        ).measure(self.results, watcher)  # fmt: skip

    def _tell_build(self, line: str) -> None:
        if not self.builds:
            self.say("the kernel of the guests is built first, once, for five to fifteen minutes")
        self.builds = True
        self.say(f"  kernel: {line}")

    def _add(self, name: str, summary: str) -> SuiteResult:
        made = SuiteResult(name=name, summary=summary, device=self.wishes.device or "")
        self.results.suites.append(made)
        return made

    def _note(self, name: str, failure: UspaceError) -> None:
        """Write into the results that a suite came to no end, and keep the error for later."""
        self.failures.append(failure)
        self.say(f"{name}: failed")
        into = self._suite(name) or self._add(name, "failed")
        into.skipped.append(Skipped(what="what was left of it", why=str(failure)))

    def _suite(self, name: str) -> SuiteResult | None:
        return next((each for each in self.results.suites if each.name == name), None)

    def _place(self, name: str) -> str:
        """Return the name of a suite, and of its comparison that was not done."""
        into = self._suite(name)
        last = into.comparisons[-1:] if into else []
        return ", ".join([name, *(each.name for each in last if not each.complete)])

    def _save(self) -> None:
        self.results.seconds = time.monotonic() - self.start
        self.file.save()

    @contextmanager
    def _watching(self, names: list[str]) -> Iterator[Watcher]:
        if self.wishes.lines:
            yield EventLines(click.echo)
            return
        with teller(names) as watcher:
            before, self.say = self.say, watcher.say
            try:
                yield watcher
            finally:
                self.say = before


def _command() -> list[str]:
    """Return the command line as it can be typed again, however this program was started."""
    return [Path(started_as()).name, *sys.argv[1:]]

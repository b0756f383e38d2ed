"""Suites that take no time, in the place of those that are installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from uspace_drv.bench import Comparison, GuestMachine, Sample, Setting, Suite
from uspace_drv.bench.installed import InstalledSuite
from uspace_drv.bench.results import Results, write_whole

Act = Callable[[], object]


def _nothing() -> None:
    """The usual act in the middle of a suite."""


@dataclass
class FakeSuites:
    """What is installed; `settings` are those that suites were given."""

    machine: dict[str, str]
    installed: list[InstalledSuite] = field(default_factory=list)
    settings: list[Setting] = field(default_factory=list)

    def add(
        self, name: str, *, skip: str = "", act: Act = _nothing, guest: GuestMachine | None = None
    ) -> None:
        """Install a suite whose user space takes twice the time; `act` runs in a second one."""

        def compare(setting: Setting) -> Iterator[Comparison]:
            self.settings.append(setting)
            if skip:
                setting.skip(skip, "not here")
            yield _comparison("work", _nothing)
            if act is not _nothing:
                yield _comparison("more work", act)

        suite = Suite(summary=f"suite {name}", compare=compare, guest=guest or GuestMachine())
        self.installed.append(InstalledSuite(name, f"fake.{name}:suite", suite, None))

    def add_silent(self, name: str, *, act: Act = _nothing) -> None:
        """Install one that compares nothing; `act` runs instead."""

        def compare(_: Setting) -> Iterator[Comparison]:
            act()
            yield from ()

        suite = Suite(summary=f"suite {name}", compare=compare)
        self.installed.append(InstalledSuite(name, f"fake.{name}:suite", suite, None))

    def add_broken(self, name: str) -> None:
        """Install one that cannot be imported."""
        reason = f"ImportError: no lib{name}"
        self.installed.append(InstalledSuite(name, f"fake.{name}:suite", None, reason))


def _comparison(name: str, act: Act) -> Comparison:
    def kernel() -> Sample:
        return Sample(operations=1000, seconds=0.001)

    def user() -> Sample:
        act()
        return Sample(operations=1000, seconds=0.002)

    ways = {"kernel": kernel, "user": user}
    return Comparison(name=name, operation="call", ways=ways, baseline="kernel")


def write_fake_report(results: Results, base: Path) -> list[Path]:
    """Write the three files without drawing anything."""
    paths = [base.with_name(base.name + suffix) for suffix in (".html", ".png", "-dark.png")]
    for path in paths:
        write_whole(path, ", ".join(suite.name for suite in results.suites).encode())
    return paths

"""Finds suites by entry point, those of plugins and the framework's own, the broken ones too."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from uspace_drv.bench.suite import Suite

GROUP = "uspace_drv.benchmarks"
"""The entry-point group; each entry names a `Suite`."""


@dataclass(frozen=True)
class InstalledSuite:
    """An entry point, and the suite behind it or the reason why there is none."""

    name: str
    origin: str
    suite: Suite | None
    reason: str | None


def installed_suites() -> list[InstalledSuite]:
    """Every suite that is installed, by name."""
    return [_load(entry) for entry in sorted(entry_points(group=GROUP), key=lambda each: each.name)]


def _load(entry: EntryPoint) -> InstalledSuite:
    try:
        suite = entry.load()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin is foreign code; its reason is shown
        return InstalledSuite(entry.name, entry.value, None, f"{type(error).__name__}: {error}")
    if not isinstance(suite, Suite):
        reason = f"{entry.value} is a {type(suite).__name__}, not a uspace_drv.bench.Suite"
        return InstalledSuite(entry.name, entry.value, None, reason)
    return InstalledSuite(entry.name, entry.value, suite, None)

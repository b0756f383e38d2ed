"""Print what ran where, from the JUnit results of each tier, and fail on what did not pass.

usage: tally.py RESULTS TIER=LABEL...   (reads RESULTS/*.xml and RESULTS/failed: failed steps)

Tiers that are named must be there; others are shown by the names of their files.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as Xml

IMPOSSIBLE = ("this kernel ", "this IOMMU ")
"""How the reasons begin of what cannot be there, however hard one tries."""


@dataclass(frozen=True)
class Tier:
    """One pytest run; a skip counts as a failure, for nothing may be left out silently.

    What a test finds that this kernel or its IOMMU cannot do is told apart, by how its reason
    begins: it is no failure, and it is not counted as passed.
    """

    label: str
    passed: int
    failed: int
    skips: tuple[str, ...]
    impossible: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = [f"{self.passed} passed"]
        counts += [f"{self.failed} failed"] if self.failed else []
        counts += [f"{len(self.skips)} skipped unexpectedly"] if self.skips else []
        counts += [f"{len(self.impossible)} impossible there"] if self.impossible else []
        lines = [
            f"{self.label}: {', '.join(counts)}",
            *(f"    skipped {skip}" for skip in self.skips),
            *(f"    impossible {skip}" for skip in self.impossible),
        ]
        return "\n".join(lines)


def read_tier(path: Path, label: str, modules: tuple[str, ...] = ("",)) -> Tier:
    """Read one result file; a run that left none, or ran nothing, is one failure.

    Only of tests in modules that begin so, where `modules` are named.
    """
    try:
        cases = list(Xml.parse(path).iter("testcase"))
    except (OSError, Xml.ParseError):
        return Tier(f"{label} (left no result)", 0, 1, ())
    ran_nothing = not cases
    cases = [case for case in cases if case.get("classname", "").startswith(modules)]
    every = [case for case in cases if case.find("skipped") is not None]
    impossible = tuple(_skip(case) for case in every if _reason(case).startswith(IMPOSSIBLE))
    skips = tuple(_skip(case) for case in every if not _reason(case).startswith(IMPOSSIBLE))
    bad = [case for case in cases if {"failure", "error"} & {child.tag for child in case}]
    failed = len(bad) or int(ran_nothing)
    return Tier(label, len(cases) - len(bad) - len(every), failed, skips, impossible)


def _skip(case: Xml.Element) -> str:
    return f"{case.get('classname')}::{case.get('name')}: {_reason(case)}"


def _reason(case: Xml.Element) -> str:
    skipped = case.find("skipped")
    return skipped.get("message", "") if skipped is not None else ""


def main(arguments: list[str]) -> int:
    """Print a line for each tier and each failed step, then the sums; return the exit code."""
    results = Path(arguments[0])
    pairs = [argument.partition("=")[::2] for argument in arguments[1:]]
    labels = dict(pairs)
    others = {path.stem for path in results.glob("*.xml")} - set(labels)
    labels |= {name: f"in the guest: {name.replace('.', ', ')}" for name in sorted(others)}
    tiers = [read_tier(results / f"{name}.xml", label) for name, label in labels.items()]
    note = results / "failed"
    steps = note.read_text().splitlines() if note.exists() else []
    for line in [*(f"{step}: this step failed" for step in steps), *map(str, tiers)]:
        print(line)
    failed = sum(tier.failed + len(tier.skips) for tier in tiers)
    # A step may fail though each of its tests passed: a check, a warning, a guest that hung.
    failed = max(failed, len(steps))
    print(f"{sum(tier.passed for tier in tiers)} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Check that each point of `uspace uapi` was proven in this run: that its test passed in a guest.

usage: points.py RESULTS   (reads RESULTS/*.xml; exit code 1 if a test of a point passed nowhere)
"""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree as Xml

from uspace_drv.testing.uapi_points import POINTS

HOST = {"virtual", "socket", "guest"}
"""Tiers that run on no guest's kernel."""


def passed_tests(results: Path) -> set[tuple[str, str]]:
    """Return module and function of every test that passed in a guest."""
    paths = (path for path in results.glob("*.xml") if path.stem not in HOST)
    cases = (case for path in paths for case in Xml.parse(path).iter("testcase"))
    return {
        (_module(case.get("classname", "")), case.get("name", "").partition("[")[0])
        for case in cases
        if not {"failure", "error", "skipped"} & {child.tag for child in case}
    }


def _module(classname: str) -> str:
    """Return the module of a test; the class that it may be in has a capital letter."""
    return ".".join(word for word in classname.split(".") if not word[:1].isupper())


def main(arguments: list[str]) -> int:
    """Print the score, and each point that was not proven."""
    passed = passed_tests(Path(arguments[0]))
    points = [point for group in POINTS.values() for point in group]
    wanted = [point for point in points if point.counts]
    missing = []
    for point in wanted:
        file, _, function = (point.test or "").partition("::")
        if (file.removesuffix(".py").replace("/", "."), function) not in passed:
            missing.append(f"{point.name}: {point.test} passed in no guest")
    for line in missing:
        print(line)
    print(
        f"the kernel's interface: {len(wanted) - len(missing)} of {len(points)} points proven here"
    )
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

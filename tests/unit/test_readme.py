"""The code of the README and of the guide is run as it is printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from uspace_drv.bench import Setting

ROOT = Path(__file__).parents[2]


def blocks(page: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def printed(page: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": page}
    for block in blocks(page):
        # It is our own text, and stands for itself: our __future__ is not its.
        exec(compile(block, page, "exec", dont_inherit=True), names)
    return names


@pytest.mark.parametrize(
    ("page", "name"),
    [
        ("README.md", "test_factorial"),
        ("README.md", "test_conformance"),
        ("docs/guide.md", "test_total"),
        ("docs/guide.md", "test_conformance"),
    ],
)
def test_what_is_printed_works(page: str, name: str) -> None:
    printed(page)[name]()


def test_what_the_page_of_nvme_prints_works(capsys: pytest.CaptureFixture[str]) -> None:
    names = printed("drivers/nvme/README.md")
    assert bytes(names["found"]) == bytes(names["np"].arange(1024, dtype="u4"))
    assert capsys.readouterr().out.endswith(f" {64 << 20}\n")


def test_the_suite_that_is_printed_measures() -> None:
    suite = printed("docs/benchmarks.md")["suite"]
    for comparison in suite.compare(Setting(seconds=0.01)):
        for way in comparison.ways.values():
            assert way().figure(comparison.figure) > 0


def test_the_budgets_are_kept() -> None:
    counts = [
        len([line for line in block.splitlines() if line.strip()]) for block in blocks("README.md")
    ]
    table, driver, model, test, _ = counts
    assert (table <= 25, driver <= 30, model <= 25, test <= 20) == (True,) * 4

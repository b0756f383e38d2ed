"""The code of the README and of the guide is run as it is printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def blocks(page: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def printed(page: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": page}
    for block in blocks(page):
        exec(compile(block, page, "exec"), names)  # it is our own text
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


def test_the_budgets_are_kept() -> None:
    counts = [
        len([line for line in block.splitlines() if line.strip()]) for block in blocks("README.md")
    ]
    table, driver, model, test = counts
    assert (table <= 25, driver <= 30, model <= 25, test <= 20) == (True,) * 4

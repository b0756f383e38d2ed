"""The README's driver, model and tests are run as they are printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="module")
def printed() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "readme"}
    for block in re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, str(README), "exec"), names)  # it is our own text
    return names


@pytest.mark.parametrize("name", ["test_factorial", "test_conformance"])
def test_what_is_printed_works(printed: dict[str, Any], name: str) -> None:
    printed[name]()


def test_the_budgets_are_kept() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    lines = [len([line for line in block.splitlines() if line.strip()]) for block in blocks]
    table, driver, model, test = lines
    assert (table <= 25, driver <= 30, model <= 25, test <= 20) == (True,) * 4

"""The size budgets of the project: short files, short functions, few public names."""

from __future__ import annotations

import ast
from pathlib import Path
from statistics import median, quantiles

import uspace_drv

ROOT = Path(__file__).parents[2]
SOURCES = [path for top in ("uspace_drv", "drivers") for path in (ROOT / top).rglob("*.py")]


def function_lengths(path: Path) -> dict[str, int]:
    functions = (
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": (node.end_lineno or 0)
        - node.lineno
        + 1
        for node in functions
    }


def test_files_are_short() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert [path for path, lines in lengths.items() if lines > 400] == []
    assert median(lengths.values()) <= 150


def test_functions_are_short() -> None:
    lengths = {name: lines for path in SOURCES for name, lines in function_lengths(path).items()}
    assert [name for name, lines in lengths.items() if lines > 60] == []
    assert median(lengths.values()) <= 10
    assert quantiles(lengths.values(), n=10)[-1] <= 30


def test_every_module_says_what_it_is_for() -> None:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert [path for path, tree in trees.items() if not ast.get_docstring(tree)] == []


def test_public_names_are_few_and_all_there() -> None:
    names = dir(uspace_drv)
    assert len(names) <= 40
    assert [name for name in names if not hasattr(uspace_drv, name)] == []

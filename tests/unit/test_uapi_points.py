"""The table behind `uspace uapi` says what is so: names resolve, tests exist and run in guests."""

import ast
import json
import re
from fnmatch import fnmatch
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from uspace_drv.backends.vfio import uapi as vfio
from uspace_drv.backends.vfio.uapi.features import Feature
from uspace_drv.cli import main
from uspace_drv.iommufd.uapi.requests import Request as IommufdRequest
from uspace_drv.testing.uapi_points import POINTS, Point

ROOT = Path(__file__).parents[2]
ALL = [point for group in POINTS.values() for point in group]
by_name = pytest.mark.parametrize("point", ALL, ids=lambda point: point.name)


@cache
def functions_of(file: str) -> dict[str, str]:
    """The test functions of a file and the whole text, by name."""
    text = (ROOT / file).read_text()
    return {
        node.name: text for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)
    }


def test_there_are_sixty() -> None:
    assert {kind: len(group) for kind, group in POINTS.items()} == {
        "container and group": 7, "device": 14, "device feature": 12, "type1": 6, "iommufd": 21,
    }  # fmt: skip
    assert len({point.name for point in ALL}) == 60


@by_name
def test_what_wraps_it_is_there(point: Point) -> None:
    if point.wrapped is None:
        assert point.unsupported
        return
    words = point.wrapped.split(".")
    module = next(
        found
        for size in range(len(words), 0, -1)
        if (found := _module(".".join(words[:size]))) is not None
    )
    thing: object = module
    for word in words[len(module.__name__.split(".")) :]:
        thing = getattr(thing, word)
    assert thing is not None


def _module(name: str) -> ModuleType | None:
    try:
        return import_module(name)
    except ModuleNotFoundError:
        return None


@by_name
def test_its_test_is_one_of_the_guests(point: Point) -> None:
    if point.test is None:
        assert point.unsupported
        return
    file, _, name = point.test.partition("::")
    text = functions_of(file)[name]
    run = re.findall(r"tests/\S+\.py", (ROOT / "scripts/in-guest").read_text())
    assert any(fnmatch(file, each) for each in run)
    assert re.search(r"mark\.via\(|parametrize_targets", text)


@by_name
def test_its_number_is_known(point: Point) -> None:
    numbers = {f"VFIO_{each.name}" for each in vfio.Request}
    numbers |= {f"VFIO_{each.name}" for each in vfio.Type1Request}
    numbers |= {f"IOMMU_{each.name}" for each in IommufdRequest}
    numbers |= {f"VFIO_DEVICE_FEATURE_{each.name}" for each in Feature}
    assert point.name in numbers


def test_the_score() -> None:
    result = CliRunner().invoke(main, ["uapi", "--json"])
    found = json.loads(result.output)
    assert found["of"] == 60
    assert found["score"] == sum(bool(row["wrapped"] and row["test"]) for row in found["points"])
    assert found["score"] >= 50
    shown = CliRunner().invoke(main, ["uapi"]).output
    assert f"{found['score']} of 60" in shown
    assert all(point.name in shown for point in ALL)

"""Suites found by entry point: those that load, and the reasons of those that do not."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from types import SimpleNamespace
from typing import Any

import pytest

from uspace_drv.bench import Suite
from uspace_drv.bench import installed as installed_module
from uspace_drv.bench.installed import GROUP, installed_suites

GOOD = Suite(summary="good", compare=lambda _: iter(()))


def install(monkeypatch: pytest.MonkeyPatch, **loaders: Any) -> None:
    def found(*, group: str) -> list[SimpleNamespace]:
        assert group == GROUP
        return [
            SimpleNamespace(name=name, value=f"plugin:{name}", load=load)
            for name, load in loaders.items()
        ]

    monkeypatch.setattr(installed_module, "entry_points", found)


def fail(error: BaseException) -> Any:
    def load() -> None:
        raise error

    return load


def test_suites_come_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, zebra=lambda: GOOD, ant=lambda: GOOD)
    found = installed_suites()
    assert [each.name for each in found] == ["ant", "zebra"]
    assert [(each.suite, each.reason) for each in found] == [(GOOD, None)] * 2
    assert found[0].origin == "plugin:ant"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModuleNotFoundError("No module named 'x'"), "ModuleNotFoundError: No module named 'x'"),
        (SystemExit(3), "SystemExit: 3"),
        (ValueError("bad"), "ValueError: bad"),
    ],
)
def test_one_that_cannot_be_loaded_keeps_its_reason(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, reason: str
) -> None:
    install(monkeypatch, broken=fail(error), good=lambda: GOOD)
    broken, good = installed_suites()
    assert (broken.suite, broken.reason) == (None, reason)
    assert good.suite is GOOD


def test_ctrl_c_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, broken=fail(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        installed_suites()


def test_what_is_no_suite_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, wrong=lambda: installed_suites)
    (found,) = installed_suites()
    assert found.suite is None
    assert found.reason == "plugin:wrong is a function, not a uspace_drv.bench.Suite"


def test_an_entry_point_is_what_the_system_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("gone", "no.such.module:suite", GROUP)
    monkeypatch.setattr(installed_module, "entry_points", lambda **_: [entry])
    (found,) = installed_suites()
    assert found.reason == "ModuleNotFoundError: No module named 'no'"

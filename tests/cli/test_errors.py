"""Errors: one line, the notes below it, exit code 1; a traceback only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from uspace_drv.cli import info
from uspace_drv.errors import DeviceGone

Uspace = Callable[..., Result]


def test_an_error_is_one_line(uspace: Uspace) -> None:
    result = uspace("info", "nonsense")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: 'nonsense' is not a device address; expected one of")
    assert result.stderr.count("\n") == 1


def test_the_librarys_words_are_all(uspace: Uspace) -> None:
    result = uspace("dump", "ffff:ff:1f.7")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ffff:ff:1f.7: no such PCI function in /sys")


def fail(*_: object) -> None:
    error = DeviceGone("0000:00:04.0: is gone")
    error.add_note("then, while leaving: reset: HostError: no")
    raise error


def test_notes_are_indented_below(uspace: Uspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(info, "_of_model", fail)
    expected = "error: 0000:00:04.0: is gone\n  then, while leaving: reset: HostError: no\n"
    assert uspace("info", "virtual:edu").stderr == expected


def test_debug_shows_where(
    uspace: Uspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(info, "_of_model", fail)
    for words in (["--debug"], []):
        monkeypatch.setenv("USPACE_DEBUG", "0" if words else "1")
        result = uspace(*words, "info", "virtual:edu")
        assert result.exit_code == 1
        assert "Traceback" in result.stderr
        assert "DeviceGone: 0000:00:04.0: is gone" in result.stderr


FAULTY = '''
"""A driver with a mistake."""
from uspace_drv import Driver, Plugin
from uspace_drv.models import DeviceModel, PciIdentity

class Faulty(Driver):
    def deep(self) -> int:
        return self._deeper()

    def _deeper(self) -> int:
        return {}["missing"]

class FaultyModel(DeviceModel):
    identity = PciIdentity(0x1234, 2)

plugin = Plugin(Faulty, model=FaultyModel)
'''


def test_a_mistake_in_a_verb_shows_the_verb(
    uspace: Uspace, add_plugin: Callable[[str, str], Path]
) -> None:
    add_plugin("faulty", FAULTY)
    result = uspace("run", "faulty", "virtual:faulty", "deep")
    frames = [line.split()[-1] for line in result.stderr.splitlines() if line.startswith("  File")]
    assert (result.exit_code, frames) == (1, ["deep", "_deeper"])
    assert result.stderr.endswith("\nKeyError: 'missing'\n")
    whole = uspace("--debug", "run", "faulty", "virtual:faulty", "deep")
    assert (whole.exit_code, "click/core.py" in whole.stderr) == (1, True)


def test_ctrl_c_while_a_command_works(uspace: Uspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "_of_model", interrupt)
    result = uspace("info", "virtual:edu")
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")

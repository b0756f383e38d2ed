"""Errors: one line, the notes below it, exit code 1; a traceback only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable

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


def test_ctrl_c_while_a_command_works(uspace: Uspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "_of_model", interrupt)
    result = uspace("info", "virtual:edu")
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")

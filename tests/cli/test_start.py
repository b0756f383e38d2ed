"""Starting: fast, helpful, and quiet when nobody listens any more."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from uspace_drv.cli.commands import COMMANDS
from uspace_drv.cli.group import as_typed, started_as

Uspace = Callable[..., Result]
USPACE = [sys.executable, "-P", "-m", "uspace_drv"]


def run(*words: str, python: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-c", python] if python else [*USPACE, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_help_imports_nothing_heavy() -> None:
    result = run(
        python="import sys\n"
        "from uspace_drv.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print('loaded:', *sys.modules)"
    )
    loaded = result.stdout.partition("loaded:")[2].split()
    assert "click" in loaded
    heavy = ("numpy", "rich", "asyncio", "cffi", "uspace_drv.plugins", "uspace_drivers")
    assert [name for name in heavy if name in loaded] == []


def test_help_names_every_command_and_shows_examples() -> None:
    text = run("--help").stdout
    assert all(f"  {name} " in text for name in COMMANDS)
    assert "uspace run edu virtual:edu factorial 5" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(uspace: Uspace, name: str) -> None:
    result = uspace(name, "--help")
    assert result.exit_code == 0
    assert f"Usage: uspace {name}" in result.stdout
    assert "Examples:" in result.stdout
    assert f"    uspace {name}" in result.stdout or f"sudo uspace {name}" in result.stdout


def test_version() -> None:
    assert run("--version").stdout.startswith("uspace, version ")


def test_without_a_command_it_shows_help() -> None:
    result = run()
    assert result.returncode == 2
    assert "Commands:" in result.stdout + result.stderr


def test_a_mistyped_command_is_guessed(uspace: Uspace) -> None:
    result = uspace("lst")
    assert result.exit_code == 2
    assert "no command is called 'lst'; did you mean list?" in result.stderr


def test_a_command_like_no_other_lists_them(uspace: Uspace) -> None:
    assert "there are: demo, list, info" in uspace("xyzzy").stderr


def test_a_mistyped_option_is_named(uspace: Uspace) -> None:
    result = uspace("--debgu", "list")
    assert result.exit_code == 2
    assert "--debgu" in result.stderr


PRINTING = ["list", "drivers --json", "demo", "dump virtual:edu", "run edu virtual:edu load", "-h"]


def shell(words: str, redirection: str) -> subprocess.CompletedProcess[str]:
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", *USPACE, *words.split()]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("words", PRINTING)
def test_output_that_is_closed_or_cannot_be_written(words: str) -> None:
    closed = shell(words, ">&-")
    assert (closed.returncode, closed.stderr) == (0, "")
    full = shell(words, ">/dev/full")
    expected = "error: cannot write to standard output: No space left on device\n"
    assert (full.returncode, full.stderr) == (1, expected)


def test_what_a_verb_prints_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    result = run(
        python="import os, sys\n"
        "from uspace_drv.cli import commands, main\n"
        "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)\n"
        "commands.COMMANDS['say'] = ('values:in_words', '')\n"
        "import click, uspace_drv.cli.values as values\n"
        "values.in_words = click.Command('say', callback=lambda: print('not flushed'))\n"
        "main(['say'])"
    )
    assert result.returncode == 1
    assert result.stderr == "error: cannot write to standard output: No space left on device\n"


def test_input_that_is_closed() -> None:
    result = shell("run edu virtual:edu store @-", "<&-")
    assert result.returncode == 1
    assert result.stderr.startswith("error: cannot read standard input: it is closed")


def test_it_is_called_as_it_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "uspace"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(program)])
    monkeypatch.setenv("PATH", "/usr/bin")
    try:
        started_as.cache_clear()
        assert as_typed("sudo uspace bind; uspace_drv") == "sudo bin/uspace bind; uspace_drv"
        monkeypatch.setenv("PATH", str(program.parent))
        started_as.cache_clear()
        assert started_as() == "uspace"
    finally:
        started_as.cache_clear()


@pytest.mark.parametrize("words", [("list",), ("drivers",), ("run", "edu", "virtual:edu", "load")])
def test_a_closed_pipe_is_no_error_to_speak_of(words: tuple[str, ...]) -> None:
    process = subprocess.Popen([*USPACE, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait(30) == 1

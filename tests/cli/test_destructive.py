"""Verbs that destroy data: they ask on a terminal, and nothing is destroyed where nobody is."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from uspace_drv import Driver
from uspace_drv.cli.run import Verbs
from uspace_drv.verbs import Progress, destructive, is_destructive, loss_of, python_only

done: list[object] = []


class Shredder(Driver):
    """Destroys."""

    @destructive("block {lba} of namespace {namespace} is overwritten")
    def write(self, lba: int, *, namespace: int = 1) -> None:
        """Overwrite a block."""
        done.append(("write", lba, namespace))

    @destructive("all of it is lost", when="write_too")
    def bench(self, write_too: bool = False) -> None:
        done.append(("bench", write_too))

    def copy(self, size: int, *, progress: Progress | None = None) -> int:
        done.append(("copy", progress))
        return size

    @python_only
    def queue(self) -> object:
        return object()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    done.clear()


def run(*words: str) -> Result:
    return CliRunner().invoke(Verbs("shredder", Shredder, "virtual:edu"), words)


def test_without_a_terminal_it_is_refused_before_the_device_is_opened() -> None:
    result = run("write", "0x10")
    assert (result.exit_code, done) == (2, [])
    words = " ".join(result.stderr.split())
    assert "write on virtual:edu: block 16 of namespace 1 is overwritten; nobody" in words
    assert "give --yes" in words


def test_with_yes_nobody_is_asked() -> None:
    assert run("write", "3", "--namespace", "2", "--yes").exit_code == 0
    assert done == [("write", 3, 2)]


def test_only_some_calls_destroy() -> None:
    assert run("bench").exit_code == 0
    assert run("bench", "--write-too").exit_code == 2
    assert run("bench", "--write-too", "--yes").exit_code == 0
    assert done == [("bench", False), ("bench", True)]


def test_help_has_the_option_where_it_means_something() -> None:
    assert "--yes" in run("write", "--help").stdout
    assert "--yes" not in run("copy", "--help").stdout


def test_from_python_nobody_is_asked() -> None:
    assert is_destructive(Shredder.write)
    assert loss_of(Shredder.write, (5,), {}) == "block 5 of namespace 1 is overwritten"
    assert loss_of(Shredder.bench, (), {}) is None
    assert loss_of(Shredder.copy, (5,), {}) is None


def test_progress_is_no_option() -> None:
    assert "progress" not in run("copy", "--help").stdout.lower()
    assert run("copy", "5").stdout == "5\n"
    assert done == [("copy", None)]


def test_what_serves_only_programs_is_no_verb() -> None:
    assert "queue" not in run("--help").stdout
    assert run("queue").exit_code == 2


SLOW = '''
"""A device with a long verb."""
import time
from uspace_drv import Driver, PciId, Plugin
from uspace_drv.models import DeviceModel, PciIdentity
from uspace_drv.verbs import destructive


class Slow(Driver):
    """Takes its time."""

    id_table = [PciId(0x1234, 1)]

    @destructive("everything is lost")
    def copy(self, *, progress=None) -> str:
        for done in range(0, 65, 16):
            progress(done << 20, 64 << 20)
            time.sleep(0.11)
        return "copied"


class SlowModel(DeviceModel):
    identity = PciIdentity(0x1234, 1)


plugin = Plugin(driver=Slow, model=SlowModel)
'''


def on_a_terminal(folder: Path, answer: bytes) -> tuple[int, str, str]:
    """Run `copy` with a terminal for input and errors; returns exit code, output, what it saw."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "uspace_drv", "run", "slow", "virtual:slow", "copy"],
        env={**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "100", "TERM": "xterm"},
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    os.write(ours, answer)
    seen = b""
    try:
        while piece := os.read(ours, 4096):
            seen += piece
    except OSError:  # EIO: it has closed its side
        pass
    os.close(ours)
    output, _ = process.communicate(timeout=30)
    return process.returncode, output.decode(), seen.decode()


def test_somebody_who_agrees_sees_how_far_it_is(add_plugin: Callable[[str, str], Path]) -> None:
    code, output, seen = on_a_terminal(add_plugin("slow", SLOW), b"y\n")
    assert (code, output) == (0, "copied\n")
    assert "copy on virtual:slow: everything is lost. Go on? [y/N]" in seen
    assert "32.0/64.0 MiB" in seen
    assert "MB/s" in seen


def test_somebody_who_does_not_agree_loses_nothing(add_plugin: Callable[[str, str], Path]) -> None:
    code, output, seen = on_a_terminal(add_plugin("slow", SLOW), b"\n")
    assert (code, output) == (1, "")
    assert "Aborted!" in seen

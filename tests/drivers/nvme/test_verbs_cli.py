"""The verbs on the command line: `uspace run nvme`, on a model whose disk is a file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tests.drivers.nvme.data_path_host import until
from uspace_drv.cli import main

MIB = 1 << 20
USPACE = [sys.executable, "-P", "-m", "uspace_drv"]
Run = Callable[..., Result]


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"virtual:nvme?size=8M&medium={tmp_path}/disk"


@pytest.fixture
def nvme(address: str) -> Run:
    """Run a verb with these words."""

    def run(*words: str, stdin: bytes = b"") -> Result:
        command = ["run", "nvme", address, *words]
        return CliRunner().invoke(main, command, input=stdin, prog_name="uspace")

    return run


@pytest.fixture
def server(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A model in another process, at `tmp_path / "socket"`."""
    command = [*USPACE, "serve", "nvme?size=8M", f"{tmp_path}/socket"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout is not None
        server.stdout.readline()
        yield server
        server.terminate()
        server.stdout.read()


@pytest.fixture
def served(server: subprocess.Popen[bytes], tmp_path: Path) -> str:
    """Its address."""
    assert server.poll() is None
    return f"vfio-user:{tmp_path}/socket"


def random_bytes(size: int) -> bytes:
    return np.random.default_rng(size).bytes(size)


def result_of(result: Result) -> dict[str, object]:
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)["result"]
    return found


def is_reading(process: subprocess.Popen[bytes]) -> bool:
    """Whether it sleeps in read() of a pipe; a signal just before that would interrupt nothing."""
    return "pipe" in Path(f"/proc/{process.pid}/wchan").read_text()


def interrupt_reading(process: subprocess.Popen[bytes]) -> None:
    """Send Ctrl-C until it ends: the kernel may hand a signal to a thread that does not read."""
    end = time.monotonic() + 40
    while process.poll() is None and time.monotonic() < end:
        sent = is_reading(process)
        if sent:
            process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(5 if sent else 0.01)


def test_a_table_and_the_same_for_programs(nvme: Run) -> None:
    assert nvme("list").stdout.splitlines() == [
        "id  size     block size  blocks  used     format",
        "1   8.0 MiB  512 B       16384   8.0 MiB  512 B",
    ]
    (found,) = json.loads(nvme("list", "--json").stdout)["result"]
    assert (found["id"], found["size"], found["block_size"]) == (1, 8 * MIB, 512)
    assert (found["used"], found["format"]) == (8 * MIB, "512 B")


def test_facts_with_their_units(nvme: Run) -> None:
    shown = nvme("smart").stdout
    assert "critical warnings  -\n" in shown
    assert " C\n" in shown
    assert "spare              100 %\n" in shown
    assert "most per command      512.0 KiB\n" in nvme("identify").stdout


def test_bytes_from_the_command_line_and_back(nvme: Run) -> None:
    assert nvme("write", "3", "text:hello", "--pad", "--yes").exit_code == 0
    result = nvme("read", "3", "--blocks", "2")
    assert result.stdout_bytes == b"hello" + bytes(1019)


def test_a_file_through_standard_input_and_output(nvme: Run) -> None:
    content = random_bytes(MIB + 512)
    assert nvme("copy-in", "-", "--lba", "5", "--yes", stdin=content).exit_code == 0
    result = nvme("copy-out", "-", "--lba", "5", "--size", "1M")
    assert result.stdout_bytes == content[:MIB]
    assert result.stderr == ""


@pytest.mark.parametrize(
    "words",
    [
        ("write", "0", "00" * 512),
        ("copy-in", "/etc/hostname"),
        ("trim", "0", "1"),
        ("format",),
        ("bench", "--write"),
        ("soak",),
    ],
)
def test_nothing_is_lost_unasked(nvme: Run, words: tuple[str, ...]) -> None:
    result = nvme(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--yes" in result.stderr
    assert "namespace 1" in result.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("read", "16384"), "16384"),
        (("read", "0", "--blocks", "0"), "namespace 1: 0 blocks: give 1 or more"),
        (("write", "0", "text:", "--pad", "--yes"), "data: it is empty; give at least one byte"),
        (("read", "0", "--namespace", "9"), "there is no namespace 9; there are: 1"),
        (("write", "0", "text:hi", "--yes"), "data: the last block would have 2 of 512 bytes"),
        (("copy-in", "/none", "--yes"), "cannot read /none: No such file or directory"),
        (("copy-out", "/none/there"), "cannot write /none/there: No such file or directory"),
        (("copy-out", "/dev/full"), "cannot write /dev/full: No space left on device"),
        (("copy-out", "-", "--size", "1G"), "1073741824 bytes, but namespace 1 has 8388608"),
        (("format", "--block-size", "1K", "--yes"), "no format has blocks of 1024 bytes; there"),
        (("bench", "--size", "100"), "it takes multiples of 512 bytes"),
    ],
)
def test_errors_in_one_line(nvme: Run, words: tuple[str, ...], expected: str) -> None:
    result = nvme(*words)
    assert (result.exit_code, result.stdout) == (1, "")
    assert expected in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("copy-out", "x", "--size", "1.5M"), "'1.5M' is not a size like 4096, 4K or 1G"),
        (("bench", "--pattern", "zigzag"), "'zigzag' is not one of random|sequential"),
        (("format", "--erase", "all"), "'all' is not one of none|user_data|cryptographic"),
        (("read",), "Missing argument 'LBA'"),
    ],
)
def test_wrong_usage(nvme: Run, words: tuple[str, ...], expected: str) -> None:
    result = nvme(*words)
    assert result.exit_code == 2
    assert expected in " ".join(result.stderr.split())


def test_verbs_are_spelled_as_they_are_typed(nvme: Run) -> None:
    shown = nvme("--help").stdout
    assert "copy-in" in shown
    assert "copy_in" not in shown
    assert nvme("self-test").stdout == nvme("self_test").stdout == "passed\n"


def test_a_measurement(nvme: Run) -> None:
    found = result_of(nvme("bench", "--seconds", "0.1", "--depth", "4", "--size", "8K", "--json"))
    assert (found["depth"], found["command_size"], found["what"]) == (4, 8192, "random read")
    assert "p999" in found
    assert "/s\n" in nvme("bench", "--seconds", "0.1", "--pattern", "sequential").stdout


def test_a_reader_that_has_enough(address: str, nvme: Run) -> None:
    assert nvme("copy-in", "-", "--yes", stdin=random_bytes(MIB)).exit_code == 0
    command = [*USPACE, "run", "nvme", address, "copy-out", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(10) == random_bytes(MIB)[:10]
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_ctrl_c_says_how_far_it_got(address: str, nvme: Run, tmp_path: Path) -> None:
    """It comes while the copy waits for the rest of its input."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [*USPACE, "run", "nvme", address, "copy-in", str(pipe), "--yes"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        with pipe.open("wb", buffering=0) as end:
            # More than a pipe holds: when all of it is in, four pieces of 128 KiB have gone on.
            end.write(random_bytes(576 << 10))
            interrupt_reading(process)
            errors = process.stderr.read().decode()
    words = "interrupted\n  namespace 1 has the first 524288 bytes; later blocks may be new\n"
    assert (process.returncode, errors) == (130, words)
    assert nvme("read", "0").stdout_bytes == random_bytes(576 << 10)[:512]


def test_over_a_socket(served: str, tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(random_bytes(2 * MIB))
    for words in (
        ["copy-in", str(source), "--lba", "16", "--yes"],
        ["copy-out", str(copy), "--lba", "16", "--size", "2M"],
        ["smart"],
        ["bench", "--seconds", "0.1"],
    ):
        result = CliRunner().invoke(main, ["run", "nvme", served, *words], prog_name="uspace")
        assert result.exit_code == 0, result.output
    assert copy.read_bytes() == source.read_bytes()


def test_a_server_that_dies_under_a_copy(
    server: subprocess.Popen[bytes], served: str, tmp_path: Path
) -> None:
    """It is told in lines, the last of which says how far the copy got."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [*USPACE, "run", "nvme", served, "copy-in", str(pipe), "--yes"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        with pipe.open("wb", buffering=0) as end:
            end.write(random_bytes(MIB))
            until(lambda: is_reading(process), "a read of the pipe")
            server.kill()
            server.wait()
            with suppress(BrokenPipeError):
                end.write(random_bytes(MIB))
        errors = process.stderr.read().decode()
    assert process.returncode == 1
    assert "Traceback" not in errors
    assert "then, while leaving" not in errors
    assert "closed the connection" in errors
    assert errors.splitlines()[-1].startswith("  namespace 1 has the first ")

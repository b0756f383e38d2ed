"""The file's end of a copy: ordinary files, pipes, standard streams, and what goes wrong."""

from __future__ import annotations

import io
import os
import pty
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from uspace_drivers.nvme.verbs.files import HOLE, Sink, Source
from uspace_drv import HostError

DATA = np.arange(3 * HOLE, dtype=np.uint32).view(np.uint8)[: 3 * HOLE]


def test_zeroes_become_holes_and_the_length_is_right(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"what was there before" * HOLE)
    content = np.concatenate([DATA[:HOLE], np.zeros(4 * HOLE, np.uint8)])
    with Sink(path) as sink:
        sink.put(content)
        sink.put(content[HOLE : HOLE + 100])
    assert path.read_bytes() == content.tobytes() + bytes(100)
    assert (sink.size, sink.holes) == (5 * HOLE + 100, 4 * HOLE + 100)
    assert path.stat().st_blocks * 512 <= 2 * HOLE


def test_what_cannot_be_sought_in_gets_its_zeroes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathered = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", gathered)
    with Sink(Path("-")) as sink:
        sink.put(np.zeros(HOLE, np.uint8))
    assert gathered.buffer.getvalue() == bytes(HOLE)
    assert (sink.name, sink.size, sink.holes) == ("standard output", HOLE, 0)


def test_a_full_disk() -> None:
    with (
        pytest.raises(HostError, match=r"^cannot write /dev/full: No space left on device$"),
        Sink(Path("/dev/full")) as sink,
    ):
        sink.put(DATA)
    assert sink.size == 0


def test_a_pipe_that_nobody_reads_stays_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with Sink(path) as sink:
        os.close(reader)
        with pytest.raises(BrokenPipeError):
            sink.put(DATA)


def test_what_comes_in_drops_fills_a_piece(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def drip() -> None:
        with path.open("wb", buffering=0) as pipe:
            for start in range(0, 1000, 10):
                pipe.write(DATA[start : start + 10].data)

    thread = threading.Thread(target=drip)
    thread.start()
    piece = np.zeros(640, np.uint8)
    with Source(path) as source:
        assert source.size is None
        assert (source.fill(piece), bytes(piece)) == (640, bytes(DATA[:640]))
        assert (source.fill(piece), bytes(piece[:360])) == (360, bytes(DATA[640:1000]))
        assert source.fill(piece) == 0
    thread.join()


def test_what_is_known_of_a_file_and_of_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "image"
    path.write_bytes(DATA.data)
    with Source(path) as source:
        assert (source.name, source.size) == (str(path), len(DATA))
    with path.open("rb") as file:
        file.seek(100)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        with Source(Path("-")) as source:
            assert (source.name, source.size) == ("standard input", len(DATA) - 100)
            piece = np.zeros(10, np.uint8)
            source.fill(piece)
            assert bytes(piece) == bytes(DATA[100:110])
        assert not file.closed


@pytest.mark.parametrize(
    ("path", "reason"), [("/none", "No such file or directory"), ("/tmp", "Is a directory")]
)
def test_files_that_cannot_be_opened(path: str, reason: str) -> None:
    with pytest.raises(HostError, match=f"^cannot read {path}: {reason}$"):
        Source(Path(path))
    with pytest.raises(HostError, match=r"^cannot write /none/there: No such file"):
        Sink(Path("/none/there"))


def test_standard_streams_that_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(HostError, match="standard input: it is closed; give a FILE"):
        Source(Path("-"))
    with pytest.raises(HostError, match="standard output: it is closed; give a FILE"):
        Sink(Path("-"))


def test_a_terminal_is_no_place_for_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(ours), os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        with pytest.raises(HostError, match="it is a terminal"):
            Sink(Path("-"))


def test_the_first_failure_is_the_one_that_is_raised() -> None:
    sink = Sink(Path("/dev/full"))
    sink._is_sparse = True  # its end cannot be cut off
    error = KeyError("first")
    sink.__exit__(KeyError, error, None)
    assert error.__notes__ == ["cannot write /dev/full: Invalid argument"]

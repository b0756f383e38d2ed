"""The other end of a copy: a file, or standard input and output as `-`, with errors in words."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from numpy.typing import NDArray

from uspace_drv import HostError

STANDARD = "-"

HOLE = 64 << 10
"""Bytes: so many zeroes in a row are left out of a file."""


class Source:
    """What is copied in. `size` is in bytes, None for what has no end that is known."""

    def __init__(self, path: Path) -> None:
        self.name = "standard input" if str(path) == STANDARD else str(path)
        with _words("read", self.name):
            self._is_ours = str(path) != STANDARD
            self._file = path.open("rb") if self._is_ours else _standard_input()
            self.size = _size_of(self._file)

    def fill(self, piece: NDArray[Any]) -> int:
        """Read until the piece is full or the file ends; how many bytes."""
        filled = 0
        room = piece.data
        with _words("read", self.name):
            while filled < len(room):
                # One read at a time: Ctrl-C is noticed between two of them.
                count = self._file.readinto1(room[filled:])  # type: ignore[attr-defined]
                if not count:
                    break
                filled += count
        return filled

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_ours:
            self._file.close()


class Sink:
    """What is copied out to. An ordinary file gets holes where there are many zeroes.

    What is written is there when the `with` block is left without an error.
    """

    def __init__(self, path: Path) -> None:
        self.name = "standard output" if str(path) == STANDARD else str(path)
        with _words("write", self.name):
            self._is_ours = str(path) != STANDARD
            self._file = path.open("wb", buffering=0) if self._is_ours else _standard_output()
            self._is_sparse = self._is_ours and _is_ordinary(self._file)
        self.size = self.holes = 0
        """Bytes so far, and those of them that are zeroes and were left out."""

    def put(self, data: NDArray[Any]) -> None:
        """Write all of it behind what was written before."""
        with _words("write", self.name):
            for start in range(0, len(data), HOLE):
                part = data[start : start + HOLE]
                if self._is_sparse and not part.any():
                    self._file.seek(len(part), os.SEEK_CUR)
                    self.size += len(part)
                    self.holes += len(part)
                else:
                    self._write(part.data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with _words("write", self.name):
                self._finish()
        except HostError as failure:
            if error is None:
                raise
            error.add_note(str(failure))

    def _write(self, data: memoryview) -> None:
        while data:
            count = self._file.write(data)
            self.size += count
            data = data[count:]

    def _finish(self) -> None:
        if not self._is_ours:
            self._file.flush()
            return
        try:
            if self._is_sparse:
                self._file.truncate()  # the end may be a hole
        finally:
            self._file.close()


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise HostError("cannot read standard input: it is closed; give a FILE")
    return sys.stdin.buffer


def _standard_output() -> BinaryIO:
    if sys.stdout is None:
        raise HostError("cannot write standard output: it is closed; give a FILE")
    if sys.stdout.isatty():
        raise HostError("cannot write standard output: it is a terminal; lead it into a pipe")
    return sys.stdout.buffer


def _size_of(file: BinaryIO) -> int | None:
    """Return how many bytes are left; a pipe does not know, and /proc says 0."""
    if not file.seekable():
        return None
    place = file.tell()
    size = file.seek(0, os.SEEK_END) - place
    file.seek(place)
    return size or None


def _is_ordinary(file: BinaryIO) -> bool:
    return stat.S_ISREG(os.fstat(file.fileno()).st_mode)


@contextmanager
def _words(verb: str, name: str) -> Iterator[None]:
    """Say what could not be done; a pipe that nobody reads any more stays what it is."""
    try:
        yield
    except (BrokenPipeError, HostError):
        raise
    except OSError as error:
        raise HostError(f"cannot {verb} {name}: {error.strerror}", cause=error) from error

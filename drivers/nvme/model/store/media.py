"""What holds the blocks of a namespace: memory, a sparse file, or nothing."""

from __future__ import annotations

import fcntl
import mmap
import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np

from uspace_drivers.nvme.model.task import Refused
from uspace_drivers.nvme.spec.status import Status
from uspace_drv import BusyError, HostError, NoDevice

NO_FILE = -1
PAGE = mmap.PAGESIZE
ZEROES = bytes(1 << 16)


class Medium(Protocol):
    """`size` bytes that keep what was written; offsets and sizes are in bytes, and are checked.

    What the host's file system refuses is `Refused`, with the status that the driver gets.
    """

    size: int

    @property
    def discards(self) -> bool:
        """Whether it keeps nothing of what it is given."""

    @property
    def address(self) -> int:
        """Where its memory is in this process until `close`; 0: it is not in memory."""

    @property
    def file(self) -> int:
        """The descriptor of the file that it is in until `close`, or `NO_FILE`."""

    def read(self, offset: int, size: int) -> bytes:
        """Return that many bytes."""

    def write(self, offset: int, data: bytes) -> None:
        """Keep them."""

    def deallocate(self, offset: int, size: int) -> None:
        """Give the room back; it reads as zeroes."""

    def flush(self, offset: int = 0, size: int | None = None) -> None:
        """Return when these bytes would survive a power cut."""

    def close(self) -> None:
        """Give the memory back. What comes next opens it again; twice is fine."""

    def remove(self) -> None:
        """Close, and destroy what it holds."""


class Discarding:
    """Takes everything and gives nothing: reads leave the driver's memory as it is."""

    discards = True
    address = 0
    file = NO_FILE

    def __init__(self, size: int) -> None:
        self.size = size

    def read(self, offset: int, size: int) -> bytes:
        """Zeroes, for who has to have some."""
        return bytes(size)

    def write(self, offset: int, data: bytes) -> None:
        """Nothing is kept."""

    def deallocate(self, offset: int, size: int) -> None:
        """Nothing is held."""

    def flush(self, offset: int = 0, size: int | None = None) -> None:
        """Nothing is late."""

    def close(self) -> None:
        """Nothing is open."""

    def remove(self) -> None:
        """Nothing is there."""


class InMemory:
    """Private memory of this process, whose pages exist once they are written."""

    discards = False
    _give_back = mmap.MADV_DONTNEED

    def __init__(self, size: int) -> None:
        self.size = size
        self._map: mmap.mmap | None = self._open()  # what cannot be had is to be known at once

    @property
    def file(self) -> int:
        """It has none."""
        return NO_FILE

    @property
    def address(self) -> int:
        """Where it begins in this process."""
        return int(np.frombuffer(self._memory, np.uint8).ctypes.data)

    def read(self, offset: int, size: int) -> bytes:
        """Return that many bytes."""
        return self._memory[offset : offset + size]

    def write(self, offset: int, data: bytes) -> None:
        """Keep them."""
        self._memory[offset : offset + len(data)] = data

    def deallocate(self, offset: int, size: int) -> None:
        """Drop whole pages, and zero what sticks out of them at both ends."""
        end = offset + size
        first, last = -(-offset // PAGE) * PAGE, end // PAGE * PAGE
        if first >= last:
            self._zero(offset, end)
            return
        self._zero(offset, first)
        try:
            self._memory.madvise(self._give_back, first, last - first)
        except OSError:  # a file system without holes
            self._zero(first, last)
        self._zero(last, end)

    def flush(self, offset: int = 0, size: int | None = None) -> None:
        """Memory is as durable as it gets."""

    def close(self) -> None:
        """Keep it: a drive does not forget when it is switched off."""

    def remove(self) -> None:
        """Give it back."""
        self._map = None

    def _zero(self, start: int, end: int) -> None:
        for place in range(start, end, len(ZEROES)):
            self.write(place, ZEROES[: end - place])

    @property
    def _memory(self) -> mmap.mmap:
        if self._map is None:
            self._map = self._open()
        return self._map

    def _open(self) -> mmap.mmap:
        try:
            return mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError) as error:
            raise NoDevice(
                f"size: this machine has no memory for {self.size} bytes; give less, or "
                "medium=FILE or medium=discard"
            ) from error


class InFile(InMemory):
    """A sparse file, made if there is none, that keeps what was written.

    It is there when this process is killed, flushed or not, and what was flushed when the machine
    is. Data moves by pread(2) and pwrite(2): in a mapping a full disk, or a file that somebody has
    cut, would end the process. The mapping is there to give room back and to flush ranges.
    """

    _give_back = mmap.MADV_REMOVE

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self._file = NO_FILE
        super().__init__(size)

    @property
    def file(self) -> int:
        """Its descriptor."""
        if self._map is None:
            self._map = self._open()
        return self._file

    @property
    def address(self) -> int:
        """Its memory is not to be touched."""
        return 0

    def read(self, offset: int, size: int) -> bytes:
        """Return that many bytes; `Refused` where the file has not got them any more."""
        pieces: list[bytes] = []
        while (done := sum(map(len, pieces))) < size:
            try:
                piece = os.pread(self.file, size - done, offset + done)
            except OSError as error:
                raise self._refuse(Status.UNRECOVERED_READ_ERROR, error.strerror) from error
            if not piece:
                raise self._refuse(Status.UNRECOVERED_READ_ERROR, f"it ends at {offset + done:#x}")
            pieces.append(piece)
        return b"".join(pieces)

    def write(self, offset: int, data: bytes) -> None:
        """Keep them; `Refused` where the disk is full, or the file was cut.

        To make a file that was cut whole again would turn what is lost into zeroes, in silence.
        """
        self._require_whole()
        left = memoryview(data)
        while left:
            try:
                done = os.pwrite(self.file, left, offset)
            except OSError as error:
                raise self._refuse(Status.WRITE_FAULT, error.strerror) from error
            left, offset = left[done:], offset + done

    def deallocate(self, offset: int, size: int) -> None:
        """Give the room back; `Refused` where the file was cut."""
        self._require_whole()
        super().deallocate(offset, size)

    def flush(self, offset: int = 0, size: int | None = None) -> None:
        """Let the kernel write these pages to the disk, and wait; `Refused` where it cannot."""
        end = self.size if size is None else offset + size
        start = offset // PAGE * PAGE
        try:
            self._memory.flush(start, end - start)
        except OSError as error:
            raise self._refuse(Status.WRITE_FAULT, error.strerror) from error

    def close(self) -> None:
        """Write it out and unmap it."""
        if self._map is not None:
            try:
                self.flush()
            finally:
                self._map.close()
                os.close(self._file)
                self._map, self._file = None, NO_FILE

    def remove(self) -> None:
        """Delete the file."""
        self.close()
        with suppress(FileNotFoundError):
            self.path.unlink()

    def _require_whole(self) -> None:
        found = os.fstat(self.file).st_size
        if found < self.size:
            raise self._refuse(Status.WRITE_FAULT, f"it was cut to {found:#x} bytes")

    def _refuse(self, status: Status, why: str | None) -> Refused:
        return Refused(status, f"medium {self.path}: {why}")

    def _open(self) -> mmap.mmap:
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            return self._map_file()
        except OSError as error:
            raise HostError(
                f"medium {self.path}: {error.strerror}; give a file that can be written",
                cause=error,
            ) from error

    def _map_file(self) -> mmap.mmap:
        try:
            self._lock()
            if os.fstat(self._file).st_size < self.size:
                os.ftruncate(self._file, self.size)
            return mmap.mmap(self._file, self.size)
        except (OSError, BusyError):
            os.close(self._file)
            raise

    def _lock(self) -> None:
        """Keep other models out: two on one file would destroy each other's data.

        The lock belongs to the descriptor, and goes with it or with this process.
        """
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(
                f"medium {self.path}: another model has this file; end that one first, or give "
                "another file"
            ) from error


def open_medium(kind: str, size: int, number: int) -> Medium:
    """A medium for namespace `number`: "memory", "discard", or the path of a sparse file.

    Namespaces from the second on have files of their own, `PATH.2` and so on. A mistyped word is
    `NoDevice` and makes no file: what has neither a slash nor a dot has to be there.
    """
    if kind == "memory":
        return InMemory(size)
    if kind == "discard":
        return Discarding(size)
    path = Path(kind)
    if not kind or not (path.exists() or "/" in kind or "." in kind):
        raise NoDevice(
            f"medium={kind}: expected memory, discard, or the path of a file; ./NAME makes one here"
        )
    return InFile(path if number == 1 else path.with_name(f"{path.name}.{number}"), size)

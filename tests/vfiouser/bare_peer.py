"""A channel and the bare socket at its other end, and files whose descriptors can be told apart."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from uspace_drv.native import Channel, Message

NAME = "vfio-user:/run/edu"
LIMIT = 4096
FDS = 3
PATIENCE = 10.0


def header(size: int, *, flags: int = 0, number: int = 7, command: int = 9) -> bytes:
    return struct.pack("<HHIII", number, command, size, flags, 0)


def message(payload: bytes = b"", number: int = 7) -> bytes:
    return header(16 + len(payload), number=number) + payload


class Pair:
    """A channel and the bare socket at its other end."""

    def __init__(self, **options: float) -> None:
        self.peer, socket_ = socket.socketpair()
        self.channel = Channel(NAME, socket_.detach(), LIMIT, FDS, **options)

    def close(self) -> None:
        self.channel.close()
        self.peer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def receive(self) -> Message:
        got = self.channel.receive(PATIENCE)
        assert got is not None
        return got


@contextmanager
def memory_files(count: int) -> Iterator[list[int]]:
    """Descriptors of files whose names are numbers."""
    fds = [os.memfd_create(f"{n}") for n in range(count)]
    try:
        yield fds
    finally:
        close_all(tuple(fds))


def close_all(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)


def names(fds: tuple[int, ...]) -> list[str]:
    return [Path(f"/proc/self/fd/{fd}").readlink().name.removeprefix("memfd:")[0] for fd in fds]


def open_descriptors() -> int:
    """How many this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))

"""A server that nobody can break: whatever comes, it lives on, and nothing is left of it."""

from __future__ import annotations

import os
import random
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.vfiouser.raw_client import PAGE, Copier, RawClient
from uspace_drv.errors import UspaceError
from uspace_drv.vfio_numbers import IrqAction
from uspace_drv.vfiouser.numbers import Command, Flag
from uspace_drv.vfiouser.server import Server
from uspace_drv.vfiouser.wire import DmaMap, IrqSet, pack

COMMANDS = [0, *map(int, Command), 19, 0x8000, 0xFFFF]
SHORT_PATIENCE = 0.3
HOSTILE = [0, 1, 7, 8, 255, 4096, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF]


@pytest.fixture
def alive(server: Server) -> Iterator[Server]:
    """Serves a sane client afterwards, with nothing mapped or switched on by those before."""
    yield server
    with RawClient(server.path) as sane:
        sane.greet()
        assert not sane.write(0, 0x600D).error
        assert sane.read(0) == 0x600D


def connect(server: Server) -> socket.socket:
    end = socket.socket(socket.AF_UNIX)
    end.settimeout(10.0)
    end.connect(os.fspath(server.path))
    return end


def raw(command: int, payload: bytes = b"", size: int | None = None, flags: int = 0) -> bytes:
    size = 16 + len(payload) if size is None else size
    return struct.pack("<HHIII", 5, command, size, flags, 0) + payload


GREETING = raw(Command.VERSION, b"\0\0\1\0")


def until_the_end(end: socket.socket) -> bytes:
    said = b""
    try:
        while piece := end.recv(65536):
            said += piece
    except ConnectionResetError:
        pass  # it was hung up on with bytes unread
    return said


@pytest.mark.parametrize("command", COMMANDS)
def test_every_length(alive: Server, command: int) -> None:
    """Each message that was refused as broken ends its session, so that another one follows."""
    rng = random.Random(command)
    client = None
    for length in range(129):
        for payload in (bytes(length), b"\xff" * length, rng.randbytes(length)):
            if client is None:
                client = RawClient(alive.path)
                client.greet()
            try:
                reply = client.command(command, payload)
                for fd in reply.fds:
                    os.close(fd)
            except UspaceError:
                client.close()
                client = None
    if client is not None:
        client.close()


@pytest.mark.parametrize("size", [0, 1, 15, 17 + (2 << 20), 0x8000_0000, 0xFFFF_FFFF])
def test_sizes_that_lie(alive: Server, size: int) -> None:
    with connect(alive) as end:
        end.sendall(GREETING + raw(Command.DEVICE_RESET, size=size))
        until_the_end(end)
    assert alive.complaints


@pytest.mark.parametrize("flags", [2, 3, 0xF, 0xFFFF_FFFF])
def test_types_that_are_none(alive: Server, flags: int) -> None:
    with connect(alive) as end:
        end.sendall(GREETING + raw(Command.DEVICE_RESET, flags=flags))
        until_the_end(end)


def test_a_reply_to_nothing(alive: Server) -> None:
    with connect(alive) as end:
        end.sendall(GREETING + raw(Command.DMA_READ, flags=Flag.REPLY))
        until_the_end(end)
    assert "a reply to nothing" in str(alive.complaints[-1])


def test_a_broken_message_is_told_once(alive: Server) -> None:
    with connect(alive) as end:
        end.sendall(GREETING + raw(Command.REGION_READ, b"short") + raw(Command.DEVICE_RESET))
        said = until_the_end(end)
    number, command, size, flags, error = struct.unpack("<HHIII", said[-16:])
    assert (number, command, size, flags) == (5, Command.REGION_READ, 16, 0x21)
    assert error
    assert len(alive.complaints) == 1


@pytest.mark.parametrize(
    "begun", [b"", b"\1", GREETING[:10], GREETING, GREETING + b"\1", GREETING + GREETING[:18]]
)
def test_a_client_that_stalls_is_dropped(
    alive: Server, begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uspace_drv.vfiouser.server.conversation.PATIENCE", SHORT_PATIENCE)
    monkeypatch.setattr("uspace_drv.vfiouser.server.session.PATIENCE", SHORT_PATIENCE)
    monkeypatch.setattr("uspace_drv.vfiouser.server.conversation.SLICE", SHORT_PATIENCE / 3)
    with connect(alive) as end:
        end.sendall(begun)
        if begun == GREETING:
            return  # a client that has nothing to say is no broken one
        until_the_end(end)
    assert alive.complaints


def test_a_client_that_never_reads_is_dropped(
    model: Copier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uspace_drv.vfiouser.server.session.PATIENCE", SHORT_PATIENCE)
    with Server(model, tmp_path / "socket") as server:
        with connect(server) as end:
            end.settimeout(SHORT_PATIENCE * 10)
            flood = raw(Command.REGION_READ, struct.pack("<QII", 0, 7, 256)) * 1000
            end.sendall(GREETING)
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                _send_for_ever(end, flood)
        with RawClient(server.path) as sane:
            sane.greet()


def _send_for_ever(end: socket.socket, data: bytes) -> None:
    while True:
        end.sendall(data)


def test_a_flood_of_posted_writes(alive: Server) -> None:
    body = struct.pack("<QII", 0, 0, 4)
    with connect(alive) as end:
        end.sendall(GREETING)
        for value in range(200):
            write = raw(Command.REGION_WRITE, body + struct.pack("<I", value), flags=Flag.NO_REPLY)
            end.sendall(write * 50)
        end.sendall(raw(Command.REGION_READ, body))
        said = b""
        while not said.endswith(struct.pack("<I", 199)):
            said += end.recv(65536)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("count", [1, 16, 40])
def test_descriptors_that_nobody_wants(alive: Server, command: int, count: int) -> None:
    files = [os.memfd_create("unwanted") for _ in range(count)]
    for greeted in (False, True):
        with RawClient(alive.path) as client:
            try:
                if greeted:
                    client.greet()
                client.command(command, bytes(32), files)
            except UspaceError:
                pass
    for file in files:
        os.close(file)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    numbers=st.lists(
        st.tuples(*[st.one_of(st.sampled_from(HOSTILE), st.integers(0, 0xFFFF_FFFF))] * 5),
        max_size=8,
    ),
    wide=st.integers(0, (1 << 64) - 1),
    kind=st.sampled_from(["map", "irqs"]),
)
def test_hostile_numbers(
    alive: Server, model: Copier, numbers: list[tuple[int, ...]], wide: int, kind: str
) -> None:
    file = os.memfd_create("guest")
    os.ftruncate(file, 4 * PAGE)
    with RawClient(alive.path) as client:
        client.greet()
        for a, b, c, d, e in numbers:
            try:
                if kind == "map":
                    body = pack(DmaMap(a, b & 3, c & ~0xFFF, wide & ~0xFFF, e & ~0xFFF))
                    client.command(Command.DMA_MAP, body, (file,))
                else:
                    body = pack(IrqSet(a, IrqAction.DATA_NONE | 8 << b % 3, c % 5, d, e))
                    client.command(Command.DEVICE_SET_IRQS, body)
            except UspaceError:
                break
    os.close(file)
    with RawClient(alive.path) as sane:
        sane.greet()
        assert not model.memory.mappings
        assert not sane.write(0, wide & 0xFFFF_FFFF).error
        assert sane.read(0) == wide & 0xFFFF_FFFF

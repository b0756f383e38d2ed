"""Messages come whole, in order, with their descriptors, however the stream is cut."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vfiouser.bare_peer import (
    FDS,
    LIMIT,
    NAME,
    PATIENCE,
    Pair,
    close_all,
    header,
    memory_files,
    message,
    names,
    open_descriptors,
)
from uspace_drv.errors import DeviceGone, HostError, PeerError
from uspace_drv.native import Message

pytestmark = pytest.mark.usefixtures("nothing_left")


def test_what_is_sent_is_the_specification_s_header(pair: Pair) -> None:
    pair.channel.send(0x1234, 9, 0x11, 0x16, b"abc")
    assert pair.peer.recv(100) == bytes.fromhex("3412 0900 13000000 11000000 16000000") + b"abc"


def test_what_comes_is_a_named_tuple(pair: Pair) -> None:
    pair.peer.sendall(struct.pack("<HHIII", 0xFFFF, 18, 19, 0xFFFF_FFF1, 0xFFFF_FFFF) + b"abc")
    got = pair.receive()
    assert tuple(got) == (0xFFFF, 18, 0xFFFF_FFF1, 0xFFFF_FFFF, b"abc", ())
    fields = (got.id, got.command, got.flags, got.error, got.payload, got.fds)
    assert fields == tuple(got)


@given(st.lists(st.binary(max_size=40), max_size=8), st.data())
def test_messages_may_be_split_and_joined_at_any_byte(
    payloads: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(message(payload, n) for n, payload in enumerate(payloads))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12).map(sorted))
    got: list[Message] = []
    with Pair() as pair:
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            pair.peer.sendall(stream[start:end])
            while (one := pair.channel.receive(0.0)) is not None:
                got.append(one)
    assert [(one.id, one.payload) for one in got] == list(enumerate(payloads))


@given(st.lists(st.tuples(st.binary(max_size=30), st.integers(0, FDS)), max_size=6), st.data())
def test_descriptors_come_with_their_message(
    parts: list[tuple[bytes, int]], data: st.DataObject
) -> None:
    """However the rest of a message is cut, and whatever was still unread before it."""
    got = []
    with memory_files(FDS) as fds, Pair() as pair:

        def drain() -> None:
            while (one := pair.channel.receive(0.0)) is not None:
                got.append((one.payload, names(one.fds)))
                close_all(one.fds)

        for payload, count in parts:
            whole = message(payload)
            cut = data.draw(st.integers(1, len(whole)))
            socket.send_fds(pair.peer, [whole[:cut]], fds[:count])
            if data.draw(st.booleans()):
                drain()
            if cut < len(whole):
                pair.peer.sendall(whole[cut:])
        drain()
    assert got == [(payload, [str(n) for n in range(count)]) for payload, count in parts]


def test_descriptors_are_not_inherited(pair: Pair, files: list[int]) -> None:
    socket.send_fds(pair.peer, [message()], files[:2])
    got = pair.receive()
    assert names(got.fds) == ["0", "1"]
    assert all(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for fd in got.fds)
    assert fcntl.fcntl(pair.channel.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    close_all(got.fds)


def test_descriptors_are_sent_and_stay_the_sender_s(pair: Pair, files: list[int]) -> None:
    pair.channel.send(1, 2, 0, 0, b"ab", files[:2])
    data, fds, _, _ = socket.recv_fds(pair.peer, 100, 10)
    assert (data[16:], names(tuple(fds))) == (b"ab", ["0", "1"])
    assert names(tuple(files[:2])) == ["0", "1"]
    close_all(tuple(fds))


@pytest.mark.parametrize("size", [0, 1, 15, 16 + LIMIT + 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF])
def test_a_wrong_size_ends_the_receiving(pair: Pair, size: int) -> None:
    pair.peer.sendall(header(size) + message())
    expected = f"^{NAME}: a message of {size} bytes, expected 16 to {16 + LIMIT}$"
    with pytest.raises(PeerError, match=expected):
        pair.channel.receive(PATIENCE)
    with pytest.raises(PeerError, match="can no longer be told apart"):
        pair.channel.receive(PATIENCE)
    pair.channel.send(1, 2, 0x21, 22, b"")  # the peer may be told
    assert len(pair.peer.recv(100)) == 16


@pytest.mark.parametrize("kind", range(2, 16))
def test_a_message_is_a_command_or_a_reply(pair: Pair, kind: int) -> None:
    pair.peer.sendall(header(16, flags=kind))
    with pytest.raises(PeerError, match=f"a message of type {kind}, expected 0"):
        pair.channel.receive(PATIENCE)


@pytest.mark.parametrize("sent", [1, 15, 16, 20])
def test_too_many_descriptors_are_closed(pair: Pair, files: list[int], sent: int) -> None:
    """Even before the message that they came with is whole."""
    socket.send_fds(pair.peer, [message(b"abcd")[:sent]], files[: FDS + 1])
    with pytest.raises(PeerError, match="4 file descriptors with one message, expected at most 3"):
        pair.channel.receive(PATIENCE)
    assert pair.channel.fileno() >= 0  # what came is closed: nothing_left sees it


def test_descriptors_cannot_be_heaped_up_byte_by_byte(pair: Pair, files: list[int]) -> None:
    whole = message(b"abcd")
    for n in range(FDS + 1):
        socket.send_fds(pair.peer, [whole[n : n + 1]], files[:1])
    with pytest.raises(PeerError, match="4 file descriptors"):
        pair.channel.receive(PATIENCE)


def test_descriptors_of_a_message_that_nobody_took_are_closed(pair: Pair, files: list[int]) -> None:
    socket.send_fds(pair.peer, [message()], files[:1])
    socket.send_fds(pair.peer, [message(b"12345678")[:20]], files[:2])
    close_all(pair.receive().fds)
    assert pair.channel.receive(0.0) is None


def test_the_largest_message_and_limits_that_are_raised(pair: Pair) -> None:
    large = bytes(range(256)) * 4096
    sender = threading.Thread(target=pair.peer.sendall, args=[message(b"a" * LIMIT)])
    sender.start()
    assert pair.receive().payload == b"a" * LIMIT
    sender.join()
    pair.channel.set_limits(len(large), 253)
    sender = threading.Thread(target=pair.peer.sendall, args=[message(large) + message(b"next")])
    sender.start()
    assert pair.receive().payload == large
    assert pair.receive().payload == b"next"
    sender.join()


def test_an_end_in_the_middle_of_a_message_says_so(pair: Pair) -> None:
    pair.peer.sendall(message(b"abcd")[:18])
    pair.peer.close()
    with pytest.raises(DeviceGone, match="in the middle of a message, after 18 bytes of it"):
        pair.channel.receive(PATIENCE)


@pytest.mark.parametrize("timeout", [0.0, 0.01, 0.15])
@pytest.mark.parametrize("spin", [0.0, 1.0])
def test_a_timeout_is_none_and_keeps_what_came(pair: Pair, timeout: float, spin: float) -> None:
    whole = message(b"abcd")
    pair.peer.sendall(whole[:17])
    start = time.monotonic()
    assert pair.channel.receive(timeout, spin) is None
    assert time.monotonic() - start >= timeout
    assert (pair.channel.partial, pair.channel.pending) == (True, False)
    pair.peer.sendall(whole[17:])
    assert pair.channel.receive(PATIENCE, spin) == (7, 9, 0, 0, b"abcd", ())
    assert (pair.channel.partial, pair.channel.pending) == (False, False)


def test_what_is_buffered_is_pending(pair: Pair) -> None:
    pair.peer.sendall(message(b"one") + message(b"two"))
    seen: list[object] = [pair.channel.pending]
    for _ in range(2):
        seen += [pair.receive().payload, pair.channel.pending]
    assert seen == [False, b"one", True, b"two", False]


def test_descriptors_beyond_the_limit_of_the_process(pair: Pair, files: list[int]) -> None:

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    socket.send_fds(pair.peer, [message()], files[:3])
    highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    blocked = []
    with suppress(OSError):  # fill the gaps below the limit
        while True:
            blocked.append(os.dup(0))
    try:
        with pytest.raises(HostError, match=r"may not open: .*; raise the limit \(ulimit -n\)"):
            pair.channel.receive(PATIENCE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        close_all(tuple(blocked))
    with pytest.raises(PeerError, match="can no longer be told apart"):
        pair.channel.receive(PATIENCE)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.binary(max_size=64), st.integers(0, 5)), max_size=6))
def test_any_bytes_and_any_descriptors_leave_nothing_behind(
    parts: list[tuple[bytes, int]],
) -> None:
    before = open_descriptors()
    with Pair() as pair:
        for data, count in parts:
            if data:
                socket.send_fds(pair.peer, [data], [0] * count)
        with suppress(PeerError):
            while (one := pair.channel.receive(0.0)) is not None:
                close_all(one.fds)
    assert open_descriptors() == before

"""One end of a connection: sending, waiting, closing, and what a bad peer can do to them."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from types import FrameType

import pytest

from tests.vfiouser.bare_peer import (
    FDS,
    LIMIT,
    NAME,
    PATIENCE,
    Pair,
    close_all,
    header,
    message,
)
from uspace_drv.errors import BusyError, ClosedError, DeviceGone, HostError, PeerError
from uspace_drv.native import Channel

pytestmark = pytest.mark.usefixtures("nothing_left")


def test_exchange_sends_then_receives(pair: Pair, files: list[int]) -> None:
    pair.peer.sendall(message(b"reply", 5))
    got = pair.channel.exchange(5, 2, bytearray(b"ask"), files[:1], PATIENCE, 0.001)
    data, fds, _, _ = socket.recv_fds(pair.peer, 100, 10)
    assert got is not None
    assert (got.id, got.payload) == (5, b"reply")
    assert data == struct.pack("<HHIII", 5, 2, 19, 0, 0) + b"ask"
    close_all(tuple(fds))


def test_a_large_message_is_sent_in_parts(pair: Pair) -> None:
    large = bytes(range(256)) * 4096
    sender = threading.Thread(target=pair.channel.send, args=[1, 2, 0, 0, large])
    sender.start()
    seen = bytearray()
    while len(seen) < 16 + len(large):
        seen += pair.peer.recv(100_000)
    sender.join()
    assert seen[16:] == large


def test_messages_of_several_threads_do_not_mix(pair: Pair) -> None:
    rounds, size = 20, 50_000

    def send(number: int) -> None:
        for _ in range(rounds):
            pair.channel.send(number, 2, 0, 0, bytes([number]) * size)

    threads = [threading.Thread(target=send, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    with closing(Channel("peer", pair.peer.detach(), size, 0)) as other:
        got = [other.receive(PATIENCE) for _ in range(3 * rounds)]
    for thread in threads:
        thread.join()
    assert all(one is not None and one.payload == bytes([one.id]) * size for one in got)


def test_a_peer_that_does_not_read_is_given_up() -> None:
    with Pair(send_timeout=0.05) as pair:
        with pytest.raises(PeerError, match=r"the peer took \d+ of 4000016 bytes within 50 ms"):
            pair.channel.send(1, 2, 0, 0, bytes(4_000_000))
        with pytest.raises(PeerError, match="can no longer be told apart"):
            pair.channel.send(1, 2, 0, 0, b"")


def fill(channel: Channel) -> None:
    for n in range(10_000):
        channel.send(n, 2, 0, 0, bytes(1000))


def test_a_full_socket_does_not_cut_a_message() -> None:
    """Where nothing of a message went out, the next one may."""
    with Pair(send_timeout=0.05) as pair:
        pair.peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with pytest.raises(PeerError, match="took 0 of 1016 bytes"):
            fill(pair.channel)
        received = pair.peer.recv(1_000_000)
        assert len(received) % 1016 == 0
        pair.channel.send(1, 2, 0, 0, b"again")


def test_the_end_of_the_peer_is_seen_by_both_directions(pair: Pair) -> None:
    pair.peer.sendall(message(b"last"))
    pair.peer.close()
    assert pair.receive().payload == b"last"
    for _ in range(2):
        with pytest.raises(DeviceGone, match=f"^{NAME}: the peer closed the connection$"):
            pair.channel.receive(PATIENCE)
    with pytest.raises(DeviceGone, match="the peer closed the connection"):
        pair.channel.send(1, 2, 0, 0, b"")
    with pytest.raises(DeviceGone, match="the peer closed the connection"):
        pair.channel.exchange(1, 2, b"", (), PATIENCE)


def test_a_peer_that_dies_with_unread_data_has_closed_the_connection(pair: Pair) -> None:
    pair.channel.send(1, 2, 0, 0, b"unread")
    pair.peer.close()
    with pytest.raises(DeviceGone, match="the peer closed the connection"):
        pair.channel.receive(PATIENCE)


@pytest.mark.parametrize("spin", [0.0, PATIENCE])
def test_a_wake_descriptor_ends_the_wait(pair: Pair, spin: float) -> None:
    wake = os.eventfd(1)
    pair.channel.set_wake(wake)
    start = time.monotonic()
    assert pair.channel.receive(PATIENCE, spin) is None
    assert time.monotonic() - start < PATIENCE / 2
    pair.peer.sendall(message(b"first"))
    assert pair.receive().payload == b"first"
    pair.channel.set_wake(-1)
    assert pair.channel.receive(0.01) is None
    os.close(wake)


@pytest.mark.parametrize("spin", [0.0, PATIENCE])
@pytest.mark.parametrize("wake", [False, True])
def test_closing_ends_a_receive_in_another_thread(pair: Pair, spin: float, wake: bool) -> None:
    event = os.eventfd(0)
    pair.channel.set_wake(event if wake else -1)
    errors: list[Exception] = []

    def receive() -> None:
        try:
            pair.channel.receive(PATIENCE, spin)
        except ClosedError as error:
            errors.append(error)

    thread = threading.Thread(target=receive)
    thread.start()
    until_it_sleeps_or_spins(pair.channel)
    pair.channel.close()
    thread.join()
    os.close(event)
    assert [str(error) for error in errors] == [f"{NAME} is closed"]


def poll_for_ever(channel: Channel) -> None:
    while True:
        channel.receive(0.0)
        time.sleep(0.001)


def until_it_sleeps_or_spins(channel: Channel) -> None:
    """A second receiver is refused exactly while the first one is at it."""
    with pytest.raises(BusyError, match="another thread is receiving"):
        poll_for_ever(channel)


def test_closing_ends_a_send_in_another_thread(pair: Pair) -> None:
    errors: list[Exception] = []

    def send() -> None:
        try:
            pair.channel.send(1, 2, 0, 0, bytes(4_000_000))
        except ClosedError as error:
            errors.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    pair.peer.recv(1)  # it is under way
    pair.channel.close()
    thread.join()
    assert [str(error) for error in errors] == [f"{NAME} is closed"]


def test_closing_ends_the_connection_whoever_else_holds_the_socket(pair: Pair) -> None:
    forked = os.dup(pair.channel.fileno())
    pair.channel.close()
    pair.peer.settimeout(PATIENCE)
    assert pair.peer.recv(1) == b""
    os.close(forked)


def test_closed_means_closed(pair: Pair) -> None:
    pair.channel.close()
    pair.channel.close()
    assert (pair.channel.closed, pair.channel.fileno()) == (True, -1)
    assert pair.peer.recv(1) == b""
    calls: list[Callable[[], object]] = [
        partial(pair.channel.send, 1, 2, 0, 0, b""),
        partial(pair.channel.receive, PATIENCE),
        partial(pair.channel.exchange, 1, 2, b"", (), PATIENCE),
    ]
    for call in calls:
        with pytest.raises(ClosedError, match=f"^{NAME} is closed$"):
            call()


@pytest.mark.parametrize("spin", [0.0, PATIENCE])
@pytest.mark.parametrize("act", ["raise", "close", "return"])
def test_signals_are_handled_while_it_waits(pair: Pair, spin: float, act: str) -> None:
    def handler(_number: int, _frame: FrameType | None) -> None:
        if act == "raise":
            raise KeyboardInterrupt
        if act == "close":
            pair.channel.close()
        else:
            pair.peer.sendall(message(b"from the handler"))

    old = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        if act == "return":
            got = pair.channel.receive(PATIENCE, spin)
            assert got is not None
            assert got.payload == b"from the handler"
        else:
            expected = KeyboardInterrupt if act == "raise" else ClosedError
            with pytest.raises(expected):
                pair.channel.receive(PATIENCE, spin)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def test_what_is_no_socket_is_refused_and_left_alone() -> None:
    fd = os.memfd_create("no socket")
    with pytest.raises(HostError, match=f"^{NAME}: descriptor {fd} is no stream socket"):
        Channel(NAME, fd, LIMIT, FDS)
    os.close(fd)
    with pytest.raises(HostError, match="Bad file descriptor"):
        Channel(NAME, fd, LIMIT, FDS)


def test_a_non_blocking_socket_is_fine() -> None:
    left, right = socket.socketpair()
    right.setblocking(False)
    with left, closing(Channel(NAME, right.detach(), LIMIT, FDS)) as channel:
        assert channel.receive(0.15) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0x10000, 0, 0, 0, b""), "id is 65536, expected 0 to 65535"),
        ((-1, 0, 0, 0, b""), "id is -1, expected 0 to 65535"),
        ((0, 0x10000, 0, 0, b""), "command is 65536"),
        ((0, 0, 1 << 32, 0, b""), "flags is 4294967296"),
        ((0, 0, 0, -5, b""), "error is -5"),
        ((0, 0, 0, 0, b"", [-1]), "a file descriptor is -1"),
        ((0, 0, 0, 0, b"", [0] * 254), "254 file descriptors, expected at most 253"),
    ],
)
def test_what_cannot_be_sent(pair: Pair, arguments: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pair.channel.send(*arguments)  # type: ignore[arg-type]
    pair.channel.send(1, 2, 0, 0, b"")  # nothing of it went out
    assert pair.peer.recv(100) == header(16, number=1, command=2)


def test_a_descriptor_that_is_not_open_cannot_be_sent(pair: Pair) -> None:
    with pytest.raises(HostError, match="cannot send 16 bytes and 1 file descriptors: Bad file"):
        pair.channel.send(1, 2, 0, 0, b"", [1_000_000])


@pytest.mark.parametrize("arguments", [(-1, 0), (1 << 32, 0), (0, -1), (0, 254)])
def test_limits_have_limits(pair: Pair, arguments: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="expected 0 to"):
        pair.channel.set_limits(*arguments)
    with pytest.raises(ValueError, match="expected 0 to"):
        Channel(NAME, pair.channel.fileno(), *arguments)


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan")])
def test_times_are_finite_and_not_negative(pair: Pair, seconds: float) -> None:
    with pytest.raises(ValueError, match="timeout is"):
        pair.channel.receive(seconds)
    with pytest.raises(ValueError, match="spin is"):
        pair.channel.receive(1.0, seconds)
    with pytest.raises(ValueError, match="timeout is"):
        pair.channel.exchange(1, 2, b"", (), seconds)


def test_a_channel_that_is_forgotten_closes(files: list[int]) -> None:
    pair = Pair()
    socket.send_fds(pair.peer, [message()[:10]], files[:2])
    assert pair.channel.receive(0.0) is None
    del pair.channel
    assert pair.peer.recv(1) == b""
    pair.peer.close()

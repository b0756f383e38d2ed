"""The broker lends to one client at a time, and no client, however odd, ends or fools it."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import cast

import pytest

from tests.native.child import in_child
from uspace_drv.backends.vfio import Handover
from uspace_drv.broker import client, loan, server, wire
from uspace_drv.broker.server import Broker
from uspace_drv.deadline import Deadline
from uspace_drv.errors import (
    BusyError,
    DeviceTimeout,
    HostError,
    PeerError,
    UnsupportedError,
    UspaceError,
)
from uspace_drv.pci.address import PciAddress
from uspace_drv.port import DmaSpace

EDU = PciAddress(0, 0, 4, 0)


class FakeOpening:
    """What the broker opened: one end of a pipe, so that a test sees who holds it."""

    via = "vfio-fake"
    reset_fds: Sequence[int] = ()

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        self.closed = False

    @property
    def dma(self) -> DmaSpace:
        raise UnsupportedError("a fake has no memory")

    def open_device(self) -> int:
        return os.dup(self.write_end)

    def handover(self) -> Handover:
        return Handover(self.via, (self.write_end,), {"ioas": 7})

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            os.close(self.write_end)


class Bench:
    """A broker at work in a thread, and what it did."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.openings: list[FakeOpening] = []
        self.notices: list[str] = []
        self.resets = 0
        self.refusal: Exception | None = None
        self.users: set[int] | None = None

    def open(self, *_: object) -> FakeOpening:
        if self.refusal is not None:
            raise self.refusal
        self.openings.append(FakeOpening())
        return self.openings[-1]

    def reset(self, *_: object) -> None:
        self.resets += 1

    def wait_for(self, words: str) -> None:
        deadline = time.monotonic() + 10
        while not any(words in notice for notice in self.notices):
            assert time.monotonic() < deadline, self.notices
            time.sleep(0.001)
        self.notices.clear()


class NoLock:
    def close(self) -> None:
        pass


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench(tmp_path / "socket")
    monkeypatch.setattr(server, "open_function", bench.open)
    monkeypatch.setattr(server, "lock_function", lambda *_: NoLock())
    monkeypatch.setattr(server, "PciBus", type("Bus", (), {"host": None, "function": id}))
    monkeypatch.setattr(loan, "reset", bench.reset)
    broker = Broker(EDU, bench.path, notice=bench.notices.append)
    thread = threading.Thread(target=broker.serve, daemon=True)
    thread.start()
    yield bench
    broker.stop()
    thread.join(10)
    assert not thread.is_alive()
    broker.close()
    broker.close()
    assert not bench.path.exists()
    assert all(opening.closed for opening in bench.openings)
    for opening in bench.openings:
        os.close(opening.read_end)


def connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client._knock(connection, str(path), Deadline(10.0))
    connection.settimeout(10)
    return connection


def take(path: Path) -> tuple[socket.socket, wire.Offer]:
    connection = connect(path)
    try:
        return connection, wire.receive_offer(connection)
    except BaseException:
        connection.close()
        raise


def test_a_client_gets_descriptors_and_the_device_comes_back(bench: Bench) -> None:
    connection, offer = take(bench.path)
    assert (offer.address, offer.handover.kind) == ("0000:00:04.0", "vfio-fake")
    assert offer.handover.data == {"ioas": 7}
    (fd,) = offer.handover.fds
    assert not os.get_inheritable(fd)
    os.write(fd, b"x")
    assert os.read(bench.openings[-1].read_end, 1) == b"x"
    os.close(fd)
    connection.close()
    bench.wait_for("left")
    assert bench.openings[-1].closed
    assert os.read(bench.openings[-1].read_end, 1) == b""  # nobody holds it any more


def test_each_client_gets_it_opened_and_reset_anew(bench: Bench) -> None:
    for number in (1, 2, 3):
        connection, offer = take(bench.path)
        os.close(offer.handover.fds[0])
        assert (len(bench.openings), bench.resets) == (number + 1, number)  # one was a probe
        connection.close()
        bench.wait_for("left")


def test_one_client_at_a_time(bench: Bench) -> None:
    connection, offer = take(bench.path)
    with pytest.raises(BusyError, match=f"process {os.getpid()} has it"):
        take(bench.path)
    os.write(offer.handover.fds[0], b"x")  # the first one still has it
    os.close(offer.handover.fds[0])
    connection.close()


def test_a_client_that_talks_loses_the_device(bench: Bench) -> None:
    for words in (b"x", b"\0" * 8000, b'{"version": 1}'):
        connection, offer = take(bench.path)
        os.close(offer.handover.fds[0])
        connection.send(words)
        bench.wait_for("left")
        assert bench.openings[-1].closed
        connection.close()


def test_descriptors_that_a_client_sends_are_not_kept(bench: Bench) -> None:
    connection, offer = take(bench.path)
    os.close(offer.handover.fds[0])
    read_end, write_end = os.pipe()
    socket.send_fds(connection, [b"take this"], [write_end])
    os.close(write_end)
    bench.wait_for("left")
    connection.close()
    assert os.read(read_end, 1) == b""
    os.close(read_end)


def test_clients_that_hang_up_at_once_do_no_harm(bench: Bench) -> None:
    for _ in range(50):
        connect(bench.path).close()
    connection, offer = take_patiently(bench.path)
    os.close(offer.handover.fds[0])
    connection.close()


def take_patiently(path: Path) -> tuple[socket.socket, wire.Offer]:
    deadline = time.monotonic() + 10
    while True:
        try:
            return take(path)
        except BusyError:
            assert time.monotonic() < deadline


def test_what_cannot_be_opened_is_said_and_may_be_had_later(bench: Bench) -> None:
    bench.refusal = BusyError("0000:00:04.0: /dev/vfio/14 is open already")
    with pytest.raises(BusyError, match="/dev/vfio/14 is open already"):
        take(bench.path)
    bench.refusal = HostError("no such thing")
    with pytest.raises(HostError, match="no such thing"):
        take(bench.path)
    bench.refusal = OSError(errno.EMFILE, "Too many open files")
    with pytest.raises(HostError, match="Too many open files"):
        take(bench.path)
    bench.refusal = None
    connection, offer = take(bench.path)
    os.close(offer.handover.fds[0])
    connection.close()


def test_a_client_that_is_killed_gives_it_back(bench: Bench) -> None:
    done = in_child(
        """
import os, signal, socket
connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
connection.connect(sys.argv[1])
socket.recv_fds(connection, 4096, 4)
os.kill(os.getpid(), signal.SIGKILL)
""",
        str(bench.path),
    )
    assert done.returncode == -signal.SIGKILL
    bench.wait_for("left")
    assert os.read(bench.openings[-1].read_end, 1) == b""


def test_another_user_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "peer_of", lambda _: wire.Peer(4711, 1234))
    with pytest.raises(HostError, match="user 1234 may not have it; users 0"):
        take(bench.path)
    bench.wait_for("process 4711 of user 1234 refused")
    assert len(bench.openings) == 1  # the probe


def test_a_user_has_a_number_of_32_bits() -> None:
    class Connection:
        def getsockopt(self, *_: int) -> bytes:
            return struct.pack("iII", 4711, 3_000_000_000, 0)

    assert wire.peer_of(cast("socket.socket", Connection())) == (4711, 3_000_000_000)


def test_the_kernel_says_who_connects() -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        assert wire.peer_of(here) == (os.getpid(), os.getuid())


def test_a_socket_that_a_killed_broker_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left:
        left.bind(str(path))
    server._listen(path, path).close()
    with (
        closing(server._listen(path, path)),
        pytest.raises(BusyError, match="another server listens"),
    ):
        server._listen(path, path)


def test_the_socket_is_its_owners_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    listen = socket.socket.listen

    def look(listener: socket.socket, backlog: int) -> None:
        seen.append((tmp_path / "socket").stat().st_mode & 0o777)
        listen(listener, backlog)

    monkeypatch.setattr(socket.socket, "listen", look)
    before = os.umask(0)
    try:
        server._listen(tmp_path / "socket", tmp_path / "socket").close()
    finally:
        os.umask(before)
    assert seen == [0o600]


def test_the_folder_of_the_socket_may_be_moved_by_its_owner(bench: Bench) -> None:
    """A user must not lead a broker of root's elsewhere by a link in the folder's place."""
    folder, elsewhere = bench.path.parent / "folder", bench.path.parent / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (elsewhere / "socket").write_text("precious")
    broker = Broker(EDU, folder / "socket", user=os.getuid())
    folder.rename(folder.with_name("moved"))
    folder.symlink_to(elsewhere)
    broker.close()
    assert (elsewhere / "socket").read_text() == "precious"
    assert list(folder.with_name("moved").iterdir()) == []


@pytest.mark.usefixtures("bench")
def test_what_is_no_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(HostError, match="exists and is no socket"):
        Broker(EDU, path)
    assert path.read_text() == "precious"
    with pytest.raises(HostError, match="cannot serve at"):
        Broker(EDU, tmp_path / "no" / "folder")
    with pytest.raises(HostError, match="cannot serve at"):
        Broker(EDU, tmp_path / ("x" * 200))


# the client, and brokers that are none


@contextmanager
def answering(path: Path, answer: Callable[[socket.socket], object]) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()

        def run() -> None:
            connection, _ = listener.accept()
            with connection:
                answer(connection)
                connection.recv(1)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("packet", "words"),
    [
        (b"garbage", "which is no JSON"),
        (b"\xff\xfe", "which is no JSON"),
        (b"[]", "expected an offer"),
        (b"{}", "expected an offer"),
        (b'{"version": 2}', "speaks version 2; expected 1"),
        (b'{"version": 1, "address": 5, "kind": "a", "data": {}}', "expected an offer"),
        (
            b'{"version": 1, "address": "0000:00:04.0", "kind": "", "data": 1}',
            "expected an offer",
        ),
        (b" " * 20000, "longer than an answer may be"),
        (b"[" * 16000, "which is no JSON"),
    ],
)
def test_strange_answers(tmp_path: Path, packet: bytes, words: str) -> None:
    read_end, write_end = os.pipe()
    path = tmp_path / "socket"
    with (
        answering(path, lambda connection: socket.send_fds(connection, [packet], [write_end])),
        pytest.raises(PeerError, match=f"^broker:{path}: .*{words}"),
    ):
        client.open_brokered(str(path))
    os.close(write_end)
    assert os.read(read_end, 1) == b""  # the client closed what came with it
    os.close(read_end)


@pytest.mark.parametrize(
    ("kind", "data", "error", "why"),
    [
        ("vfio-type1", {"x": 1}, PeerError, "was handed over wrongly"),
        ("vfio-cdev", {}, PeerError, "was handed over wrongly"),
        ("vfio-type1", {}, PeerError, "was handed over wrongly"),
        ("vfio-of-tomorrow", {}, UnsupportedError, "which this version does not know"),
    ],
)
def test_an_offer_that_cannot_be_taken(
    tmp_path: Path, kind: str, data: dict[str, int], error: type[UspaceError], why: str
) -> None:
    read_end, write_end = os.pipe()
    words = {"version": 1, "address": "0000:00:04.0", "kind": kind, "data": data}
    packet = json.dumps(words).encode()
    path = tmp_path / "socket"
    with (
        answering(path, lambda connection: socket.send_fds(connection, [packet], [write_end])),
        pytest.raises(error, match=why),
    ):
        client.open_brokered(str(path))
    os.close(write_end)
    assert os.read(read_end, 1) == b""
    os.close(read_end)


def test_a_broker_that_hangs_up_or_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with (
        answering(path, lambda connection: connection.shutdown(socket.SHUT_RDWR)),
        pytest.raises(PeerError, match="hung up without an answer"),
    ):
        client.open_brokered(str(path))
    path.unlink()
    with (
        answering(path, lambda _: None),
        pytest.raises(DeviceTimeout, match=r"no answer within 0\.050 s"),
    ):
        client.open_brokered(str(path), timeout=0.05)


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"is a broker at work\? run: sudo uspace broker ADDR"):
        client.open_brokered(str(tmp_path / "none"))


def test_a_device_that_is_lent_hangs_up_when_it_is_closed() -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    opening = FakeOpening()
    brokered = client.Brokered(opening, here)
    assert (brokered.via, brokered.reset_fds) == ("vfio-fake", ())
    assert brokered.handover().fds == (opening.write_end,)
    os.close(brokered.open_device())
    with pytest.raises(UnsupportedError):
        _ = brokered.dma
    brokered.close()
    brokered.close()
    assert opening.closed
    assert there.recv(1) == b""
    there.close()
    os.close(opening.read_end)

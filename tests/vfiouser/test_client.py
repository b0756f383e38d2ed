"""The client's session against a scripted server: negotiation, replies, the server's requests."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.vfiouser.scripted_server import Handler, Reply, ScriptedServer
from uspace_drv.errors import (
    ClosedError,
    DeviceError,
    DeviceGone,
    DeviceTimeout,
    HostError,
    NoDevice,
    PeerError,
    UnsupportedError,
)
from uspace_drv.native import Channel, Message
from uspace_drv.vfiouser import client, wire
from uspace_drv.vfiouser.client import AT_ONCE, POSTED_LIMIT, Session
from uspace_drv.vfiouser.listener import Listener
from uspace_drv.vfiouser.numbers import Command, Flag
from uspace_drv.vfiouser.version import Capabilities, TwinSocket, Version, pack_version

pytestmark = pytest.mark.usefixtures("nothing_left")

WAIT = 10.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ScriptedServer]:
    with ScriptedServer(tmp_path / "s") as server:
        yield server


@pytest.fixture
def session(server: ScriptedServer) -> Iterator[Session]:
    with closing(Session("device", str(server.path))) as session:
        yield session


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer costs a test less than the real deadline."""
    monkeypatch.setattr(client, "TIMEOUT", 0.05)


def test_no_socket_says_how_to_serve(tmp_path: Path) -> None:
    with pytest.raises(NoDevice, match=r"there is no socket .*run: uspace serve MODEL"):
        Session("device", str(tmp_path / "none"))


def test_nobody_listens(tmp_path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(tmp_path / "s"))
    with pytest.raises(NoDevice, match="nobody listens"):
        Session("device", str(tmp_path / "s"))


def test_path_that_is_too_long() -> None:
    with pytest.raises(HostError, match="cannot connect"):
        Session("device", "/tmp/" + "x" * 200)


def test_negotiates(server: ScriptedServer, session: Session) -> None:
    assert session.capabilities.max_msg_fds == 16
    assert server.log[0].command == Command.VERSION


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (Version(1, 0), "answers 1.0, expected 0.0 to 0.2"),
        (Version(0, 9), "answers 0.9"),
        (Version(0, 1, Capabilities(max_data_xfer_size=4)), "max_data_xfer_size is 4"),
        (Version(0, 1, Capabilities(pgsizes=0x10000)), "pgsizes is 0x10000, expected 0x1000"),
        (Version(0, 1, Capabilities(twin_socket=TwinSocket(True, 0))), "descriptor 0, and 0 came"),
        (Version(0, 1, Capabilities(twin_socket=TwinSocket(True))), "descriptor None"),
    ],
)
def test_refuses_a_version(server: ScriptedServer, version: Version, words: str) -> None:
    server.handlers[Command.VERSION] = lambda _: Reply(pack_version(version))
    with pytest.raises(PeerError, match=rf"^device: VERSION: .*{words}"):
        Session("device", str(server.path))


def test_version_without_an_answer(server: ScriptedServer, quick: None) -> None:
    server.handlers[Command.VERSION] = lambda _: None
    with pytest.raises(DeviceTimeout, match=r"no reply to VERSION within 0\.050 s") as caught:
        Session("device", str(server.path))
    assert "another one may have it" in str(caught.value.__notes__)


def test_error_of_the_server(server: ScriptedServer, session: Session) -> None:
    server.handlers[Command.DEVICE_RESET] = lambda _: Reply(error=5)
    with pytest.raises(DeviceError, match="refused DEVICE_RESET: Input/output error"):
        session.request(Command.DEVICE_RESET)
    server.handlers[Command.DEVICE_RESET] = lambda _: Reply(error=0)
    with pytest.raises(DeviceError, match="refused DEVICE_RESET: error 0"):
        session.request(Command.DEVICE_RESET)
    server.handlers[Command.DEVICE_RESET] = lambda _: Reply(error=95)
    with pytest.raises(UnsupportedError, match="not supported"):
        session.request(Command.DEVICE_RESET)


def test_late_reply_is_not_taken_for_the_next_one(
    server: ScriptedServer, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Message] = []

    def hold(message: Message) -> Reply | None:
        held.append(message)
        if len(held) < 2:
            return None
        assert server.channel is not None
        first = held[0]
        server.channel.send(first.id, first.command, Flag.REPLY, 0, b"late")
        return Reply(b"in time")

    server.handlers[Command.REGION_READ] = hold
    monkeypatch.setattr(client, "TIMEOUT", 0.05)
    with pytest.raises(DeviceTimeout, match="no reply to REGION_READ within"):
        session.request(Command.REGION_READ)
    monkeypatch.undo()
    assert session.request(Command.REGION_READ) == b"in time"


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(id=0x7777), "reply to request 30583, which was never made"),
        (Reply(command=3), "says that it is one to command 3"),
        (Reply(raw=bytes(16)), "a message of 0 bytes"),
        (Reply(raw=b"\0" * 4 + b"\xff" * 4 + bytes(8)), "a message of 4294967295 bytes"),
    ],
)
def test_reply_that_makes_no_sense(
    server: ScriptedServer, session: Session, reply: Reply, words: str
) -> None:
    server.handlers[Command.DEVICE_RESET] = lambda _: reply
    with pytest.raises(PeerError, match=rf"^device: .*{words}"):
        session.request(Command.DEVICE_RESET)


def test_descriptors_that_nobody_asked_for(server: ScriptedServer, session: Session) -> None:
    server.handlers[Command.DEVICE_RESET] = lambda _: Reply(fds=(0, 0))
    with pytest.raises(PeerError, match="2 descriptors with the reply to DEVICE_RESET"):
        session.request(Command.DEVICE_RESET)
    server.handlers[Command.DEVICE_RESET] = lambda _: Reply(fds=(0, 0), error=5)
    with pytest.raises(DeviceError, match="refused"):
        session.request(Command.DEVICE_RESET)


def test_server_that_dies_before_it_answers(server: ScriptedServer, session: Session) -> None:
    server.handlers[Command.DEVICE_RESET] = lambda _: server.hang_up()
    with pytest.raises(DeviceGone, match=r"^device: the peer closed the connection"):
        session.request(Command.DEVICE_RESET)
    with pytest.raises(DeviceGone, match="closed the connection"):
        session.check_alive()


def test_closed_session(server: ScriptedServer, session: Session) -> None:
    session.close()
    with pytest.raises(ClosedError):
        session.request(Command.DEVICE_RESET)


def test_every_so_many_posted_writes_one_waits(server: ScriptedServer, session: Session) -> None:
    for _ in range(POSTED_LIMIT):
        session.post(Command.REGION_WRITE, wire.pack(wire.RegionAccess(0, 0, 1), b"x"))
    session.request(Command.DEVICE_RESET)
    flags = [message.flags for message in server.log if message.command == Command.REGION_WRITE]
    assert flags == [Flag.NO_REPLY] * (POSTED_LIMIT - 1) + [0]


def test_answers_the_server_while_it_waits_for_a_reply(
    server: ScriptedServer, session: Session
) -> None:
    def answer(command: int, payload: bytes) -> bytes:
        return payload[::-1]

    def ask_back(message: Message) -> Reply:
        assert server.channel is not None
        return Reply(server.ask(server.channel, Command.DMA_READ, b"abc").payload)

    session.answer = answer
    server.handlers[Command.DEVICE_RESET] = ask_back
    assert session.request(Command.DEVICE_RESET) == b"cba"


def test_refuses_the_server_s_requests_by_default(server: ScriptedServer, session: Session) -> None:
    replies: list[Message] = []

    def ask_back(message: Message) -> Reply:
        assert server.channel is not None
        replies.append(server.ask(server.channel, Command.DMA_READ, b"abc"))
        return Reply()

    server.handlers[Command.DEVICE_RESET] = ask_back
    session.request(Command.DEVICE_RESET)
    assert (replies[0].flags, replies[0].error) == (Flag.REPLY | Flag.ERROR, 95)


@pytest.mark.parametrize("has_twin", [False, True])
def test_listener_answers_while_nobody_asks(server: ScriptedServer, has_twin: bool) -> None:
    if has_twin:
        server.handlers[Command.VERSION] = _offer_twin(server)
    with closing(Session("device", str(server.path))) as session:
        session.answer = lambda command, payload: payload[::-1]
        with closing(Listener(session)):
            channel = server.twin or server.channel
            assert channel is not None
            # The scripted server's thread receives from its own channel, so it asks there.
            answers: list[bytes] = []
            asked = threading.Event()
            questions = (b"ab0", b"ab1", b"ab2")

            def ask_later(message: Message) -> Reply | None:
                assert server.channel is not None
                server.channel.send(message.id, message.command, Flag.REPLY, 0, b"")
                answers.extend(server.ask(channel, Command.DMA_READ, q).payload for q in questions)
                asked.set()
                return None

            server.handlers[Command.DEVICE_RESET] = ask_later
            session.request(Command.DEVICE_RESET)
            assert asked.wait(WAIT)
            assert answers == [b"0ba", b"1ba", b"2ba"]


def test_listener_and_requests_share_a_socket(server: ScriptedServer, session: Session) -> None:
    session.answer = lambda command, payload: payload[::-1]

    def ask_back(message: Message) -> Reply:
        assert server.channel is not None
        return Reply(server.ask(server.channel, Command.DMA_READ, b"abc").payload)

    server.handlers[Command.DEVICE_RESET] = ask_back
    with closing(Listener(session)):
        for _ in range(200):
            assert session.request(Command.DEVICE_RESET) == b"cba"


def test_request_that_comes_with_a_reply_is_answered(
    server: ScriptedServer, session: Session
) -> None:
    answered = threading.Event()

    def reply_and_ask(message: Message) -> Reply:
        reply = struct.pack("<HHIII", message.id, message.command, 16, Flag.REPLY, 0)
        return Reply(raw=reply + struct.pack("<HHIII", 9, Command.DMA_READ, 16, 0, 0))

    server.handlers[Command.DEVICE_RESET] = reply_and_ask
    server.handlers[Command.DMA_READ] = lambda _: answered.set()
    with closing(Listener(session)):
        for _ in range(20):
            session.request(Command.DEVICE_RESET)
            assert answered.wait(WAIT)
            answered.clear()


def test_many_requests_that_come_with_a_reply_are_all_answered(
    server: ScriptedServer, session: Session
) -> None:
    count = 10 * AT_ONCE
    answered = threading.Semaphore(0)

    def reply_and_ask(message: Message) -> Reply:
        reply = struct.pack("<HHIII", message.id, message.command, 16, Flag.REPLY, 0)
        return Reply(raw=reply + struct.pack("<HHIII", 9, Command.DMA_READ, 16, 0, 0) * count)

    server.handlers[Command.DEVICE_RESET] = reply_and_ask
    server.handlers[Command.DMA_READ] = lambda _: answered.release()
    with closing(Listener(session)):
        session.request(Command.DEVICE_RESET)
        for _ in range(count):
            assert answered.acquire(timeout=WAIT)


def test_listener_ends_with_the_server(server: ScriptedServer, session: Session) -> None:
    with closing(Listener(session)) as listener:
        server.hang_up()
        listener._thread.join(WAIT)
        assert not listener._thread.is_alive()
        with pytest.raises(DeviceGone):
            session.check_alive()


def test_what_goes_wrong_in_the_listener_is_told(server: ScriptedServer) -> None:
    server.handlers[Command.VERSION] = _offer_twin(server)
    with closing(Session("device", str(server.path))) as session:
        with closing(Listener(session)) as listener:
            assert server.twin is not None
            os.write(server.twin.fileno(), bytes(16))
            listener._thread.join(WAIT)
        with pytest.raises(PeerError, match=r"^device \(twin socket\): a message of 0 bytes"):
            session.check_alive()


def test_request_with_descriptors_is_refused(server: ScriptedServer, session: Session) -> None:
    replies: list[Message | None] = []

    def ask_back(message: Message) -> Reply:
        assert server.channel is not None
        replies.append(server.channel.exchange(1, Command.DMA_READ, b"", (0,), WAIT))
        return Reply()

    server.handlers[Command.DEVICE_RESET] = ask_back
    session.request(Command.DEVICE_RESET)
    assert replies[0] is not None
    assert replies[0].error == 22


def _offer_twin(server: ScriptedServer) -> Handler:
    ours, theirs = socket.socketpair()
    server.twin = Channel("twin", ours.detach(), 1 << 21, 0)
    capabilities = Capabilities(max_msg_fds=16, twin_socket=TwinSocket(True, 1))

    def answer(message: Message) -> Reply | None:
        spare = os.dup(0)
        assert server.channel is not None
        server.channel.send(
            message.id,
            message.command,
            Flag.REPLY,
            0,
            pack_version(Version(0, 1, capabilities)),
            (spare, theirs.fileno()),
        )
        os.close(spare)
        theirs.close()
        return None

    return answer

"""Two threads at one socket: the session that receives commands, the model that awaits a reply."""

from __future__ import annotations

import threading
from typing import NamedTuple, cast

from uspace_drv.native import Channel
from uspace_drv.vfiouser.numbers import Command, Flag
from uspace_drv.vfiouser.server.conversation import Conversation


class Said(NamedTuple):
    """As a `Message`; a look at its flags lets other threads run."""

    id: int
    command: int
    payload: bytes
    error: int = 0
    fds: tuple[int, ...] = ()

    @property
    def flags(self) -> int:
        threading.Event().wait(0.01)
        return Flag.REPLY


class Answering:
    """In place of a channel: the session's receive returns the reply, any other one finds none."""

    name = "peer"
    closed = False
    partial = 0

    def __init__(self) -> None:
        self.receivers: list[str] = []
        self.waits = threading.Event()
        self.number: int | None = None
        self.sent = threading.Event()

    def send(self, number: int, command: int, *rest: object) -> None:
        self.number = number
        self.sent.set()

    def receive(self, timeout: float, spin: float = 0.0) -> Said | None:
        self.receivers.append(threading.current_thread().name)
        if len(self.receivers) > 1:
            return None
        self.waits.set()
        assert self.sent.wait(10.0)
        threading.Event().wait(0.05)  # until the other thread waits too
        assert self.number is not None
        return Said(self.number, Command.DMA_READ, b"data")


def test_a_reply_that_the_session_meets_is_there_when_its_thread_is_woken() -> None:
    channel = Answering()
    conversation = Conversation(cast(Channel, channel))
    session = threading.Thread(target=conversation.next_command, name="session")
    session.start()
    assert channel.waits.wait(10.0)
    assert conversation.request(Command.DMA_READ, b"") == b"data"
    session.join(10.0)
    assert channel.receivers == ["session"]

"""One socket on which commands come and replies to our own commands come back, in any order.

QEMU docs/interop/vfio-user.rst, "Command Concurrency". Whoever waits receives for all: a thread of
the model that waits for its reply puts commands aside for the session, and the session hands over a
reply that it meets. So a reply arrives even while the session is inside of the model.
"""

from __future__ import annotations

import os
from collections import deque
from threading import Condition, Lock
from typing import NoReturn

from uspace_drv.deadline import Deadline
from uspace_drv.errors import ClosedError, DeviceError, PeerError
from uspace_drv.native import Channel, Message
from uspace_drv.vfiouser.numbers import Command, Flag
from uspace_drv.vfiouser.refusals import close_all

PATIENCE = 5.0
"""Seconds that a peer gets to answer a command, or to finish a message that it has begun."""

SLICE = 1.0
"""Seconds after which a wait looks around."""

REPLY, ERROR = int(Flag.REPLY), int(Flag.ERROR)
"""As plain numbers, which cost a tenth of the time."""

MOST_WAITING = 1024
"""Commands put aside while a reply is awaited; whoever sends more does not mean to get one."""

MOST_LOAD = 4 << 20
"""Bytes that these may hold, where a descriptor counts as `DESCRIPTOR_LOAD` bytes."""

DESCRIPTOR_LOAD = 16 << 10


class Conversation:
    """Fills `next_command` for one thread, and `request` for any.

    Without `takes_commands` the peer may only answer.
    """

    def __init__(self, channel: Channel, spin: float = 0.0, *, takes_commands: bool = True) -> None:
        self._takes_commands = takes_commands
        self.is_one_way = False
        """Nobody calls `request` here: then receiving needs no lock."""
        self._channel = channel
        self._spin = spin
        self._lock = Lock()
        self._turn = Condition(self._lock)
        self._receiving = False
        self._commands: deque[Message] = deque()
        self._load = 0
        self._awaited: dict[int, Message | None] = {}
        self._last_id = 0
        self._stall: Deadline | None = None

    def next_command(self) -> Message | None:
        """The next command; None now and then, when there is none, or when the channel was woken.

        `PeerError` for a message that was begun and does not go on.
        """
        message = self._receive() if self.is_one_way else self._receive_in_turn()
        if message is None:
            self._check_progress()
        else:
            self._stall = None
        return message

    def request(self, command: Command, payload: bytes) -> bytes:
        """Send a command and return the payload of its reply.

        `DeviceError` where the peer says no, `PeerError` where it says nothing for `PATIENCE`.
        """
        deadline = Deadline(PATIENCE)
        with self._turn:
            number = self._free_id()
            self._awaited[number] = None
        try:
            self._channel.send(number, command, 0, 0, payload)
            while (reply := self._awaited[number]) is None:
                if deadline.passed:
                    raise PeerError(
                        f"{self._channel.name}: no reply to {command.name} within {PATIENCE} s"
                    )
                self._receive_for_all(number, min(SLICE, deadline.remaining()))
        finally:
            with self._turn:
                del self._awaited[number]
        self._check_reply(reply, command)
        return reply.payload

    def close(self) -> None:
        """End the connection; descriptors of commands that nobody took are closed."""
        self._channel.close()
        with self._turn:
            for message in self._commands:
                close_all(message.fds)
            self._commands.clear()
            self._turn.notify_all()

    def _receive(self) -> Message | None:
        message = self._channel.receive(SLICE, self._spin)
        if message is not None and message.flags & REPLY:
            self._refuse(message)
        return message

    def _receive_in_turn(self) -> Message | None:
        """The next command, unless a thread that waits for its reply receives for all."""
        with self._lock:
            if self._commands:
                message = self._commands.popleft()
                self._load -= _load_of(message)
                return message
            if self._receiving:
                self._turn.wait(SLICE)
                return None
            self._receiving = True
        received = None
        try:
            received = self._channel.receive(SLICE, self._spin)
        finally:
            with self._lock:
                self._receiving = False
                if self._awaited:  # whoever is woken now finds its reply, and receives no more
                    if received is not None and self._hand_over(received):
                        received = self._stall = None
                    self._turn.notify_all()
        if received is not None and received.flags & REPLY:
            self._refuse(received)
        return received

    def _free_id(self) -> int:
        while True:
            self._last_id = (self._last_id + 1) & 0xFFFF
            if self._last_id not in self._awaited:
                return self._last_id

    def _receive_for_all(self, number: int, timeout: float) -> None:
        with self._turn:
            if self._awaited[number] is not None:
                return
            if self._receiving:
                self._turn.wait(timeout)
                return
            self._receiving = True
        message = None
        try:
            message = self._channel.receive(timeout)
        finally:
            with self._turn:
                self._receiving = False
                if message is not None and (self._hand_over(message) or self._put_aside(message)):
                    message = None
                self._turn.notify_all()
        if message is not None:
            self._refuse(message)

    def _hand_over(self, message: Message) -> bool:
        """Give a reply to whom it is for."""
        if not message.flags & REPLY or self._awaited.get(message.id, message) is not None:
            return False
        self._awaited[message.id] = message
        return True

    def _put_aside(self, message: Message) -> bool:
        """Keep a command for the session, if there are not too many."""
        if message.flags & REPLY or not self._takes_commands or self._channel.closed:
            return False
        load = self._load + _load_of(message)
        if len(self._commands) >= MOST_WAITING or load > MOST_LOAD:
            return False
        self._commands.append(message)
        self._load = load
        return True

    def _refuse(self, message: Message) -> NoReturn:
        close_all(message.fds)
        if self._channel.closed:
            raise ClosedError(f"{self._channel.name} is closed")
        if message.flags & REPLY:
            what = "a reply to nothing"
        elif self._takes_commands:
            what = "too many commands at once"
        else:
            what = f"command {message.command}, expected replies only"
        raise PeerError(f"{self._channel.name}: {what} (id {message.id})")

    def _check_reply(self, reply: Message, command: Command) -> None:
        if reply.fds:
            close_all(reply.fds)
            raise PeerError(f"{self._channel.name}: descriptors with the reply to {command.name}")
        if reply.command != command:
            raise PeerError(
                f"{self._channel.name}: a reply to command {reply.command}, expected {command.name}"
            )
        if reply.flags & ERROR:
            reason = os.strerror(reply.error) if reply.error else "no reason given"
            raise DeviceError(f"{self._channel.name}: {command.name} was refused: {reason}")

    def _check_progress(self) -> None:
        if not self._channel.partial:
            self._stall = None
        elif self._stall is None:
            self._stall = Deadline(PATIENCE)
        elif self._stall.passed:
            raise PeerError(
                f"{self._channel.name}: a message was begun and not finished within {PATIENCE} s"
            )


def _load_of(message: Message) -> int:
    return len(message.payload) + DESCRIPTOR_LOAD * len(message.fds)

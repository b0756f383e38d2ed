"""One socket on which commands come and replies to our own commands come back, in any order.

QEMU docs/interop/vfio-user.rst, "Command Concurrency". Whoever waits receives for all: a thread of
the model that waits for its reply puts commands aside for the session, and the session hands over a
reply that it meets. So a reply arrives even while the session is inside of the model.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from threading import Condition, Lock

from uspace_drv.deadline import Deadline
from uspace_drv.errors import ClosedError, DeviceError, PeerError
from uspace_drv.native import Channel, Message
from uspace_drv.vfiouser.numbers import Command, Flag

PATIENCE = 5.0
"""Seconds that a peer gets to answer a command, or to finish a message that it has begun."""

SLICE = 1.0
"""Seconds after which a wait looks around."""

REPLY, ERROR = int(Flag.REPLY), int(Flag.ERROR)
"""As plain numbers, which cost a tenth of the time."""

MOST_WAITING = 1024
"""Commands put aside while a reply is awaited; whoever sends more does not mean to get one."""


class Conversation:
    """Fills `next_command` for one thread, and `request` for any."""

    def __init__(self, channel: Channel, spin: float = 0.0) -> None:
        self.is_one_way = False
        """Nobody calls `request` here: then receiving needs no lock."""
        self._channel = channel
        self._spin = spin
        self._lock = Lock()
        self._turn = Condition(self._lock)
        self._receiving = False
        self._commands: deque[Message] = deque()
        self._awaited: dict[int, Message | None] = {}
        self._last_id = 0
        self._stall: Deadline | None = None

    def next_command(self) -> Message | None:
        """The next command; None now and then, when there is none, or when the channel was woken.

        `PeerError` for a message that was begun and does not go on.
        """
        message = self._receive(SLICE) if self.is_one_way else self._receive_in_turn()
        if message is None:
            self._check_progress()
            return None
        if message.flags & REPLY:
            self._sort(message)
            return None
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

    def _receive(self, timeout: float) -> Message | None:
        return self._channel.receive(timeout, self._spin)

    def _receive_in_turn(self) -> Message | None:
        """The next message, unless a thread that waits for its reply receives for all."""
        with self._lock:
            if self._commands:
                return self._commands.popleft()
            if self._receiving:
                self._turn.wait(SLICE)
                return None
            self._receiving = True
        try:
            return self._receive(SLICE)
        finally:
            with self._lock:
                self._receiving = False
                if self._awaited:
                    self._turn.notify_all()

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
        try:
            message = self._channel.receive(timeout)
            if message is not None:
                self._sort(message)
        finally:
            with self._turn:
                self._receiving = False
                self._turn.notify_all()

    def _sort(self, message: Message) -> None:
        """Give a message to whom it is for."""
        with self._turn:
            if self._channel.closed:
                close_all(message.fds)
                raise ClosedError(f"{self._channel.name} is closed")
            if not message.flags & REPLY and len(self._commands) < MOST_WAITING:
                self._commands.append(message)
                return
            if message.flags & REPLY and self._awaited.get(message.id, message) is None:
                self._awaited[message.id] = message
                self._turn.notify_all()
                return
        close_all(message.fds)
        what = "a reply to nothing" if message.flags & REPLY else "too many commands at once"
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


def close_all(descriptors: Iterable[int]) -> None:
    """Close what came with a message."""
    for descriptor in descriptors:
        os.close(descriptor)

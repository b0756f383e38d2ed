"""The admin queue: commands one by one, from any thread, and the asynchronous events beside them.

Queue 0 of a controller (NVM Express Base Specification 1.4, sections 4.1 and 5). There is little of
this work and nobody hurries, so the rings are the engine's (hot.c) and all else is done here.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uspace_drivers.nvme.control.handshake import Handshake
from uspace_drivers.nvme.engine.doorbells import Doorbell
from uspace_drivers.nvme.engine.hot import Memory, Queue
from uspace_drivers.nvme.engine.interrupts import SharedInterrupt
from uspace_drivers.nvme.engine.requests import Result
from uspace_drivers.nvme.spec.command_error import CommandError
from uspace_drivers.nvme.spec.commands import AdminOpcode, Completion
from uspace_drivers.nvme.spec.registers import doorbell
from uspace_drivers.nvme.spec.status import Status
from uspace_drv import (
    ClosedError,
    Deadline,
    Device,
    DeviceTimeout,
    RegisterValueError,
    publish,
)
from uspace_drv.layout import Structures

ENTRIES = 32
"""Of the submission ring, and of the completion ring."""

SPIN = 100e-6
"""Seconds that a wait keeps the processor busy before it sleeps."""

DATA_LIMIT = 16 * 1024
"""Bytes that one admin command may move; larger logs and images are read and written in pieces."""

PLACES = 8
"""Admin commands with data that may be in flight at once."""

FOR_EVENTS = 4
"""Commands that may always be sent, beside those that somebody waits for."""

EVENT = 1 << 63
"""Marks the tag of an Async Event Request, for which nobody waits."""

TO_DEVICE, FROM_DEVICE = 1, 2
"""What the low bits of an opcode say about its data (section 4.2, figure 106)."""


class AdminQueue:
    """Queue 0. `on_event(status, result)` is told of events, under the lock: it only takes note.

    `check` raises where the controller was given up, and there is nothing to wait for any more.
    Takes one DMA buffer, which goes with the device. `reset` comes before the first command.
    """

    def __init__(
        self,
        device: Device,
        handshake: Handshake,
        shared: SharedInterrupt,
        on_event: Callable[[int, int], None],
        check: Callable[[], None],
    ) -> None:
        self._name = f"{device.address} admin queue"
        self._process = os.getpid()
        self._shared = shared
        self._on_event = on_event
        self._check = check
        self._turn = threading.Lock()
        self.entries = ENTRIES
        page = self._page = handshake.page_size
        lists, data = 2 * page, (2 + self.entries) * page
        self._buffer = device.dma.alloc("u1", data + PLACES * DATA_LIMIT)
        memory = self._buffer.array
        self._rings = Queue(
            device.address,
            0,
            memory[: self.entries * 64],
            memory[page : page + self.entries * Completion.SIZE],
            memory[lists:data],
            self._buffer.iova + lists,
            Memory(),
            page_size=page,
        )
        stride = handshake.capabilities.dstrd
        store = device.bar(0).write32
        self._tail = Doorbell(store, doorbell(0, False, stride))
        self._head = Doorbell(store, doorbell(0, True, stride))
        self._results = Result.array(self.entries)
        self._free = [data + number * DATA_LIMIT for number in range(PLACES)]
        self._places: dict[int, int] = {}
        self._answers: dict[int, tuple[int, int]] = {}
        self._waiting: set[int] = set()
        self._done: set[int] = set()
        self._last_tag = 0
        self._is_open = False

    @property
    def submission_iova(self) -> int:
        """Where its commands are."""
        return self._buffer.iova

    @property
    def completion_iova(self) -> int:
        """Where its completions are."""
        return self._buffer.iova + self._page

    def open(self) -> None:
        """Let commands through: the controller is ready."""
        with self._turn:
            self._is_open = True

    def reset(self) -> None:
        """Begin anew, as the controller does that is disabled now; who waits gets an error.

        Until `open`, new commands wait.
        """
        with self._turn:
            self._is_open = False
            while count := self._rings.abandon(self._results, int(Status.ABORTED_BY_HOST)):
                self._take(self._results[:count])
            self._rings.reset()
            self._head.forget()

    def post(self, command: Structures, tag: int) -> None:
        """Send a command that nobody waits for; `on_event` hears of its end."""
        with self._turn:
            if self._is_open:
                self._send(command, 0, 0, EVENT | tag)

    def collect(self) -> None:
        """Take what has been completed: answers for those who wait, and events.

        Raises `DeviceError` for a completion that cannot be one.
        """
        with self._turn:
            self._collect(0.0)

    def require_own_process(self) -> None:
        """Raise `ClosedError` in a forked child: rings, memory and threads are the parent's."""
        if os.getpid() != self._process:
            raise ClosedError(
                f"{self._name} was opened by process {self._process}, of which this one is a "
                "forked child; attach the driver in the process that uses it"
            )

    def call(self, command: Structures, data: NDArray[Any] | None, timeout: float) -> int:
        """Send a command and wait for its end; returns dword 0 of the completion.

        `data` is written or read as the opcode says: up to `DATA_LIMIT` bytes, contiguous. Raises
        `CommandError`, `DeviceTimeout` after `timeout` seconds, when it is still in flight, and
        `ClosedError` in a forked child.
        """
        self.require_own_process()  # before a ring changes that is the parent's
        content = None if data is None else np.frombuffer(data, "u1")
        if content is not None and content.nbytes > DATA_LIMIT:
            raise RegisterValueError(
                f"{self._name}: {content.nbytes} bytes, but one command moves up to {DATA_LIMIT}"
            )
        deadline = Deadline(timeout)
        tag = self._submit(command, content, deadline)
        try:
            status, result = self._wait(tag, command, deadline)
            if content is not None and _opcode(command) & FROM_DEVICE and not status:
                place = self._places[tag]
                content[:] = self._buffer.array[place : place + content.nbytes]
        finally:
            self._leave(tag)
        if status:
            name = self._name.removesuffix(" admin queue")
            raise CommandError(name, _opcode(command), int(command["namespace"][0]), status)
        return result

    def _submit(self, command: Structures, content: NDArray[Any] | None, deadline: Deadline) -> int:
        """Send it as soon as there is room; its tag."""
        while True:
            mark = self._shared.mark
            with self._turn:
                self._collect(0.0)
                if (sent := self._try(command, content)) is not None:
                    return sent
            self._check()
            if deadline.passed:
                raise self._timeout("could not be sent", command, deadline)
            self._shared.sleep(mark, deadline)

    def _try(self, command: Structures, content: NDArray[Any] | None) -> int | None:
        has_room = self._rings.free > FOR_EVENTS and (content is None or self._free)
        if not (self._is_open and has_room):
            return None
        self._last_tag += 1
        tag, place, size = self._last_tag, 0, 0
        if content is not None:
            place, size = self._free.pop(), content.nbytes
            self._places[tag] = place
            shown = self._buffer.array[place : place + size]
            shown[:] = content if _opcode(command) & TO_DEVICE else 0
        self._send(command, self._buffer.iova + place if size else 0, size, tag)
        self._waiting.add(tag)
        return tag

    def _send(self, command: Structures, where: int, size: int, tag: int) -> None:
        self._rings.submit_command(command, where, size, tag)
        publish(self._tail, self._rings.tail)

    def _leave(self, tag: int) -> None:
        """Wait no more; its place for data is free once the controller does not use it either."""
        with self._turn:
            self._waiting.discard(tag)
            self._answers.pop(tag, None)
            if tag in self._done:
                self._free_place(tag)

    def _free_place(self, tag: int) -> None:
        self._done.discard(tag)
        place = self._places.pop(tag, None)
        if place is not None:
            self._free.append(place)

    def _wait(self, tag: int, command: Structures, deadline: Deadline) -> tuple[int, int]:
        """Poll for a while, then sleep on the interrupt; the last look is after the deadline."""
        spin = SPIN
        while True:
            mark, last_look = self._shared.mark, deadline.passed
            with self._turn:
                if tag not in self._answers:
                    self._collect(spin)
                if tag in self._answers:
                    return self._answers.pop(tag)
                if last_look:
                    raise self._timeout("was not completed", command, deadline)
            spin = 0.0
            self._shared.sleep(mark, deadline)

    def _collect(self, spin: float) -> None:
        """Take completions, and wait for one for up to `spin` seconds."""
        count = 0
        try:
            count = self._rings.poll(self._results, 1 if spin else 0, spin)
        finally:
            try:
                self._head.ring(self._rings.head)
            finally:
                self._take(self._results[:count])

    def _take(self, results: Structures) -> None:
        for tag, result, status, *_ in results.tolist():
            if tag & EVENT:
                self._on_event(status, result & 0xFFFF_FFFF)
                continue
            self._done.add(tag)
            if tag in self._waiting:
                self._answers[tag] = status, result & 0xFFFF_FFFF
            else:
                self._free_place(tag)

    def _timeout(self, what: str, command: Structures, deadline: Deadline) -> DeviceTimeout:
        opcode = _opcode(command)
        name = opcode.name.lower().replace("_", " ") if isinstance(opcode, AdminOpcode) else ""
        return DeviceTimeout(
            f"{self._name}: {name} ({opcode:#04x}) {what} within {deadline.timeout:.3f} s"
        )


def _opcode(command: Structures) -> AdminOpcode | int:
    number = int(command["opcode"][0])
    try:
        return AdminOpcode(number)
    except ValueError:
        return number

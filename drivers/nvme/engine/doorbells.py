"""Ringing a queue's two doorbells (NVMe Base Specification 1.4, sections 3.1.24 and 3.1.25).

Where they are mapped memory the engine stores to them itself. Where each access of a register is a
call (a model in this process, a server without shared memory) they are rung here, in Python.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from uspace_drivers.nvme.engine.hot import Queue
from uspace_drivers.nvme.engine.requests import IN_FLIGHT
from uspace_drivers.nvme.spec.registers import DOORBELLS, doorbell
from uspace_drv import Device, UnsupportedError, UspaceError, publish

if TYPE_CHECKING:
    from uspace_drv.layout import Structures


class Engine(Protocol):
    """What a queue pair asks of `hot.Queue`, whose stub (hot.pyi) says what each one does."""

    def submit(self, requests: Structures, start: int = 0, /) -> int:
        """Hand requests from `start` on over; how many went in."""

    def submit_command(self, command: Structures, data: int, size: int, tag: int, /) -> int:
        """Hand a raw command over; its id, -1 where the queue is full."""

    def poll(self, results: Structures, /, least: int = 0, timeout: float = 0.0) -> int:
        """Take results; how many came."""

    @property
    def transfer(self) -> Callable[..., int]:
        """One request and its answer."""

    def finish(self, spin: float, /) -> int:
        """Go on waiting for the transfer."""


class Doorbell:
    """One of them, as something that `publish` can write to: a 32-bit store by `store`."""

    def __init__(self, store: Callable[[int, int], None], offset: int) -> None:
        self._store = store
        self._offset = offset
        self._last = 0

    def write(self, value: int, /) -> None:
        """Store it."""
        self._store(self._offset, value)

    def ring(self, value: int) -> None:
        """Ring with a new value."""
        if value != self._last:
            publish(self, value)
            self._last = value  # an exception of a signal's handler before: it is rung again

    def forget(self) -> None:
        """The queue is new: both ends are at 0."""
        self._last = 0


class RungByHand:
    """The engine's face where doorbells are calls: it rings after each call of the engine.

    Ringing late, after a reset, would be a lie to the controller. So each call is one piece, and
    once `halt` has come in between, `stand_in` answers. What has been taken out of the ring reaches
    the caller even where a doorbell cannot be rung: the next look raises that, as the engine does.
    """

    def __init__(
        self, queue: Queue, store: Callable[[int, int], None], tail: int, head: int
    ) -> None:
        self._queue = queue
        self._transfer: Callable[..., int] = queue.transfer
        self._tail = Doorbell(store, tail)
        self._head = Doorbell(store, head)
        self._turn = threading.RLock()
        self._stand_in: Engine | None = None
        self._late: UspaceError | None = None
        """What came in the way of a look that had results."""

    def halt(self, stand_in: Engine) -> None:
        """Let nobody ring any more."""
        with self._turn:
            self._stand_in = stand_in

    def resume(self) -> None:
        """Begin anew, at 0."""
        with self._turn:
            self._tail.forget()
            self._head.forget()
            self._stand_in = self._late = None

    def submit(self, requests: Structures, start: int = 0, /) -> int:
        """As the engine does."""
        with self._turn:
            if (stand_in := self._stand_in) is None:
                try:
                    return self._queue.submit(requests, start)
                finally:
                    self._tail.ring(self._queue.tail)
        return stand_in.submit(requests, start)

    def submit_command(self, command: Structures, data: int, size: int, tag: int, /) -> int:
        """As the engine does."""
        with self._turn:
            if (stand_in := self._stand_in) is None:
                number = self._queue.submit_command(command, data, size, tag)
                self._tail.ring(self._queue.tail)
                return number
        return stand_in.submit_command(command, data, size, tag)

    def poll(self, results: Structures, /, least: int = 0, timeout: float = 0.0) -> int:
        """As the engine does."""
        count = self._take(results)
        end = time.monotonic() + timeout if count < least else 0.0
        while count < least and self._late is None and time.monotonic() < end:
            try:
                count += self._take(results[count:])
            except UspaceError as error:
                self._put_off(error, is_possible=count > 0)
        return count

    def transfer(self, *request: Any) -> int:
        """As the engine does."""
        with self._turn:
            if (stand_in := self._stand_in) is None:
                try:
                    status = self._transfer(*request[:-1], 0.0)
                finally:
                    self._tail.ring(self._queue.tail)
                return self.finish(request[-1]) if status == IN_FLIGHT else status
        return stand_in.transfer(*request)

    def finish(self, spin: float, /) -> int:
        """As the engine does."""
        end = time.monotonic() + spin
        while True:
            status = self._look(self._queue.finish, 0.0, IN_FLIGHT)
            if status != IN_FLIGHT or time.monotonic() >= end:
                return status

    def _take(self, results: Structures) -> int:
        return self._look(self._queue.poll, results, 0)

    def _look(self, look: Callable[[Any], int], argument: Any, nothing: int) -> int:
        """Ask the engine what has come, and say so to the controller if it is still there."""
        with self._turn:
            late, self._late = self._late, None
            if late is not None:
                raise late
            found = nothing
            try:
                found = look(argument)
            finally:
                self._tell(found != nothing)
            return found

    def _tell(self, has_results: bool) -> None:
        """Ring what the controller has not heard; where that fails, results come first."""
        if self._stand_in is not None:
            return
        try:
            self._tail.ring(self._queue.tail)  # if a signal's handler came in between
            self._head.ring(self._queue.head)
        except UspaceError as error:
            self._put_off(error, is_possible=has_results)

    def _put_off(self, error: UspaceError, *, is_possible: bool) -> None:
        """Keep it for the next look, or else raise it now."""
        if not is_possible:
            raise error
        self._late = error


def join_doorbells(queue: Queue, device: Device, number: int, stride: int) -> Engine:
    """Return what rings the doorbells of queue `number`: the engine itself where it can.

    `stride` is CAP.DSTRD.
    """
    window = device.bar(0)
    tail, head = doorbell(number, False, stride), doorbell(number, True, stride)
    try:
        page = window.memory(tail, head + 4 - tail)
    except UnsupportedError:
        return RungByHand(queue, window.write32, tail, head)
    queue.use_doorbells(page, 0, head - tail)
    return queue


def are_mapped(device: Device) -> bool:
    """Whether the engine can ring by itself."""
    try:
        device.bar(0).memory(DOORBELLS, 8)
    except UnsupportedError:
        return False
    return True

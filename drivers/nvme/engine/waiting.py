"""How a queue waits: for answers, with or without an interrupt, and for the end of a reset.

Who waits spins first, then sleeps, and always looks again by itself: an interrupt may get lost
(NVMe Base Specification 1.4, section 7.5.1, describes those of level and message).
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from uspace_drivers.nvme.engine.interrupts import FIRST_NAP, LAST_NAP
from uspace_drivers.nvme.engine.vectors import Vector
from uspace_drv import ClosedError, Deadline, DeviceError

if TYPE_CHECKING:
    from uspace_drivers.nvme.engine.doorbells import Engine
    from uspace_drivers.nvme.engine.hot import Queue
    from uspace_drv.layout import Structures

TIMEOUT = 10.0
"""Seconds that a command may take before the controller is asked what is wrong."""

LOOK = 0.09
"""Seconds without an answer after which one asks whether the controller is well."""


class Doctor(Protocol):
    """Who knows how the controller is."""

    def check(self) -> None:
        """Raise `DeviceError` or `DeviceGone` where the controller has given up."""


class Patience:
    """One wait for `timeout` seconds: by the interrupt of `vector`, or in naps without one.

    while not done():
        mark = patience.mark
        if not done(): patience.sleep(mark)
    """

    def __init__(self, vector: Vector | None, doctor: Doctor, timeout: float) -> None:
        self._vector = vector
        self._doctor = doctor
        self.timeout = timeout
        self.renew()

    def renew(self) -> None:
        """Begin anew: there was an answer."""
        self._deadline = Deadline(self.timeout)
        self._nap = FIRST_NAP
        self._next_look = time.monotonic() + LOOK

    @property
    def mark(self) -> int:
        """To be taken before looking: an interrupt that comes after it ends the sleep."""
        return 0 if self._vector is None else self._vector.interrupt.mark

    @property
    def is_over(self) -> bool:
        """Whether time is up."""
        return self._deadline.passed

    def sleep(self, mark: int) -> None:
        """Sleep for a while, and raise what the controller's state says if it is not well."""
        if self._vector is None:
            time.sleep(min(self._nap, self._deadline.remaining()))
            self._nap = min(2 * self._nap, LAST_NAP)
        else:
            self._vector.interrupt.sleep(mark, self._deadline)
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + LOOK
            self._doctor.check()


class Elsewhere:
    """Stands in for a queue's engine in a forked child: the rings in memory are the parent's."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise ClosedError(
            f"{self._name} was opened by process {os.getppid()}, of which this one is a forked "
            "child; attach the driver in the process that uses it"
        )

    submit = submit_command = poll = transfer = finish = _refuse


class Halted:
    """Stands in for a queue's engine while the controller is reset: new requests wait for that."""

    def __init__(self, name: str, queue: Queue, engine: Engine, doctor: Doctor) -> None:
        self._name = name
        self._queue = queue
        self._engine = engine
        self._doctor = doctor
        self._resumed = threading.Event()
        self._is_closed = False

    def end(self) -> None:
        """Let those who wait go on."""
        self._resumed.set()

    def close(self) -> None:
        """Send those who wait away: the queue will not come back."""
        self._is_closed = True
        self._resumed.set()

    def require_open(self) -> None:
        """Raise `ClosedError` where the queue will not come back."""
        if self._is_closed:
            raise ClosedError(f"{self._name} is closed")

    def submit(self, requests: Structures, start: int = 0, /) -> int:
        """As the engine does, later."""
        return self._later().submit(requests, start)

    def submit_command(self, command: Structures, data: int, size: int, tag: int, /) -> int:
        """As the engine does, later."""
        return self._later().submit_command(command, data, size, tag)

    def poll(self, _: Structures, /, least: int = 0, timeout: float = 0.0) -> int:
        """Nothing comes: what was in flight has been answered."""
        return 0

    def transfer(self, *request: Any) -> int:
        """As the engine does, later."""
        return self._later().transfer(*request)

    def finish(self, spin: float, /) -> int:
        """The answer that was given in the controller's place."""
        return self._queue.finish(spin)

    def _later(self) -> Engine:
        deadline = Deadline(TIMEOUT)
        while not self._resumed.wait(LOOK):
            self._doctor.check()
            if deadline.passed:
                self._refuse()
        self.require_open()
        return self._engine

    def _refuse(self) -> NoReturn:
        raise DeviceError(
            f"{self._name}: the controller was reset {TIMEOUT:.0f} s ago and has not come back"
        )

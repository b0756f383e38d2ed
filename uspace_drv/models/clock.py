"""The clock of a model: timers and work in the background, which stop with the model.

Time is real, and a thread calls what is due; or a test holds it (`freeze`, `advance`).
"""

from __future__ import annotations

import heapq
import itertools
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from uspace_drv.errors import BusyError, DeviceTimeout

NANOSECONDS = 1_000_000_000
"""In a second. Time is counted in whole ones: sums of floats would miss a moment by a hair."""

STOP_TIMEOUT = 5.0
"""Seconds that background work gets to return when the model stops."""


def in_nanoseconds(seconds: float) -> int:
    """To the nearest whole one."""
    return round(seconds * NANOSECONDS)


class Timer:
    """Something that is to be called once."""

    def __init__(self, due: int, call: Callable[[], None]) -> None:
        self.due = due
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        """Do not call it; too late is fine."""
        self.cancelled = True


class Clock:
    """Calls methods of a model later, one at a time, with the model's lock `turn` held.

    What a call raises goes to `report` where a thread made it, and up where a test or a server did.
    """

    def __init__(
        self, name: str, turn: threading.RLock, report: Callable[[Exception], None]
    ) -> None:
        self._name = name
        self._changed = threading.Condition(turn)
        self._report = report
        self._timers: list[tuple[int, int, Timer]] = []
        self._order = itertools.count()
        self._frozen: int | None = None
        self._thread: threading.Thread | None = None
        self._worker: Worker | None = None
        self._stopping = False
        self._owner = 0
        self._report_late = report

    def now(self) -> float:
        """Seconds from some start on."""
        return self._now() / NANOSECONDS

    def after(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call `call` in that many seconds; 0 is at once, before this returns."""
        timer = Timer(
            self._now() + in_nanoseconds(seconds), partial(self._call_for, self._owner, call)
        )
        with self._changed:
            if seconds <= 0:
                call()
            else:
                self._push(timer)
        return timer

    def work(self, function: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Run `function` in a thread of its own, without the lock; then call `then(result)`.

        One after the other, in order. What it raises is reported as if `then` had raised it.
        """
        with self._changed:
            if self._worker is None:
                self._worker = Worker(f"{self._name} work", self._post)
            self._worker.put(function, then, partial(self._call_for, self._owner))

    def disown(self, report: Callable[[Exception], None]) -> None:
        """Tell `report` of what fails from now on in calls that were set before."""
        with self._changed:
            self._owner += 1
            self._report_late = report

    def freeze(self) -> None:
        """Let time stand still, for a test: it passes by `advance` alone."""
        with self._changed:
            self._frozen = self._now()
        self._stop_thread()

    def advance(self, seconds: float) -> None:
        """Let frozen time pass, and call what is due in its order; raises what a call raises.

        Work in the background is waited for first, so that the same happens each time.
        """
        if self._frozen is None:
            raise BusyError(f"{self._name}: time is real; freeze() the clock before advance()")
        if self._worker is not None:
            self._worker.wait()
        end = self._frozen + in_nanoseconds(seconds)
        with self._changed:
            self._frozen = max(self._frozen, min(end, self._next_due(end)))
            while self._run_next():
                self._frozen = max(self._frozen, min(end, self._next_due(end)))
            self._frozen = end

    def due_in(self) -> float | None:
        """Seconds until something has to be called, None if nothing has."""
        with self._changed:
            if not self._timers:
                return None
            return max(0, self._timers[0][0] - self._now()) / NANOSECONDS

    def run_due(self) -> None:
        """Call what is due now; raises what a call raises, and the rest stays due."""
        with self._changed:
            while self._run_next():
                pass

    def clear(self) -> None:
        """Forget all timers, and what is done in the background."""
        with self._changed:
            self._timers.clear()
            if self._worker is not None:
                self._worker.forget()

    def close(self) -> None:
        """Forget all and end the threads, within a deadline. A timer set later starts them again.

        Raises `DeviceTimeout` for work that does not return.
        """
        self.clear()
        self._stop_thread()
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()

    def _now(self) -> int:
        return time.monotonic_ns() if self._frozen is None else self._frozen

    def _push(self, timer: Timer) -> None:
        heapq.heappush(self._timers, (timer.due, next(self._order), timer))
        if self._frozen is None:
            self._start_thread()

    def _post(self, call: Callable[[], None]) -> None:
        """What the worker has found: called at once, or when the test lets time pass."""
        with self._changed:
            if self._frozen is None:
                self._call_reporting(call)
            else:
                self._push(Timer(self._now(), call))

    def _next_due(self, default: int) -> int:
        return self._timers[0][0] if self._timers else default

    def _run_next(self) -> bool:
        """Call the first timer if it is due."""
        if not self._timers or self._timers[0][0] > self._now():
            return False
        timer = heapq.heappop(self._timers)[2]
        if not timer.cancelled:
            timer.call()
        return True

    def _start_thread(self) -> None:
        if self._thread is None:
            self._stopping = False
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _stop_thread(self) -> None:
        with self._changed:
            thread, self._thread = self._thread, None
            self._stopping = True
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(STOP_TIMEOUT)
            if thread.is_alive():
                raise DeviceTimeout(f"{self._name}: a timer did not return in {STOP_TIMEOUT:.3g} s")

    def _run(self) -> None:
        with self._changed:
            while not self._stopping and self._thread is threading.current_thread():
                self._call_reporting(self.run_due)
                due = self.due_in()
                if not self._stopping and due != 0:
                    self._changed.wait(due)

    def _call_for(self, owner: int, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            if owner == self._owner:
                raise
            self._report_late(error)

    def _call_reporting(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - the next access raises it
            self._report(error)


class Worker:
    """One thread that does long work in order; results that nobody wants any more are dropped."""

    def __init__(self, name: str, post: Callable[[Callable[[], None]], None]) -> None:
        self._name = name
        self._post = post
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._round = 0
        self._idle = threading.Condition()
        self._open = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(
        self,
        function: Callable[[], Any],
        then: Callable[[Any], None],
        call: Callable[[Callable[[], None]], None],
    ) -> None:
        """Queue a job; `call` is to call `then`, or what raises instead."""
        wanted = self._round

        def finish(result: Any, failure: Exception | None) -> None:
            if wanted != self._round:
                return
            if failure is not None:
                raise failure
            then(result)

        def job() -> None:
            result, failure = None, None
            if wanted == self._round:
                try:
                    result = function()
                except Exception as error:  # noqa: BLE001 - raised by `finish`
                    failure = error
                self._post(lambda: call(lambda: finish(result, failure)))

        with self._idle:
            self._open += 1
        self._jobs.put(job)

    def wait(self) -> None:
        """Wait until nothing is left to do, within a deadline."""
        with self._idle:
            if not self._idle.wait_for(lambda: self._open == 0, STOP_TIMEOUT):
                raise DeviceTimeout(f"{self._name}: it did not end in {STOP_TIMEOUT:.3g} s")

    def forget(self) -> None:
        """Drop what is queued, and what the job in progress will find."""
        self._round += 1

    def close(self) -> None:
        """End the thread."""
        self.forget()
        self._jobs.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join(STOP_TIMEOUT)
            if self._thread.is_alive():
                raise DeviceTimeout(f"{self._name}: it did not end in {STOP_TIMEOUT:.3g} s")

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            with self._idle:
                self._open -= 1
                self._idle.notify_all()

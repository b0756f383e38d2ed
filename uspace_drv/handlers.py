"""Drivers that react: `@interrupt(n)` methods, called by one thread, and work deferred by them.

The handler is the top half: short and first. `Driver.defer()` queues the bottom half, which the
same thread runs in order when no interrupt is waiting, as the kernel does with its own.
"""

from __future__ import annotations

import logging
import selectors
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

from uspace_drv.errors import BusyError, ClosedError, DeviceGone, DeviceTimeout, LayoutError
from uspace_drv.eventfd import EventFd
from uspace_drv.health import Health
from uspace_drv.irq import Irq

log = logging.getLogger(__name__)

QUEUE_LIMIT = 1024
"""Pieces of deferred work that may wait; more means that the driver does not keep up."""

STOP_TIMEOUT = 5.0
"""Seconds that a running handler gets to return when the device is left."""

Served = tuple[Irq, Callable[[], int], Callable[[], None]]
"""An interrupt, how to take what came of it, and its handler."""

Handler = TypeVar("Handler", bound=Callable[[Any], None])


def interrupt(index: int = 0, *, optional: bool = False) -> Callable[[Handler], Handler]:
    """Declare a driver's method as the handler of interrupt `index`.

    Where the device has no such interrupt, `attach` fails; an `optional` handler is left out then,
    for a driver that can poll too.
    """
    if not isinstance(index, int):
        raise LayoutError(f"@interrupt takes the number of an interrupt, not {index!r}")

    def mark(method: Handler) -> Handler:
        method.__interrupt__ = index  # type: ignore[attr-defined]
        method.__optional__ = optional  # type: ignore[attr-defined]
        return method

    return mark


def handlers_of(driver: object) -> Mapping[int, Callable[[], None]]:
    """The bound handlers of a driver by interrupt; two for one interrupt are a `LayoutError`."""
    found: dict[int, Callable[[], None]] = {}
    for name, index in _declared(type(driver)):
        if index in found:
            raise LayoutError(f"{type(driver).__name__}: two handlers for interrupt {index}")
        found[index] = getattr(driver, name)
    return found


def may_be_left_out(handler: Callable[[], None]) -> bool:
    """Whether its driver does without it where the device has no such interrupt."""
    return bool(getattr(handler, "__optional__", False))


def _declared(cls: type) -> Iterator[tuple[str, int]]:
    for name in dir(cls):
        index = getattr(getattr(cls, name, None), "__interrupt__", None)
        if index is not None:
            yield name, index


class InterruptLoop:
    """The thread that calls the handlers, from `start()` to `stop()`.

    It is the only waiter of its interrupts. An exception in a handler or in deferred work ends it;
    `defer()`, `wait_until()` and `stop()` raise what it was. `wait_until()` also ends with what
    `health` says against the device.
    """

    def __init__(self, name: str, health: Health | None = None) -> None:
        self._name = name
        self._health = health or Health(name)
        self._work: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._failure: BaseException | None = None
        self._progress = threading.Condition()
        self._thread: threading.Thread | None = None
        self._wake: EventFd | None = None

    def start(self, handlers: Mapping[Irq, Callable[[], None]]) -> None:
        """Call each handler when its interrupt fires, until `stop()`; nobody else may wait then."""
        with ExitStack() as reserving:
            served = [
                (irq, reserving.enter_context(irq.reserved()), handler)
                for irq, handler in handlers.items()
            ]
            seats = reserving.pop_all()
        self._stopping = False
        self._wake = EventFd()
        self._thread = threading.Thread(
            target=self._run,
            args=(seats, served, self._wake),
            name=f"{self._name} interrupts",
            daemon=True,  # a program that forgets to leave can still end
        )
        self._thread.start()

    def defer(self, work: Callable[[], None]) -> None:
        """Queue work behind all that waits; `BusyError` when the queue is full."""
        if self._failure is not None:
            raise self._failure
        if self._wake is None:
            raise ClosedError(f"{self._name}: work is deferred by handlers, and none is running")
        if len(self._work) >= QUEUE_LIMIT:
            raise BusyError(f"{self._name}: {QUEUE_LIMIT} pieces of deferred work wait already")
        self._work.append(work)
        self._wake.signal()

    def wait_until(self, predicate: Callable[[], bool], timeout: float) -> bool:
        """Wait for what handlers or deferred work bring about; False after `timeout` seconds.

        Raises at once what one of them raised, and `ClosedError` when none is running.
        """
        if self._thread is threading.current_thread():
            raise BusyError(f"{self._name}: a handler cannot wait for what handlers bring about")
        with self._progress:
            self._progress.wait_for(lambda: predicate() or not self._may_wait, timeout)
            if predicate():
                return True
            self._health.check_alive()
            if self._failure is not None:
                raise self._failure
            if not self._is_serving:
                raise ClosedError(f"{self._name}: handlers are waited for, and none is running")
            return False

    @property
    def _is_serving(self) -> bool:
        return self._thread is not None and self._failure is None

    @property
    def _may_wait(self) -> bool:
        return self._is_serving and self._health.is_well

    def rouse(self) -> None:
        """Let those in `wait_until()` look up: what `health` says has changed."""
        self._tell_waiters()

    def _tell_waiters(self) -> None:
        with self._progress:
            self._progress.notify_all()

    def check_may_stop(self) -> None:
        """Raise `BusyError` in the loop's own thread, which cannot wait for its own end."""
        if self._thread is threading.current_thread():
            raise BusyError(f"{self._name}: a handler cannot leave the device that it serves")

    def stop(self) -> None:
        """End the thread, drop what is queued, and raise what a handler raised."""
        self.check_may_stop()
        if self._thread is None or self._wake is None:
            return
        self._stopping = True
        self._wake.signal()
        self._thread.join(STOP_TIMEOUT)
        if self._thread.is_alive():
            raise DeviceTimeout(f"{self._name}: a handler did not return in {STOP_TIMEOUT:.0f} s")
        self._wake.close()
        self._thread = self._wake = None
        self._work.clear()
        self._tell_waiters()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _run(self, seats: ExitStack, served: Sequence[Served], wake: EventFd) -> None:
        try:
            with seats:
                selector = seats.enter_context(selectors.DefaultSelector())
                selector.register(wake, selectors.EVENT_READ)
                for each in served:
                    selector.register(each[0], selectors.EVENT_READ, each)
                while not self._stopping:
                    self._serve(selector, wake)
        except DeviceGone as failure:
            # No fault of the handler: its trace would tell nothing.
            log.warning("%s; no handler will be called any more", failure)
            self._fail(failure)
        except BaseException as failure:
            # It is raised in the thread that leaves; until then, somebody should know.
            log.exception("%s: a handler failed, and no other will be called", self._name)
            self._fail(failure)

    def _fail(self, failure: BaseException) -> None:
        self._failure = failure
        self._tell_waiters()

    def _serve(self, selector: selectors.BaseSelector, wake: EventFd) -> None:
        """One round: every interrupt that fired, then at most one piece of deferred work."""
        for key, _ in selector.select(0 if self._work else None):
            if key.data is None:
                wake.take()
                continue
            irq, take, handler = key.data
            if take():
                handler()
                irq.rearm()
                self._tell_waiters()
        if self._work and not self._stopping:
            self._work.popleft()()
            self._tell_waiters()

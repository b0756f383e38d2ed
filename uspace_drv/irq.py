"""An interrupt as a driver holds it: polled, waited for, awaited, or given to an event loop.

The object is the same whatever is under it (VFIO's eventfd, a UIO node, a model). A level
interrupt (INTx) is masked by the kernel or the model when it fires; it is armed again when the
driver asks for the next one, by which time it has quieted the cause, or by `rearm()`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager

from uspace_drv.deadline import Deadline
from uspace_drv.errors import (
    BusyError,
    ClosedError,
    DeviceTimeout,
    UnsupportedError,
    UspaceError,
)
from uspace_drv.eventfd import EventFd
from uspace_drv.health import Health
from uspace_drv.native import wait_readable
from uspace_drv.port import IrqKind, IrqLine, Triggers, UnmasksByFd
from uspace_drv.registers import Link
from uspace_drv.teardown import Teardown

LEAVE_TIMEOUT = 5.0
"""Seconds that `close()` gives a waiter in another thread to notice."""


class Irq:
    """One interrupt. One waiter at a time: a second one gets `BusyError`.

    `count` is the number of interrupts taken so far. `check_present` is called when a wait times
    out, and raises `DeviceGone` if the device is not there any more. `health` is asked before and
    during every wait.
    """

    def __init__(
        self,
        line: IrqLine,
        name: str,
        check_present: Callable[[], None],
        health: Health | None = None,
    ) -> None:
        self._line = line
        self._trigger = line.trigger if isinstance(line, Triggers) else None  # asking takes 6 us
        self._check_present = check_present
        self._health = health or Health(name)
        self._wake = EventFd()
        self._seat = threading.Condition()
        self._waiter: object | None = None
        self._wake_task: Callable[[], None] | None = None
        self._closed = False
        self._to_rearm = False
        self.name = name
        self.count = 0

    @property
    def kind(self) -> IrqKind:
        """INTx, MSI or MSI-X."""
        return self._line.kind

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._closed

    def fileno(self) -> int:
        """The descriptor for a selector: readable when `poll()` will find something.

        A level interrupt that a selector is to see again needs `rearm()` once its cause is quiet.
        """
        self._check_open()
        return self._line.fileno()

    def poll(self) -> int:
        """Interrupts since they were last asked for, 0 if none; never blocks."""
        with self._as_waiter():
            return self._take()

    def wait(self, timeout: float | Deadline, *, spin: float = 0.0) -> int:
        """Block until it fires; how often it did. Raises `DeviceTimeout` after `timeout` seconds.

        Several waits may share one `Deadline`. For the first `spin` seconds the processor is kept
        busy, which saves the wake-up (some 20 µs); after that the thread sleeps.
        """
        deadline = timeout if isinstance(timeout, Deadline) else Deadline(timeout)
        token = self._enter()  # without a context manager: each microsecond here delays the driver
        try:
            while self._sleep(deadline, spin):
                fired = self._take()
                if fired:
                    return fired
                self._wake.take()  # somebody said to look up, and there was nothing
                self._check_open()  # again: what was taken may have been the word to leave
            self._check_present()
            raise self._timeout(deadline)
        finally:
            self._leave(token)

    def __await__(self) -> Generator[object, None, int]:
        """Wait in asyncio, without a deadline of its own: use `asyncio.timeout()`."""
        return self._wait_async().__await__()

    async def __aiter__(self) -> AsyncIterator[int]:
        """Yield how often it fired, each time that it does."""
        while True:
            yield await self

    def rearm(self) -> None:
        """Say that the cause is quiet: a level interrupt may fire again. Else nothing."""
        if self._to_rearm:
            self._to_rearm = False
            self._line.unmask()

    def mask(self) -> None:
        """Hold it back where the hardware can, else `UnsupportedError`."""
        self._check_open()
        self._to_rearm = False
        self._line.mask()

    def unmask(self) -> None:
        """Let it through again; fires at once if a level interrupt is still asserted."""
        self._check_open()
        self._to_rearm = False
        self._line.unmask()

    def unmask_fd(self) -> int:
        """An eventfd whose signal does what `unmask()` does, for a program without this object.

        The descriptor goes with the interrupt. `UnsupportedError` where the way in has none, or
        the interrupt is a message.
        """
        self._check_open()
        if not isinstance(self._line, UnmasksByFd):
            raise UnsupportedError(
                f"{self.name}: no eventfd can unmask it this way; VFIO has that for INTx"
            )
        return self._line.unmask_fd()

    def trigger(self) -> None:
        """Let it fire as if the device had: to test what comes after. `UnsupportedError`."""
        self._check_open()
        if self._trigger is None:
            raise UnsupportedError(
                f"{self.name}: software cannot fire it this way; through VFIO and on a model it can"
            )
        self._trigger()

    def rouse(self) -> None:
        """Let the waiter look up: what `health` says has changed."""
        with self._seat:
            if self._closed:
                return
            self._wake.signal()
        if (wake_task := self._wake_task) is not None and not self._health.is_well:
            wake_task()

    def close(self) -> None:
        """Wake the waiter with `ClosedError`, then switch the interrupt off. Twice is fine."""
        with self._seat:
            if self._closed:
                return
            self._closed = True
            self._to_rearm = False
        way_out = Teardown()
        way_out.push("close the wake-up descriptor", self._wake.close)
        way_out.push("switch it off", self._line.close)
        way_out.push("wake its waiter", self._send_waiter_away)
        way_out.run()

    @contextmanager
    def reserved(self) -> Iterator[Callable[[], int]]:
        """Be its only waiter for a while, with an event loop of one's own.

        Gives a call that does what `poll()` does, without arming a level interrupt again.
        """
        with self._as_waiter():
            yield self._take

    @contextmanager
    def _as_waiter(self) -> Iterator[object]:
        token = self._enter()
        try:
            yield token
        finally:
            self._leave(token)

    def _enter(self) -> object:
        """Take the seat, if it is free."""
        token = object()
        with self._seat:
            self._check_open()
            if self._waiter is not None:
                raise BusyError(f"{self.name}: another task or thread is waiting for it")
            self._waiter = token
        try:
            self.rearm()
        except BaseException:
            self._leave(token)
            raise
        return token

    def _leave(self, token: object) -> None:
        with self._seat:
            if self._waiter is token:
                self._waiter = None
                if self._closed:  # only `close()` waits for that
                    self._seat.notify_all()

    def _send_waiter_away(self) -> None:
        self._wake.signal()
        wake_task = self._wake_task  # it may leave by itself meanwhile
        if wake_task is not None:
            wake_task()
        with self._seat:
            if not self._seat.wait_for(lambda: self._waiter is None, LEAVE_TIMEOUT):
                raise BusyError(f"{self.name}: its waiter did not leave in {LEAVE_TIMEOUT:.0f} s")

    def _take(self) -> int:
        self._check_open()
        fired = self._line.take()
        self.count += fired
        self._to_rearm = fired > 0 and self._line.kind is IrqKind.INTX
        return fired

    def _sleep(self, deadline: Deadline, spin: float) -> bool:
        fds = self._line.fileno(), self._wake.fileno()
        return wait_readable(*fds, deadline.remaining(), spin)

    def _timeout(self, deadline: Deadline) -> DeviceTimeout:
        error = DeviceTimeout(
            f"{self.name}: no interrupt within {deadline.timeout:.3f} s; {self.count} came before"
        )
        link: Link | None = getattr(self._line, "link", None)
        if link and link.timeout_note:
            error.add_note(link.timeout_note)
        return error

    def _check_open(self) -> None:
        self._health.check_alive()
        if self._closed:
            raise ClosedError(f"{self.name} is closed")

    def _end(self) -> UspaceError:
        """Why nobody may wait any more."""
        try:
            self._health.check_alive()
        except UspaceError as error:
            return error
        return ClosedError(f"{self.name} is closed")

    async def _wait_async(self) -> int:
        with self._as_waiter() as token:
            while not (fired := self._take()):
                await self._readable(token)
            return fired

    async def _readable(self, token: object) -> None:
        """Sleep until the line is readable, or until `close()` ends the sleep from any thread."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        watch = ExitStack()  # closed once, whoever comes first: the number may be reused after

        def leave() -> None:
            watch.close()
            if not ready.done() and not loop.is_closed():
                ready.set_exception(self._end())
            self._leave(token)

        def wake() -> None:
            if not ready.done():
                ready.set_result(None)

        line = self._line.fileno()
        loop.add_reader(line, wake)
        watch.callback(loop.remove_reader, line)
        self._wake_task = lambda: _run_in(loop, leave)
        try:
            self._check_open()  # again: `close()` may have looked for this task too early
            await ready
        finally:
            self._wake_task = None
            watch.close()


def _run_in(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    """Run it in the loop's thread, which may be this one; here, if the loop stands still."""
    try:
        running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if running is loop or not loop.is_running():
        function()
    else:
        loop.call_soon_threadsafe(function)

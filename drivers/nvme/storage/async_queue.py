"""A queue pair that belongs to an asyncio event loop: a future for each command.

Commands that tasks ask for in one turn of the loop go out together at its end, with one doorbell,
and the futures of those that are answered get their status. While nothing is in flight nothing
runs; after a while without an answer the loop sleeps until the interrupt, or naps without one.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from uspace_drivers.nvme.engine.interrupts import FIRST_NAP, LAST_NAP
from uspace_drivers.nvme.engine.queue import GRACE, QueuePair
from uspace_drivers.nvme.engine.requests import Request
from uspace_drivers.nvme.engine.waiting import LOOK
from uspace_drv import (
    BusyError,
    ClosedError,
    DeviceError,
    DeviceGone,
    RegisterValueError,
    UspaceError,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uspace_drv.layout import Structures

_log = logging.getLogger(__name__)
IDLE = 200e-6
"""Seconds without an answer, while something is in flight, before the loop sleeps."""

_FORM = struct.Struct("<BBHIQQQII")
"""A `Request` (requests.py) by its members in order."""

_PACK, _BYTES = _FORM.pack_into, _FORM.pack

_TAG = struct.Struct("<Q").pack_into
_TAG_OFFSET = 24


class AsyncQueue:
    """Takes requests for a queue pair that nobody else uses, in the thread of `loop`.

    A request has a slot, whose number is its tag, until it is answered or refused: first in the
    batch, then in flight; or it waits for one. The slot of a command in flight is never given away.
    """

    def __init__(self, pair: QueuePair, loop: asyncio.AbstractEventLoop) -> None:
        self.pair = pair
        self._loop = loop
        self._new_future = loop.create_future
        self._call_soon = loop.call_soon
        self._depth = pair.depth
        self._batch_bytes = bytearray(pair.depth * Request.SIZE)
        self._batch = Request.view(self._batch_bytes)
        self._count = 0
        self._free = list(range(pair.depth))
        self._futures: list[asyncio.Future[int] | None] = [None] * pair.depth
        self._since = [0.0] * pair.depth
        self._later: deque[tuple[asyncio.Future[int], bytes]] = deque()
        self._held: list[tuple[set[int], NDArray[np.uint8]]] = []
        self._is_pumping = False
        """Whether `_pump` will run in the next turn; not while a timer is what wakes it."""
        self._now = loop.time()
        self._last_answer = self._next_look = self._now
        self._timer: asyncio.TimerHandle | None = None
        self._watched: int | None = None
        self._nap = FIRST_NAP
        self._helper: asyncio.Future[None] | None = None

    def request(  # noqa: PLR0913, PLR0917 - each layer more would be paid for by every command
        self,
        opcode: int,
        flags: int,
        namespace: int,
        lba: int,
        blocks: int,
        data: int,
        attributes: int = 0,
    ) -> asyncio.Future[int]:
        """Ask for a command, with its data at the IOVA `data`: a future for its status.

        Whoever cancels that leaves a command in flight that was sent; its slot comes back with the
        answer. Raises `RegisterValueError` for what no command can say, as a negative `lba`; what
        the namespace does not have is found later, and raised by the future.
        """
        if not self._is_pumping:
            self._begin()
        future, free = self._new_future(), self._free
        try:
            if free:
                tag = free[-1]
                batch, start = self._batch_bytes, self._count * Request.SIZE
                _PACK(batch, start, opcode, flags, 0, namespace, lba, data, tag, blocks, attributes)
                del free[-1]
                self._futures[tag] = future
                self._since[tag] = self._now
                self._count += 1
            else:
                packed = _BYTES(opcode, flags, 0, namespace, lba, data, 0, blocks, attributes)
                self._later.append((future, packed))
        except struct.error as error:
            raise RegisterValueError(
                f"{self.pair.name}: {blocks} blocks from {lba} on, in namespace {namespace}, with "
                f"data at {data}: {error}"
            ) from None
        return future

    def _begin(self) -> None:
        """Pump from the next turn on, after a pause."""
        self._is_pumping = True
        self._disarm()
        self._now = self._loop.time()
        self._call_soon(self._pump)

    def let_go(
        self, futures: Sequence[asyncio.Future[int]], piece: NDArray[np.uint8] | None = None
    ) -> None:
        """Ask for these no more: those that wait for a slot are never sent.

        The bounce buffer is given back when the others are answered, now or later.
        """
        mine = set(futures)
        tags = {tag for tag, future in enumerate(self._futures) if future in mine}
        for future in futures:
            if not future.cancel() and not future.cancelled():
                future.exception()  # else asyncio complains that nobody has asked for it
        if piece is None:
            return
        if tags:
            self._held.append((tags, piece))
        else:
            self.pair.bounce.give(piece)

    def _pump(self) -> None:
        """Once a turn: send what was asked for, and hand answers out.

        Whatever is raised, there will be a next time: else nobody would ever be answered again.
        """
        self._is_pumping = True
        try:
            self._disarm()
            self._now = now = self._loop.time()
            if self._count:
                self._submit()
            results = self._poll()
            if len(results):
                self._last_answer = now
                self._nap = FIRST_NAP
                self._answer(results["tag"].tolist(), results["status"].tolist())
            if now > self._next_look:
                self._look()
            is_stuck = self._count > 0
            if self._later:
                self._take_up()
            self._go_on(is_stuck)
        except BaseException:
            self._sleep(LOOK)
            raise

    def _go_on(self, is_stuck: bool) -> None:
        """Come back at once, after a while, or when somebody asks for something."""
        if is_stuck:  # the queue is halted or busy, and has no interrupt that says when it is not
            self._take_nap()
        elif len(self._free) == self._depth:
            self._is_pumping = False
        elif self._now - self._last_answer > IDLE and not self._count:
            self._arm()
        else:
            self._call_soon(self._pump)

    def _submit(self) -> None:
        """Hand the batch over; one that is wrong is told so, and the others go on.

        What cannot be sent now stays: while the controller is being reset, for one, which the loop
        does not wait for. An error that is not about one request leaves all of them where they are.
        """
        if self.pair.is_halted:
            return
        if len(self._free) == self._depth - self._count:
            self._last_answer = self._now  # the first ones after a pause
        while self._count:
            try:
                self._send()
            except RegisterValueError as error:
                if not self._count:
                    raise
                self._refuse(int(self._batch["tag"][0]), error)
                self._move_up(1)
            except ClosedError as error:
                self._refuse_unsent(error)
            except DeviceError as error:
                self._report(error)
                return
            except BusyError:
                return
            else:
                return

    def _send(self) -> None:
        """Submit; whatever is raised, what went in is in the batch no more, nor sent twice."""
        hot = self.pair.hot
        before = hot.submitted
        try:
            self.pair.submit(self._batch[: self._count])
        finally:
            self._move_up(hot.submitted - before)

    def _move_up(self, done: int) -> None:
        """Take the first so many out of the batch: they were sent or refused."""
        start, end = done * Request.SIZE, self._count * Request.SIZE
        if start < end:
            self._batch_bytes[: end - start] = self._batch_bytes[start:end]
        self._count -= done

    def _refuse(self, tag: int, error: UspaceError) -> None:
        """End a request whose command the engine does not have."""
        future, self._futures[tag] = self._futures[tag], None
        self._give_back([tag])
        if future is not None and not future.done():
            future.set_exception(error)

    def _refuse_unsent(self, error: UspaceError) -> None:
        """End all that was not sent; what is in flight gets an answer when the queue is halted."""
        tags, self._count = self._batch["tag"][: self._count].tolist(), 0
        for tag in tags:
            self._refuse(tag, self._anew(error))
        for future, _ in self._later:
            if not future.done():
                future.set_exception(self._anew(error))
        self._later.clear()

    def _anew(self, error: UspaceError) -> UspaceError:
        """The same once more: each task that raises it gives it a traceback."""
        kinds = DeviceGone, ClosedError, DeviceError
        kind = next((each for each in kinds if isinstance(error, each)), DeviceError)
        return kind(f"{self.pair.name}: {error}")

    def _poll(self) -> Structures:
        """What has been answered; it counts even where the controller could not be told so."""
        pair = self.pair
        halts, before = pair.halts, pair.hot.completed
        try:
            return pair.take()
        except (BusyError, ClosedError):  # another thread is in the engine, or it is closed
            return pair.results[:0]
        except DeviceError as error:
            came = pair.hot.completed - before
            count = came if halts == pair.halts else 0  # a reset counts what it ends, too
            self._report(error)  # not earlier: that begins a reset
            return pair.results[:count]

    def _answer(self, tags: list[int], statuses: list[int]) -> None:
        futures = self._futures
        for tag, status in zip(tags, statuses, strict=True):
            future = futures[tag]
            futures[tag] = None
            if future is not None and not future.done():
                future.set_result(status)
        self._give_back(tags)

    def _give_back(self, tags: list[int]) -> None:
        """Take slots back, and with them bounce buffers that only waited for those."""
        self._free += tags
        if self._held:
            for left, piece in self._held:
                left.difference_update(tags)
                if not left:
                    self.pair.bounce.give(piece)
            self._held = [each for each in self._held if each[0]]

    def _take_up(self) -> None:
        """Give free slots to requests that waited for one and are still wanted."""
        while self._later and self._free:
            future, packed = self._later.popleft()
            if future.done():
                continue
            tag, start = self._free.pop(), self._count * Request.SIZE
            self._futures[tag], self._since[tag] = future, self._now
            self._batch_bytes[start : start + Request.SIZE] = packed
            _TAG(self._batch_bytes, start + _TAG_OFFSET, tag)
            self._count += 1

    def _arm(self) -> None:
        """Sleep until the interrupt, or for a nap; and look again soon, for one may get lost."""
        vector = self.pair.vector
        if vector is None or vector.irq is None or self._helper is not None:
            self._take_nap()
            return
        self._watched = vector.irq.fileno()
        self._loop.add_reader(self._watched, self._wake)
        self._sleep(LOOK)

    def _take_nap(self) -> None:
        self._sleep(self._nap)
        self._nap = min(2 * self._nap, LAST_NAP)

    def _sleep(self, seconds: float) -> None:
        """Look again after so long, or as soon as somebody asks for something."""
        self._is_pumping = False
        self._timer = self._loop.call_later(seconds, self._pump)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._watched is not None:
            self._loop.remove_reader(self._watched)
            self._watched = None

    def _wake(self) -> None:
        vector = self.pair.vector
        if vector is not None and vector.irq is not None:
            try:
                vector.irq.poll()
            except DeviceError as error:  # it is gone; its descriptor stays readable
                self._report(error)
        self._last_answer = self._loop.time()
        self._pump()

    def _look(self) -> None:
        """Ask now and then whether the controller is well, and whether a command is overdue."""
        self._next_look = self._now + LOOK
        if self._helper is not None:
            return
        latest = self._now - self.pair.timeout
        overdue = [
            future
            for future, since in zip(self._futures, self._since, strict=True)
            if future is not None and since < latest
        ]
        if overdue and self.pair.is_halted:
            self._refuse_unsent(DeviceError("the controller has not come back from its reset"))
        elif overdue:
            self._call_for_help(lambda: self._end_late(overdue))
        elif self._now - self._last_answer > LOOK:
            self._check()

    def _check(self) -> None:
        """Have the controller brought back if it is not well; if it will not come, say so."""
        try:
            self.pair.keeper.check()
        except (ClosedError, DeviceError) as error:
            if self.pair.is_halted:
                self._refuse_unsent(error)
            elif isinstance(error, DeviceError):
                self._report(error)

    def _end_late(self, overdue: list[asyncio.Future[int]]) -> None:
        """In a thread: abort what is in flight, and reset the controller if that does not help."""
        pair, halts = self.pair, self.pair.halts
        try:
            pair.keeper.abort_all(pair)
        except BusyError as error:  # the loop was in the engine: then it takes the reset
            _log.debug("%s", error)
        except DeviceError as error:
            pair.report(error, halts)
            return
        time.sleep(GRACE)
        if halts == pair.halts and any(future in self._futures for future in overdue):
            pair.keeper.rescue(pair, f"no answer within {pair.timeout:.1f} s")

    def _report(self, error: DeviceError) -> None:
        halts = self.pair.halts
        self._call_for_help(lambda: self.pair.report(error, halts))

    def _call_for_help(self, help_it: Callable[[], None]) -> None:
        """Have the controller brought back, in another thread: the loop goes on meanwhile."""
        if self._helper is None:
            self._helper = self._loop.run_in_executor(None, help_it)
            self._helper.add_done_callback(self._helped)

    def _helped(self, helper: asyncio.Future[None]) -> None:
        """Give everybody time again. Nobody is refused here: commands may still be in flight.

        Where the controller was given up its queues are halted, which answers what was in flight,
        and the next look refuses the rest.
        """
        self._helper = None
        self._since = [self._loop.time()] * self._depth
        if not helper.cancelled() and (error := helper.exception()) is not None:
            _log.error("%s: %s", self.pair.name, error)

"""The I/O queue pairs of a controller: one for each thread that reads or writes, more on request.

NVMe Base Specification 1.4, section 4.1. A queue pair is used by one thread at a time, so each
thread gets its own with its first command and gives it back when it ends. The last one that the
controller has is shared by all threads that come later, which wait for one another.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from uspace_drivers.nvme.engine.controller_memory import ControllerMemory
from uspace_drivers.nvme.engine.doorbells import are_mapped
from uspace_drivers.nvme.engine.memory import DmaMemory
from uspace_drivers.nvme.engine.queue import QueuePair
from uspace_drivers.nvme.engine.queue_life import Common
from uspace_drivers.nvme.engine.shadow import ShadowDoorbells
from uspace_drivers.nvme.engine.vectors import Vector, Vectors
from uspace_drivers.nvme.engine.waiting import TIMEOUT
from uspace_drivers.nvme.spec.identify import NvmSupport
from uspace_drivers.nvme.storage.async_queue import AsyncQueue
from uspace_drv import BusyError, RegisterValueError

if TYPE_CHECKING:
    from uspace_drivers.nvme.control.controller import Controller

DEPTH = 128
"""Commands at once, where nothing else is asked for."""

SEAT_DEPTH = 32
"""The same in a thread's own queue, whose commands are waited for."""

MOST_BYTES = 1 << 32
"""For a controller that has no limit."""

DWORDS_OR_BYTES = {1, 2}
"""SGLS.support of a controller that takes SGLs."""


class Shape(Protocol):
    """What the engine needs to know of a namespace to hold requests against it."""

    id: int
    block_size: int
    blocks: int
    most_blocks: int


class Queues:
    """Opens, keeps and closes the queue pairs of a controller that was started.

    `polled` is what threads get: queues without interrupts, where who waits looks again and again.
    """

    def __init__(self, controller: Controller, *, polled: bool = False) -> None:
        self._controller = controller
        self._polled = polled
        self.memory = DmaMemory(controller.device)
        """Where arrays come from that are read and written without a copy."""
        self._vectors = Vectors(controller.device, controller.interrupt)
        self._turn = threading.RLock()
        self._numbers = list(range(controller.queue_limit, 0, -1))
        self._open: dict[int, QueuePair] = {}
        self._shapes: dict[int, Shape] = {}
        self._spare: list[QueuePair] = []
        self._shared: QueuePair | None = None
        self._loops: dict[asyncio.AbstractEventLoop, AsyncQueue] = {}
        self.seats = threading.local()
        """`seats.pair` is the queue pair of the thread that asks, once `here` was called."""
        self.timeout = TIMEOUT
        """Seconds that commands may take in queues that are opened from now on."""
        self._nearby = ControllerMemory(controller)
        self._shadow = self._open_shadow()
        controller.before_queues(self._announce)
        self._common = Common(
            controller.device,
            self.memory,
            controller,
            page_size=controller.page_size,
            stride=controller.capabilities.dstrd,
            sgl=controller.identity.sgl_support.support in DWORDS_OR_BYTES,
            nearby=self._nearby,
            shadow=self._shadow,
        )

    def _hold(self) -> AbstractContextManager[None]:
        """Hold the queues. A thread that scans namespaces waits for it, so it starts no scan."""
        return self._controller.changes.holding(self._turn)

    def _open_shadow(self) -> ShadowDoorbells | None:
        """Doorbells in memory, where the controller has them and the engine rings by itself."""
        controller = self._controller
        is_offered = controller.identity.admin_support.doorbell_buffer
        if not is_offered or not are_mapped(controller.device):
            return None
        shadow = ShadowDoorbells(controller)
        shadow.announce()
        return shadow

    def _announce(self) -> None:
        """After a reset, before the queues are created anew."""
        self._nearby.announce()
        if self._shadow is not None:
            self._shadow.announce()

    @property
    def name(self) -> str:
        """The device's address, for errors."""
        return self._controller.name

    @property
    def io_support(self) -> NvmSupport:
        """Which commands the controller has beside reads and writes."""
        return self._controller.identity.io_support

    @property
    def most_bytes(self) -> int:
        """What one command moves: MDTS, and not more than one page of a list describes."""
        page = self._common.page_size
        return min(self._controller.identity.transfer_limit or MOST_BYTES, page * (page // 8))

    @property
    def _most_depth(self) -> int:
        """One entry of a ring stays empty (section 4.1.2), and MQES is one less than there are."""
        return self._controller.capabilities.mqes

    def open(self, depth: int = DEPTH, *, polled: bool = False) -> QueuePair:
        """Create a queue pair for `depth` commands at once; `close` it, or leave it to the driver.

        Raises `RegisterValueError` for a depth that the controller does not have, `BusyError` where
        it has no queue left.
        """
        self._controller.require_own_process()
        most = self._most_depth
        if not 1 <= depth <= most:
            raise RegisterValueError(
                f"{self.name}: a queue for {depth} commands at once; it takes 1 to {most}"
            )
        with self._hold():
            self._require_number()
            pair = self._make(depth, None if polled else self._vectors.take())
            try:
                self._controller.open_queue(pair)
            except BaseException:
                self._put_away(pair)
                raise
            self._open[self._numbers.pop()] = pair
            for shape in self._shapes.values():
                _show(pair, shape)
            return pair

    def _make(self, depth: int, vector: Vector | None) -> QueuePair:
        """One of the next number, which the controller does not know yet."""
        try:
            pair = QueuePair(self._common, self._numbers[-1], depth, vector)
        except BaseException:
            if vector is not None:
                self._vectors.give(vector)
            raise
        pair.timeout = self.timeout
        return pair

    def close(self, pair: QueuePair) -> None:
        """Delete it; what is in flight ends as aborted."""
        with self._hold():
            if self._open.pop(pair.number, None) is not None:
                try:
                    self._controller.close_queue(pair)
                finally:
                    self._put_away(pair)
                    self._numbers.append(pair.number)

    def close_all(self) -> None:
        """Give back all memory; the controller has forgotten the queues, or does so now."""
        with self._hold():
            for pair in tuple(self._open.values()):
                self.close(pair)
            self._spare.clear()
            self._loops.clear()
            self._shared = None
            self.seats = threading.local()
            self.memory.close()

    def show(self, shapes: Iterable[Shape]) -> None:
        """Let these namespaces be asked for, and no others."""
        with self._hold():
            gone = self._shapes
            self._shapes = {shape.id: shape for shape in shapes}
            for pair in self._open.values():
                for number in gone.keys() - self._shapes.keys():
                    pair.show_namespace(number, 9, 0, 0)
                for shape in self._shapes.values():
                    _show(pair, shape)

    def here(self) -> QueuePair:
        """The queue pair of the thread that calls."""
        pair: QueuePair | None = getattr(self.seats, "pair", None)
        if pair is None:
            pair = self.seats.pair = self._take()
            self.seats.hold = _Hold(pair, self)
        return pair

    def of_loop(self) -> AsyncQueue:
        """The queue pair of the event loop that runs in the thread that calls."""
        loop = asyncio.get_running_loop()
        found = self._loops.get(loop)  # without the lock: who opens a queue may have it for long
        return found or self._open_for(loop)

    def _open_for(self, loop: asyncio.AbstractEventLoop) -> AsyncQueue:
        with self._hold():
            self._sweep_loops()
            found = self._loops[loop] = AsyncQueue(self._own(DEPTH), loop)
            return found

    def give(self, pair: QueuePair) -> None:
        """Take a thread's queue back; the next thread gets it. Without a lock: see `_Hold`."""
        if pair is not self._shared and pair.number in self._open:
            self._spare.append(pair)

    def _take(self) -> QueuePair:
        """A queue pair for a thread: its own, while there are enough."""
        with self._hold():
            if self._shared is not None and not self._spare:
                return self._shared
            is_last = not self._spare and len(self._numbers) == 1
            pair = self._own(SEAT_DEPTH)
            if is_last:
                pair.share()
                self._shared = pair
            return pair

    def _own(self, depth: int) -> QueuePair:
        """One that somebody has left, or else a new one."""
        if not self._spare:
            return self.open(min(depth, self._most_depth), polled=self._polled)
        pair = self._spare.pop()
        pair.forget()
        return pair

    def _sweep_loops(self) -> None:
        """Take the queue pairs back from loops that are no more."""
        for loop in [each for each in self._loops if each.is_closed()]:
            self.give(self._loops.pop(loop).pair)

    def _put_away(self, pair: QueuePair) -> None:
        if pair.vector is not None:
            self._vectors.give(pair.vector)
        pair.close()

    def _require_number(self) -> None:
        if not self._numbers:
            raise BusyError(
                f"{self._controller.name}: all {self._controller.queue_limit} I/O queues that the "
                "controller has are taken: close one, or let fewer threads use it"
            )


class _Hold:
    """A thread's hold on its queue pair: when the thread ends, so does this.

    That may be at any moment, in any thread, so what is called then takes no lock.
    """

    def __init__(self, pair: QueuePair, queues: Queues) -> None:
        self.pair = pair
        self._queues = queues

    def __del__(self) -> None:
        self._queues.give(self.pair)


def _show(pair: QueuePair, shape: Shape) -> None:
    shift = shape.block_size.bit_length() - 1
    pair.show_namespace(shape.id, shift, shape.blocks, shape.most_blocks)

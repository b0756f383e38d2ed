"""What a queue pair is made of, and its life through the resets of its controller.

NVMe Base Specification 1.4, sections 4.1 and 7.6: a reset takes the queues away, and with them
everything that was in flight.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from uspace_drivers.nvme.engine.doorbells import Engine, RungByHand, join_doorbells
from uspace_drivers.nvme.engine.hot import Queue
from uspace_drivers.nvme.engine.interrupts import FIRST_NAP
from uspace_drivers.nvme.engine.memory import Bounce, DmaMemory
from uspace_drivers.nvme.engine.queue_memory import QueueMemory
from uspace_drivers.nvme.engine.requests import Result
from uspace_drivers.nvme.engine.vectors import Vector
from uspace_drivers.nvme.engine.waiting import TIMEOUT, Doctor, Elsewhere, Halted
from uspace_drivers.nvme.spec.status import Status
from uspace_drv import BusyError, Deadline, Device

if TYPE_CHECKING:
    from uspace_drivers.nvme.engine.controller_memory import ControllerMemory
    from uspace_drivers.nvme.engine.queue import QueuePair
    from uspace_drivers.nvme.engine.shadow import ShadowDoorbells
    from uspace_drv.layout import Structures

T = TypeVar("T")

IDS = 1 << 16
"""Command ids that there are."""

NOT_IN_FLIGHT = -1
"""What the engine says of a command id that it did not use."""

SPIN = 50e-6
"""Seconds that a wait keeps the processor busy before it sleeps: the wake-up would cost as much."""

POLLED_SPIN = 500e-6
"""The same where there is no interrupt: then it naps."""


class Keeper(Doctor, Protocol):
    """The controller, as a queue needs it when something is wrong."""

    def abort_all(self, queue: QueuePair, /) -> None:
        """Ask the controller to end what is in flight in a queue; it may or may not."""

    def rescue(self, queue: QueuePair, reason: str, /) -> None:
        """Reset the controller, or raise.

        Each queue is halted and resumed. Where that fails, the queues stay halted.
        """


@dataclass(frozen=True)
class Common:
    """What all queues of a controller have in common.

    `page_size` is CC.MPS in bytes, `stride` CAP.DSTRD, `sgl` whether data is described by SGLs;
    `nearby` has room for submission queues, `shadow` for doorbells.
    """

    device: Device
    memory: DmaMemory
    keeper: Keeper
    page_size: int = 4096
    stride: int = 0
    sgl: bool = False
    nearby: ControllerMemory | None = None
    shadow: ShadowDoorbells | None = None


class QueueLife(ABC):
    """The rings, the engine that works on them, and what a reset does to both.

    The controller creates and deletes them on the device: `entries`, `submission_iova`,
    `completion_iova` and `vector` (None: polled) are what its commands say. `depth` commands may
    be in flight at once.
    """

    def __init__(
        self, common: Common, number: int, depth: int, vector: Vector | None = None
    ) -> None:
        self.name = f"{common.device.address} queue {number}"
        self.number = number
        self.entries = depth + 1
        self.vector = vector
        self.spin = POLLED_SPIN if vector is None else SPIN
        self.timeout = TIMEOUT
        """Seconds that the controller may take for a command, before it is aborted."""
        self.memory = common.memory
        self.bounce = Bounce(common.memory, common.page_size)
        self.keeper = common.keeper
        self.turn: AbstractContextManager[object] | None = None
        """What is held for the time of a transfer, where several threads share the queue."""
        self._answered: list[Structures] = []
        self.halts = 0
        """How often it was halted: who sees it change knows that what was in flight has ended."""
        self._halted: Halted | None = None
        self._shadow = common.shadow
        self._rings = QueueMemory(common.device, self.entries, common.page_size, common.nearby)
        try:
            self._build(common, self._rings)
        except BaseException:  # a signal's handler may raise, too
            self._rings.close()
            raise

    def _build(self, common: Common, rings: QueueMemory) -> None:
        """Make the engine on the rings, and whatever else may fail."""
        self.submission_iova = rings.submission_iova
        self.completion_iova = rings.completion_iova
        self.hot = Queue(
            common.device.address,
            self.number,
            rings.submission,
            rings.completion,
            rings.lists,
            rings.lists_iova,
            common.memory.table,
            page_size=common.page_size,
            sgl=common.sgl,
        )
        self.depth = self.hot.depth
        self.results = Result.array(max(2 * self.depth, 16))
        """Where `poll` puts what it finds."""
        self._views = [self.results[:count] for count in range(len(self.results) + 1)]
        """What it returns: to slice anew would cost as much as some five commands."""
        self._running = join_doorbells(self.hot, common.device, self.number, common.stride)
        self._use(self._running)
        self._use_shadow()
        _in_this_process.add(self)

    def leave_to_parent(self) -> None:
        """Refuse everything: this is a forked child, and two writers would spoil the rings."""
        self.turn = None  # whoever holds it is a thread of the parent's
        self._use(Elsewhere(self.name))

    def _use(self, engine: Engine) -> None:
        self.engine = engine
        self.fast = engine.transfer if self.turn is None else self._transfer_in_turn
        """`hot.Queue.transfer`, for a caller that takes care of what is negative."""

    def share(self) -> None:
        """Let several threads use it for transfers, one after the other."""
        self.turn = threading.RLock()
        self._use(self.engine)

    @property
    def in_flight(self) -> int:
        """Commands that the controller has not answered."""
        return self.hot.in_flight

    @property
    def is_halted(self) -> bool:
        """Whether the controller is being reset, and requests would have to wait."""
        return self._halted is not None

    def show_namespace(self, number: int, shift: int, blocks: int, most_blocks: int) -> None:
        """Let requests to a namespace pass: see `hot.Queue.set_namespace`."""
        self._undisturbed(lambda: self.hot.set_namespace(number, shift, blocks, most_blocks))

    def ids_in_flight(self) -> list[int]:
        """Ids of the commands that the controller has not answered; any thread may ask."""
        found: list[int] = []
        for number in range(IDS):
            if len(found) >= self.in_flight:
                break
            if self._undisturbed(lambda: self.hot.tag_of(number)) != NOT_IN_FLIGHT:  # noqa: B023
                found.append(number)
        return found

    def hold(self) -> None:
        """Hold back what comes until `resume`; what is in flight stays so, for `halt` to end.

        Any thread may call it. No other is in the engine when it returns.
        """
        if self._halted is None:
            self._halted = Halted(self.name, self.hot, self._running, self.keeper)
            self._use(self._halted)
            if isinstance(self._running, RungByHand):
                self._running.halt(self._halted)
        self.halts += 1
        self._undisturbed(lambda: self.hot.tag_of(0))

    def halt(self, status: int = Status.ABORTED_BY_HOST) -> None:
        """Answer all that is in flight with `status`, and hold back what comes until `resume`.

        Any thread may call it; the controller does, once the device has stopped.
        """
        self.hold()
        spare = Result.array(self.depth)
        while count := self._undisturbed(lambda: self.hot.abandon(spare, status)):
            self._answered.append(spare[:count].copy())

    def clear(self) -> None:
        """Empty the rings in memory, before the device is told of them again."""
        self._rings.clear()

    def resume(self) -> None:
        """Take requests again: the device has the queue, and it is new."""
        self._undisturbed(self.hot.reset)
        self._use_shadow()
        if isinstance(self._running, RungByHand):
            self._running.resume()
        halted, self._halted = self._halted, None
        self._use(self._running)
        if halted is not None:
            halted.end()

    def close(self) -> None:
        """Give its memory back; the device has forgotten the queue. Twice is fine."""
        self.halt(Status.ABORTED_BY_QUEUE_DELETION)
        if self._halted is not None:
            self._halted.close()
        self.bounce.close()
        self._rings.close()

    def _use_shadow(self) -> None:
        if self._shadow is not None:
            self._shadow.serve(self.hot, self.number)

    def _undisturbed(self, function: Callable[[], T]) -> T:
        """Call the engine as soon as the thread that is in it has left: it does not stay long."""
        deadline = Deadline(TIMEOUT)
        while True:
            try:
                return function()
            except BusyError:
                if deadline.passed:
                    raise
                time.sleep(FIRST_NAP)

    @abstractmethod
    def _transfer_in_turn(self, *request: Any) -> int:
        """Do one request to its end before another thread begins one."""


_in_this_process: weakref.WeakSet[QueueLife] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for each in tuple(_in_this_process):
        each.leave_to_parent()


os.register_at_fork(after_in_child=_after_fork_in_child)

"""A soak: threads write, read and check random blocks for a while, and find the first wrong byte.

Each thread has a region of its own, all over the namespace. What they do follows from the seed, so
a failure can be repeated. NVMe Base Specification 1.4, section 6.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections import Counter
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from uspace_drivers.nvme.verbs.ledger import Ledger
from uspace_drivers.nvme.verbs.soak_worker import DEPTH, Tally, Worker
from uspace_drv import RegisterValueError
from uspace_drv.verbs import Progress, Size, Unit

if TYPE_CHECKING:
    from uspace_drivers.nvme.control.controller import Controller
    from uspace_drivers.nvme.storage.namespace import Namespace
    from uspace_drivers.nvme.storage.queues import Queues

_log = logging.getLogger(__name__)

QUEUES_EACH = 3
"""Queue pairs of a thread: its own for calls, one for batches, one for its event loop."""

REPORT = 0.1
"""Seconds between two calls of `progress`."""


@dataclass(frozen=True)
class SoakFacts:
    """What was done, and found right: there is none of these if a byte was wrong.

    Numbers of commands are those that were asked for, each call and each request of a batch; what
    is larger than the controller takes at once goes there in several.
    """

    seed: int
    workers: int
    duration: Annotated[float, Unit("s")]
    written: Size
    checked: Size
    throughput: Annotated[float, Unit("B/s")]
    writes: int
    reads: int
    compares: int
    zeroes: int
    trims: int
    verifies: int
    flushes: int


@dataclass(frozen=True)
class Plan:
    """What follows from the seed: `workers` threads that have `size` bytes together."""

    seed: int
    workers: int = 4
    size: int = 256 << 20


class Soak:
    """Random work for several threads on one namespace, for one `run`.

    Raises `RegisterValueError` for a plan that the namespace or the controller has no room for.
    """

    def __init__(
        self, controller: Controller, queues: Queues, namespace: Namespace, plan: Plan
    ) -> None:
        self._queues, self._namespace, self._plan = queues, namespace, plan
        self._where = f"{queues.name}: namespace {namespace.id}"
        self._check(controller.queue_limit)
        self._depth = min(DEPTH, controller.capabilities.mqes)
        self._is_over = False
        """Whether it is to end at once: somebody has failed, or it was interrupted."""
        self._errors: list[BaseException] = []
        """What threads failed with, in the order of time."""
        self._tallies: list[Tally] = []

    def run(
        self, seconds: float, progress: Progress | None = None, *, steps: int | None = None
    ) -> SoakFacts:
        """Go on for so long, or for so many steps of each thread if that is shorter.

        Before that the regions are written, and after it all of them are checked. The first error
        of any thread is raised, with notes that say how to repeat it.
        """
        if not 0 < seconds < math.inf:
            raise RegisterValueError(f"a soak takes a number of seconds above 0, not {seconds}")
        _log.info("%s: %s", self._where, self._plan)
        started = time.monotonic()
        end = started + seconds
        with ThreadPoolExecutor(self._plan.workers) as pool:
            try:
                running = [
                    pool.submit(self._work, number, end, steps)
                    for number in range(self._plan.workers)
                ]
                self._follow(running, progress)
            finally:
                self._is_over = True
        self._raise_first(running)
        return self._facts(time.monotonic() - started)

    def _check(self, queue_limit: int) -> None:
        seed, workers, size = self._plan.seed, self._plan.workers, self._plan.size
        if seed < 0:
            raise RegisterValueError(f"{self._where}: a seed is 0 or more, not {seed}")
        if not 1 <= workers <= queue_limit // QUEUES_EACH:
            raise RegisterValueError(
                f"{self._where}: {workers} workers, which take {QUEUES_EACH} queues each; the "
                f"controller has {queue_limit}, enough for {queue_limit // QUEUES_EACH}"
            )
        if self._region < 1:
            raise RegisterValueError(
                f"{self._where}: {size} bytes for {workers} workers are less than a block of "
                f"{self._namespace.block_size} bytes for each"
            )

    @property
    def _region(self) -> int:
        """How many blocks each thread has."""
        blocks = min(self._namespace.blocks, self._plan.size // self._namespace.block_size)
        return blocks // self._plan.workers

    def _ledger(self, number: int) -> Ledger:
        """Return that of a region; the last one ends where the namespace does."""
        gaps = max(1, self._plan.workers - 1)
        first = number * (self._namespace.blocks - self._region) // gaps
        return Ledger(self._namespace, first, self._region, self._plan.seed, number)

    def _work(self, number: int, end: float, steps: int | None) -> None:
        worker = Worker(self._queues, self._ledger(number), self._depth)
        step = 0
        try:
            self._tallies.append(worker.tally)
            worker.ledger.begin(self._has_ended)
            while not self._is_over and time.monotonic() < end and step != steps:
                step += 1
                worker.step()
            if self._is_over:
                return
            worker.doing = "the last check of everything"
            worker.flush()
            worker.tally.checked += worker.ledger.audit(self._has_ended)
        except BaseException as error:
            self._errors.append(error)
            error.add_note(
                f"worker {number}, step {step}: {worker.doing}; it repeats with seed "
                f"{self._plan.seed}, workers {self._plan.workers} and size {self._plan.size}"
            )
            self._is_over = True
            raise
        finally:
            worker.close()

    def _follow(self, running: list[Future[None]], progress: Progress | None) -> None:
        """Tell what is done until the first thread fails or the last one ends."""
        while True:
            left = wait(running, REPORT, FIRST_EXCEPTION)
            if progress:
                progress(sum(each.written + each.checked for each in self._tallies), 0)
            if not left.not_done or any(each.exception() for each in left.done):
                return

    def _has_ended(self) -> bool:
        return self._is_over

    def _raise_first(self, running: list[Future[None]]) -> None:
        """Raise what a thread failed with first; what came after that goes along."""
        late = [error for each in running if (error := each.exception())]
        errors = self._errors + [error for error in late if error not in self._errors]
        if errors:
            for other in errors[1:]:
                errors[0].add_note(f"{other} ({'; '.join(getattr(other, '__notes__', ()))})")
            raise errors[0]

    def _facts(self, duration: float) -> SoakFacts:
        done = sum((each.done for each in self._tallies), Counter[str]())
        written = sum(each.written for each in self._tallies)
        checked = sum(each.checked for each in self._tallies)
        return SoakFacts(
            seed=self._plan.seed,
            workers=self._plan.workers,
            duration=duration,
            written=written,
            checked=checked,
            throughput=(written + checked) / duration,
            writes=done["writes"],
            reads=done["reads"],
            compares=done["compares"],
            zeroes=done["zeroes"],
            trims=done["trims"],
            verifies=done["verifies"],
            flushes=done["flushes"],
        )


def new_seed() -> int:
    """Return one that nobody could guess."""
    return secrets.randbelow(1 << 32)

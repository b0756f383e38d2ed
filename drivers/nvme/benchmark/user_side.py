"""Our side: reads through queue pairs of the driver, in batches or one by one, from Python."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from uspace_drivers.nvme.benchmark.work import Work
from uspace_drivers.nvme.engine.requests import Result
from uspace_drivers.nvme.spec.command_error import CommandError
from uspace_drivers.nvme.spec.commands import Opcode
from uspace_drivers.nvme.verbs.bench import Pattern
from uspace_drv import DeviceTimeout
from uspace_drv.bench import Histogram, Sample, Stopwatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uspace_drivers.nvme.driver import Nvme
    from uspace_drv.layout import Structures

POOL = 1 << 14
"""Requests that are made ahead, and the most in a batch."""

PARTS = 8
"""Batches are so long that a sample has about so many: at their end the queue runs empty."""


class Reader:
    """Keeps one queue pair under the load of a `Work`; `close` gives queue and memory back.

    `reads` counts. Random places are new each time, as fio's are: a device with a cache would
    answer from there what it has answered before.
    """

    def __init__(self, nvme: Nvme, work: Work, *, polled: bool) -> None:
        self._nvme, self._depth = nvme, work.depth
        self._space = nvme.namespaces[min(nvme.namespaces)]
        self.pair = nvme.queue(work.depth, polled=polled)
        self.pair.hot.timed = True
        self._memory = nvme.memory.alloc("u1", (work.depth, work.size))
        self._blocks = work.size // self._space.block_size
        self._steps = self._space.blocks // self._blocks
        self._chance = np.random.default_rng() if work.pattern is Pattern.RANDOM else None
        self.places = np.arange(POOL) % self._steps * self._blocks
        buffers = int(self._memory.iova) + np.arange(POOL) % work.depth * work.size
        self._pool = self._space.requests(Opcode.READ, self.places, self._blocks, buffers)
        self._draw()
        self._results = Result.array(POOL)
        self._next, self._count = 0, 4 * work.depth
        self.reads = 0
        self._taken: list[NDArray[Any]] = []

    def warm(self, loop: Loop, seconds: float) -> None:
        """Read for a moment, and find out how long a batch is to be for so many seconds."""
        while True:
            start = time.perf_counter()
            loop(self)
            taken = time.perf_counter() - start
            if taken * PARTS >= seconds or self._count == POOL:
                break
            self._count = min(POOL, self._count * 2)
        self.reads = 0
        self._taken.clear()

    def in_c(self) -> None:
        """Hand over a whole batch: the engine's loop in C keeps the queue full until its end."""
        first = self._advance()
        batch = self._pool[first : first + self._count]
        self._note(self.pair.run(batch, self._results, depth=self._depth))

    def in_python(self) -> None:
        """The same loop in Python: submit what has room, poll what is there."""
        first = self._advance()
        batch, pair = self._pool[first : first + self._count], self.pair
        sent, done = pair.submit(batch), 0
        while done < len(batch):
            results = pair.poll(1, pair.timeout)
            self._results[done : done + len(results)] = results
            done += len(results)
            if not len(results):
                raise DeviceTimeout(f"{pair.name}: no answer within {pair.timeout:.1f} s")
            if sent < len(batch):
                sent += pair.submit(batch, sent)
        self._note(self._results[:done])

    def one_by_one(self) -> None:
        """Blocking calls, one after the other, in DMA memory."""
        first = self._advance()
        read, buffer = self._space.on(self.pair).read, self._memory.array[0]
        taken, clock = [], time.perf_counter_ns
        before = clock()
        for place in self.places[first : first + self._count].tolist():
            read(place, self._blocks, buffer)
            after = clock()
            taken.append(after - before)
            before = after
        self.reads += len(taken)
        self._taken.append(np.array(taken))

    @property
    def latencies(self) -> Histogram:
        """Of all reads since it was warm."""
        return Histogram.of(np.concatenate(self._taken))

    def close(self) -> None:
        """Give queue and memory back."""
        try:
            self._nvme.queues.close(self.pair)
        finally:
            self._memory.close()

    def _advance(self) -> int:
        """Where the next batch begins in the pool."""
        first = self._next
        if first + self._count > POOL:
            first = 0
            self._draw()
        self._next = first + self._count
        return first

    def _draw(self) -> None:
        """Choose other places, which costs a read 10 ns; fio chooses as it goes, too."""
        if self._chance is not None:
            self.places = self._chance.integers(0, self._steps, POOL) * self._blocks
            self._pool["lba"] = self.places

    def _note(self, results: Structures) -> None:
        """Count them; `CommandError` for the first one that failed."""
        if results["status"].any():
            status = int(results["status"][results["status"] != 0][0])
            raise CommandError(self.pair.name, Opcode.READ, self._space.id, status)
        self.reads += len(results)
        self._taken.append(results["nanoseconds"].copy())


Loop: TypeAlias = Callable[[Reader], None]
"""How a reader reads a batch: `Reader.in_c` and its like."""


def read_by_user(
    nvme: Nvme, work: Work, seconds: float, loop: Loop, *, polled: bool = True
) -> Sample:
    """Read for so long through new queues, each in a thread of its own if there are several."""
    with ExitStack() as stack:
        readers = []
        for _ in range(work.queues):
            readers.append(Reader(nvme, work, polled=polled))
            stack.callback(readers[-1].close)
        for reader in readers:
            reader.warm(loop, seconds)
        pool = stack.enter_context(ThreadPoolExecutor(work.queues))
        with Stopwatch() as watch:
            end = time.perf_counter() + seconds
            if work.queues == 1:
                _read_until(end, readers[0], loop)
            else:
                list(pool.map(lambda reader: _read_until(end, reader, loop), readers))
        latencies = Histogram()
        for reader in readers:
            latencies.add(reader.latencies)
        return watch.sample(sum(reader.reads for reader in readers), latencies)


def _read_until(end: float, reader: Reader, loop: Loop) -> None:
    loop(reader)
    while time.perf_counter() < end:
        loop(reader)

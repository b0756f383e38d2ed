"""A small benchmark: one queue pair, commands of one size, at random places or in order.

Commands go in batches through the engine (hot.c), so that Python costs a few microseconds for all
that completed together; one at a time goes through its blocking call. Latencies are those that this
process sees: from before a command is submitted until it is known to be done.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from enum import Enum
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from uspace_drivers.nvme.engine.queue import QueuePair
from uspace_drivers.nvme.engine.requests import Request
from uspace_drivers.nvme.spec.command_error import CommandError
from uspace_drivers.nvme.spec.commands import Opcode
from uspace_drivers.nvme.storage.namespace import Namespace
from uspace_drv import DeviceTimeout, RegisterValueError
from uspace_drv.verbs import Progress, Size, Unit

POOL = 1 << 16
"""Requests that are made ahead."""

SAMPLES = 1 << 20
"""Latencies that are kept: the last ones."""

REPORT = 100_000_000
"""Nanoseconds between two calls of `progress`."""

Seconds = Annotated[float, Unit("s")]


class Pattern(Enum):
    """Where the commands go."""

    RANDOM = "random"
    SEQUENTIAL = "sequential"


@dataclass(frozen=True)
class BenchFacts:
    """What a benchmark measured; `p50`, `p99` and `p999` are percentiles of the latency."""

    what: str
    depth: int
    command_size: Size
    duration: Seconds
    commands: int
    iops: Annotated[float, Unit("/s")]
    throughput: Annotated[float, Unit("B/s")]
    p50: Seconds
    p99: Seconds
    p999: Seconds


@dataclass(frozen=True)
class Load:
    """What a benchmark does: `depth` commands at once of `size` bytes each."""

    depth: int = 32
    size: int = 4096
    pattern: Pattern = Pattern.RANDOM
    write: bool = False


class Bench:
    """Keeps a queue pair under load for a while.

    Takes DMA memory for all of them; `close` gives it back. Raises `RegisterValueError` for a size
    that is no whole number of blocks, or more than one command moves, or a depth that is too much.
    """

    def __init__(self, pair: QueuePair, namespace: Namespace, load: Load) -> None:
        self._pair, self._namespace = pair, namespace
        self._depth, self._size, self._pattern = load.depth, load.size, load.pattern
        self._opcode = Opcode.WRITE if load.write else Opcode.READ
        self._check()
        self._blocks = load.size // namespace.block_size
        self._steps = namespace.blocks // self._blocks
        self._random = np.random.default_rng(1)
        self._memory = pair.memory.alloc("u1", (load.depth, load.size))
        if load.write:
            self._memory.array[:] = self._random.integers(0, 256, self._memory.array.shape, "u1")
        steps = np.arange(load.depth, dtype=np.uint64) * np.uint64(load.size)
        self._places = np.uint64(self._memory.iova) + steps
        self._pool = Request.array(POOL)
        self._pool["opcode"] = self._opcode
        self._pool["namespace"] = namespace.id
        self._pool["blocks"] = self._blocks
        self._began = np.zeros(load.depth, np.int64)
        self._latencies = _Latencies()
        self._commands = self._first_step = self._next = 0
        self._fill()

    def run(self, seconds: float, progress: Progress | None = None) -> BenchFacts:
        """Measure for so long; `progress` hears of the bytes that were moved."""
        if not 0 < seconds < math.inf:
            raise RegisterValueError(
                f"a benchmark takes a number of seconds above 0, not {seconds}"
            )
        start = time.perf_counter_ns()
        end = start + int(seconds * 1e9)
        if self._depth == 1:
            finished = self._one_by_one(end, progress)
        else:
            finished = self._in_batches(end, progress)
        duration = (finished - start) / 1e9
        p50, p99, p999 = self._latencies.percentiles(50, 99, 99.9)
        return BenchFacts(
            what=f"{self._pattern.value} {self._opcode.name.lower()}",
            depth=self._depth,
            command_size=self._size,
            duration=duration,
            commands=self._commands,
            iops=self._commands / duration,
            throughput=self._commands * self._size / duration,
            p50=p50,
            p99=p99,
            p999=p999,
        )

    def close(self) -> None:
        """Wait for what is in flight, and give the memory back."""
        try:
            self._pair.drain()
        finally:
            self._memory.close()

    def _check(self) -> None:
        """Refuse what the namespace or the queue cannot do."""
        block, most = self._namespace.block_size, self._namespace.most_blocks
        where = f"{self._pair.name}: namespace {self._namespace.id}"
        if not 0 < self._size <= most * block or self._size % block:
            raise RegisterValueError(
                f"{where}: {self._size} bytes in a command; it takes multiples of {block} bytes, "
                f"up to {most * block}"
            )
        if not 1 <= self._depth <= self._pair.depth:
            raise RegisterValueError(
                f"{where}: {self._depth} commands at once; its queue takes 1 to {self._pair.depth}"
            )
        if self._size > self._namespace.blocks * block:
            raise RegisterValueError(f"{where}: has fewer than {self._size} bytes")

    def _fill(self) -> None:
        """Choose the places of the pool anew, in order those after the ones that were used."""
        if self._pattern is Pattern.RANDOM:
            steps = self._random.integers(0, self._steps, POOL, np.uint64)
        else:
            self._first_step = (self._first_step + self._next) % self._steps
            steps = (self._first_step + np.arange(POOL, dtype=np.uint64)) % np.uint64(self._steps)
        self._pool["lba"] = steps * np.uint64(self._blocks)
        self._next = 0

    def _in_batches(self, end: int, progress: Progress | None) -> int:
        """Send a command for each that completed, until `end`; return when the last one was."""
        self._send(np.arange(self._depth))
        report = now = 0
        while now < end:
            slots = self._take()
            now = time.perf_counter_ns()
            self._latencies.add(now - self._began[slots])
            self._send(slots)
            if progress and now >= report:
                progress(self._commands * self._size, 0)
                report = now + REPORT
        return now

    def _send(self, slots: NDArray[np.intp]) -> None:
        if self._next + len(slots) > POOL:
            self._fill()
        batch = self._pool[self._next : self._next + len(slots)]
        self._next += len(slots)
        batch["tag"] = slots
        batch["data"] = self._places[slots]
        self._began[slots] = time.perf_counter_ns()
        self._pair.submit(batch)

    def _take(self) -> NDArray[np.intp]:
        """Return the slots whose commands completed: one at least."""
        found = self._pair.poll(1, self._pair.timeout)
        if not found.size:
            raise DeviceTimeout(f"{self._pair.name}: no answer within {self._pair.timeout:.1f} s")
        if found["status"].any():
            self._refuse(int(found["status"][found["status"] != 0][0]))
        self._commands += found.size
        slots: NDArray[np.intp] = found["tag"].astype(np.intp)
        return slots

    def _one_by_one(self, end: int, progress: Progress | None) -> int:
        """Call and wait, until `end`; return when the last one was done."""
        now = time.perf_counter_ns()
        while now < end:
            took: list[int] = []
            report = min(end, now + REPORT)
            for lba in self._pool["lba"].tolist():
                now = self._transfer(lba, took)
                if now >= report:
                    break
            self._latencies.add(np.array(took, np.int64))
            self._commands += len(took)
            self._next = len(took)
            self._fill()
            if progress:
                progress(self._commands * self._size, 0)
        return now

    def _transfer(self, lba: int, took: list[int]) -> int:
        """Do one command, and note its nanoseconds; return when it was done."""
        before = time.perf_counter_ns()
        status = self._pair.transfer(
            self._opcode, 0, self._namespace.id, lba, self._blocks, self._memory.array
        )
        after = time.perf_counter_ns()
        if status:
            self._refuse(status)
        took.append(after - before)
        return after

    def _refuse(self, status: int) -> None:
        raise CommandError(self._pair.name, self._opcode, self._namespace.id, status)


class _Latencies:
    """The last latencies in nanoseconds, in a ring."""

    def __init__(self) -> None:
        self._kept = np.zeros(SAMPLES, np.int64)
        self._next = self._filled = 0

    def add(self, found: NDArray[np.int64]) -> None:
        if self._next + len(found) > SAMPLES:
            self._next = 0
        self._kept[self._next : self._next + len(found)] = found
        self._next += len(found)
        self._filled = max(self._filled, self._next)

    def percentiles(self, *wanted: float) -> list[float]:
        """Return them in seconds."""
        kept = self._kept[: self._filled]
        return [float(each) / 1e9 for each in np.percentile(kept, wanted)] if kept.size else []

"""Counts what some work takes: time, the processor time of this process, and the machine's.

Linux Documentation/filesystems/proc.rst, section 1.7 (/proc/stat), whose idle time is counted in
ticks. The machine's busy time has everything: interrupts, kernel threads, and other programs, too.
"""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from types import TracebackType
from typing import Self

import psutil

from uspace_drv.bench.histogram import Histogram
from uspace_drv.bench.suite import Sample

PROCESSORS_SHOWN = "USPACE_BENCH_PROCESSORS"
"""Environment variable: the folder in which a guest sees the threads of the QEMU that runs it."""


class Stopwatch:
    """Runs within a `with` block; `sample()` afterwards says what was counted."""

    def __enter__(self) -> Self:
        self._busy, self._own = busy_seconds(), own_seconds()
        self._start = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.seconds = time.perf_counter() - self._start
        before, after = self._busy, busy_seconds()
        self.busy = None if before is None or after is None else after - before
        self.own = own_seconds() - self._own

    def sample(self, operations: int, latencies: Histogram | None = None) -> Sample:
        """Return what was counted as the sample of a way that did so many operations."""
        return Sample(
            operations=operations, seconds=self.seconds, busy=self.busy, own=self.own,
            latencies=latencies,
        )  # fmt: skip


def busy_seconds() -> float | None:
    """Seconds that the processors of this machine have been busy, all together, from some start.

    In a guest whose host shows how long its emulated processors have run, it is that. None where
    the machine does not tell: sandboxes show zeros.
    """
    threads = os.environ.get(PROCESSORS_SHOWN)
    if threads:
        return sum(map(_run_seconds, _emulated_processors(Path(threads))))
    used = psutil.cpu_times()
    if not used.idle:
        return None
    count = os.cpu_count() or 1
    return float(time.monotonic() * count - used.idle - used.iowait)


@cache
def _emulated_processors(threads: Path) -> list[Path]:
    """Return what counts each of QEMU's threads that is a processor ("CPU 0/TCG")."""
    return [each for each in threads.iterdir() if (each / "comm").read_text().startswith("CPU ")]


def _run_seconds(thread: Path) -> float:
    """Return how long a thread has run (Linux Documentation/scheduler/sched-stats.rst)."""
    return int((thread / "schedstat").read_text().split()[0]) / 1e9


def own_seconds() -> float:
    """Processor seconds of this process and of its children that have ended, to the microsecond."""
    used = (getrusage(who) for who in (RUSAGE_SELF, RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)

"""Ways that need no more than a function or a statement: called in a loop for as long as asked."""

from __future__ import annotations

import math
import time
import timeit
from collections.abc import Callable, Mapping

import numpy as np

from uspace_drv.bench.histogram import Histogram
from uspace_drv.bench.setting import Setting
from uspace_drv.bench.stopwatch import Stopwatch
from uspace_drv.bench.suite import Sample, Way

MOST = 1 << 22
"""Calls whose latencies are kept, 32 MiB of them."""

MOST_LOOPS = 1 << 30
"""Fits the int of a C function."""


def repeat(setting: Setting, function: Callable[[], object], *, calls: int = 1) -> Way:
    """Call a function over and over; each call does `calls` operations, and its latency is kept."""

    def measure() -> Sample:
        function()
        taken: list[int] = []
        clock = time.perf_counter_ns
        with Stopwatch() as watch:
            end = clock() + int(setting.seconds * 1e9)
            before = clock()
            while (before < end or not taken) and len(taken) < MOST:
                function()
                after = clock()
                taken.append(after - before)
                before = after
        latencies = Histogram.of(np.array(taken) // calls)
        return watch.sample(len(taken) * calls, latencies)

    return measure


def statement(setting: Setting, code: str, names: Mapping[str, object]) -> Way:
    """Run a statement that takes nanoseconds, in a compiled loop whose own cost is taken off.

    No latency of one is known: reading the clock takes longer. The shortest empty loop so far is
    the one that nothing held up.
    """
    timer, empty = timeit.Timer(code, globals=dict(names)), timeit.Timer("pass")
    loops, bare = 0, math.inf

    def measure() -> Sample:
        nonlocal loops, bare
        if not loops:
            loops = loops_for(setting.seconds, timer.timeit)
        with Stopwatch() as watch:
            seconds = timer.timeit(loops)
        bare = min(bare, empty.timeit(loops))
        watch.seconds = seconds - bare
        return watch.sample(loops)

    return measure


def loops_for(seconds: float, run: Callable[[int], float]) -> int:
    """Return how many loops take about `seconds`; `run` does so many and returns its seconds.

    Each count is tried twice: whatever runs for the first time is slow, above all where a processor
    is emulated.
    """
    number = 1
    while (taken := min(run(number), run(number))) < seconds / 10 and number < MOST_LOOPS:
        number *= 4
    return max(1, min(int(number * seconds / max(taken, 1e-9)), MOST_LOOPS))

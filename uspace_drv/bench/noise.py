"""Watches what else the machine does while something is measured, and says when that is too much.

Linux Documentation/filesystems/proc.rst, section 1.8 (/proc/stat), as psutil reads it. Waiting for
disks (iowait) is not judged: a way that waits for a disk brings it about by itself. Interrupts are
not judged either, because they may be the device's that is measured.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

import psutil

from uspace_drv.bench.results import ComparisonResult, Noise
from uspace_drv.bench.statistics import figures, spread

STEAL = 0.01
"""A hypervisor that takes 1 % takes it in pieces of milliseconds: they stand in the tail."""

OTHERS = 0.05
"""Other programs with 5 % of the machine evict caches and take a processor now and then."""

LEAST = 0.1
"""Seconds of processor time below which nothing is said: a few ticks of the kernel's clock."""

LOAD = 1.5
"""Programs that want to run, for each processor; a benchmark by itself stays near one."""

CLOCK = 0.1
"""How far the clock may fall below its highest: turbo steps are less, throttling is more."""

SPREAD = 0.1
"""How far the middle half of a way's rounds may be apart; on a quiet machine it is 1 to 3 %."""

FEW = 5
"""Rounds whose lowest and highest figure hold the median with 94 %; fewer cannot reach 95 %."""

TOLD = 0.5
"""The part of the time that /proc/stat must account for to be believed; sandboxes show zeros."""

Fact = TypeVar("Fact")
Missing = TypeVar("Missing")


class NoiseMeter:
    """Runs within a `with` block; afterwards `noise` says what was seen.

    "Others" are all programs but this one, its children and those of `pids`. Call `look()` now and
    then inside the block: it samples the clock of the processor that runs fastest, because those
    that have nothing to do sleep at a lower one.
    """

    def __init__(self, pids: Iterable[int] = ()) -> None:
        self.noise = Noise()
        self._pids = [os.getpid(), *pids]

    def __enter__(self) -> Self:
        self._load = _told(os.getloadavg, (0.0,))[0]
        self._times, self._ours = _machine_seconds(), self._our_seconds()
        self._start = time.monotonic()
        self._clocks: list[float] = []
        self.look()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.look()
        span = (time.monotonic() - self._start) * (os.cpu_count() or 1)
        after = _machine_seconds()
        passed = {name: max(0.0, after[name] - self._times.get(name, 0.0)) for name in after}
        self._judge(span, passed, max(0.0, self._our_seconds() - self._ours))

    def look(self) -> None:
        """Sample the clock; costs a read of a file for each processor."""
        clocks = [each.current for each in _told(lambda: psutil.cpu_freq(percpu=True), []) or []]
        if clocks and max(clocks) > 0:
            self._clocks.append(float(max(clocks)))

    def _our_seconds(self) -> float:
        """Processor seconds of our processes: those that ended stand with who waited for them."""
        found = {}
        for pid in self._pids:
            for process in _told(partial(_family, pid), []):
                used = _told(process.cpu_times, None)
                found[process.pid] = sum(used[:4]) if used else 0.0
        return sum(found.values())

    def _judge(self, span: float, passed: dict[str, float], ours: float) -> None:
        noise = self.noise
        noise.load = self._load
        if self._clocks:
            noise.frequencies = [min(self._clocks), max(self._clocks)]
        if span > 0 and sum(passed.values()) > TOLD * span:
            noise.steal = min(1.0, passed.get("steal", 0.0) / span)
            names = ("idle", "iowait", "steal", "irq", "softirq")
            rest = span - ours - sum(passed.get(name, 0.0) for name in names)
            noise.others = min(1.0, max(0.0, rest / span))
        noise.notes = list(_notes(noise, span))


def _notes(noise: Noise, span: float) -> Iterable[str]:
    if noise.steal > STEAL and noise.steal * span > LEAST:
        yield f"the hypervisor took {noise.steal:.1%} of the processors' time (steal)"
    if noise.others > OTHERS and noise.others * span > LEAST:
        yield f"other programs took {noise.others:.0%} of the processors' time"
    count = os.cpu_count() or 1
    if noise.load > LOAD * count:
        yield f"the load average was {noise.load:.1f} on {count} processors at the start"
    if noise.frequencies and noise.frequencies[0] < (1 - CLOCK) * noise.frequencies[1]:
        low, high = noise.frequencies
        yield f"the clock went between {low:.0f} and {high:.0f} MHz"


def round_notes(result: ComparisonResult) -> list[str]:
    """Say whether there were too few rounds, and which ways had some that differ much."""
    counts = [len(way.rounds) for way in result.ways if way.rounds]
    found = []
    if counts and min(counts) < FEW:
        held = 1 - 0.5 ** (min(counts) - 1)  # the chance that not all lie on one side of the median
        found.append(f"{min(counts)} rounds are too few: intervals hold with {held:.0%}, not 95%")
    for way in result.ways:
        values = figures(way, result.figure)
        if len(values) > 1 and (far := spread(values)) > SPREAD:
            found.append(f"{way.name}: the middle half of its rounds is {far:.0%} apart")
    return found


def add_host(noise: Noise, host: Noise) -> None:
    """Add what a guest's host did meanwhile to what the guest saw: a guest is blind to that.

    The higher figure stays of each, but the clock is the host's where it tells one: an emulated
    processor has none of its own.
    """
    noise.steal = max(noise.steal, host.steal)
    noise.others = max(noise.others, host.others)
    noise.load = max(noise.load, host.load)
    noise.frequencies = host.frequencies or noise.frequencies
    noise.notes += [f"host: {note}" for note in host.notes]


def _machine_seconds() -> dict[str, float]:
    """Seconds of all processors by what they did; a guest's are counted as user time, too."""
    used = _told(psutil.cpu_times, None)
    return {} if used is None else dict(used._asdict())


def _family(pid: int) -> Sequence[psutil.Process]:
    first = psutil.Process(pid)
    return [first, *first.children(recursive=True)]


def _told(ask: Callable[[], Fact], missing: Missing) -> Fact | Missing:
    """Return a fact, or what stands for one that this machine or container does not tell."""
    try:
        return ask()
    except (OSError, psutil.Error, NotImplementedError, AttributeError):
        return missing

"""Where the two sides of a measurement run, and an end for calls that know no deadline.

Linux sched_setaffinity(2) and setitimer(2).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TypeVar

from uspace_drv.errors import DeviceTimeout

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds that any wait of a suite lasts at most."""


@dataclass(frozen=True)
class Place:
    """The processor of this side and that of the other one."""

    ours: int
    theirs: int

    @property
    def apart(self) -> bool:
        """Whether there are two."""
        return self.ours != self.theirs

    def __str__(self) -> str:
        return "two cores" if self.apart else "one core"


def places() -> list[Place]:
    """Two processors, if this process may use two, then one."""
    usable = sorted(os.sched_getaffinity(0))
    first, last = usable[0], usable[-1]  # neighbours in number are often threads of one core
    return [Place(first, last)] * (first != last) + [Place(first, first)]


@contextmanager
def staying_on(processor: int) -> Iterator[None]:
    """Keep the calling thread on one processor, and let it go where it might go before."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {processor})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def on(processor: int, function: Callable[[], T]) -> Callable[[], T]:
    """Return a function that does the same on one processor."""

    def run() -> T:
        with staying_on(processor):
            return function()

    return run


def pin(process: int, processor: int) -> None:
    """Keep all threads of a process on one processor; those that they start inherit it."""
    for thread in Path(f"/proc/{process}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {processor})


@contextmanager
def alarm(seconds: float, what: str) -> Iterator[None]:
    """Let a system call that knows no deadline end with `DeviceTimeout`. Only in the main thread.

    An alarm that somebody else has set is put off until after it.
    """

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise DeviceTimeout(f"{what}: not done within {seconds:g} s")

    handler = signal.signal(signal.SIGALRM, ring)
    others = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *others)

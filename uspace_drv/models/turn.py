"""The lock of all that reaches a model's memory; a data path in C holds it as long as it runs.

Whoever else wants it interrupts that, so that an unmap returns only when C uses nothing of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from uspace_drv.native import TurnLock

T = TypeVar("T")

MOMENT = 20e-6
"""Seconds that a data path stands back for those who ask."""


class Interruptible(Protocol):
    """A data path, as C runs it."""

    def interrupt(self) -> None:
        """Make what runs return soon, and what starts return at once, until `resume`."""

    def resume(self) -> None:
        """Let it run again."""


class Turn(TurnLock):
    """A reentrant lock, as `with` takes it. `lend` is for the one data path there may be.

    Entering and leaving are C: in Python, Ctrl-C could come between the lock and the `with`, and
    leave the lock taken for good.
    """

    def settle(self) -> None:
        """Return when the data path has noticed what was changed: it was out of C since."""
        with self:
            pass

    def introduce(self, path: Interruptible | None) -> None:
        """Say which data path is to be interrupted from now on; None when it has ended."""
        with self:
            self.path = path

    def lend(self, path: Interruptible, run: Callable[[], T]) -> T | None:
        """Call `run` with the lock held, after all who ask; None once `path` is not the one."""
        while True:
            with self.lock:
                if self.path is not path:
                    return None
                path.resume()
                if not self.asking:  # who asks from here on interrupts it
                    return run()
            time.sleep(MOMENT)

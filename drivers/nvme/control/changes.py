"""Telling others that namespaces may have changed, in a thread that holds no lock of the driver.

A listener scans the namespaces, under a lock of its own, and sends admin commands for that. A
thread that told it while it held the controller or its queues would wait for the thread that scans,
which waits for the controller. So what is to be told waits until the thread has left its locks.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from uspace_drv import UspaceError

_log = logging.getLogger(__name__)


class _Here(threading.local):
    """What the thread that asks is in the middle of."""

    depth = 0
    owes = False
    is_after_reset = False


class Changes:
    """Calls listeners; a lock is held by `with changes.holding(lock)`, as deep as need be."""

    def __init__(self) -> None:
        self._here = _Here()
        self._listeners: list[Callable[[], None]] = []

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` when there is something to tell, in whatever thread."""
        self._listeners.append(listener)

    @property
    def may_tell(self) -> bool:
        """Whether the thread that asks holds no lock, and so may call what takes others."""
        return self._here.depth == 0

    @property
    def is_after_reset(self) -> bool:
        """Whether the thread that asks tells of a reset: one that fails then is no new trouble."""
        return self._here.is_after_reset

    @contextmanager
    def holding(self, lock: AbstractContextManager[Any]) -> Iterator[None]:
        """Hold a lock; a reset is told of when the thread has left its outermost one.

        Listeners that fail then are logged: what was done under the lock is done.
        """
        here = self._here
        before = here.depth
        try:
            with lock:
                here.depth = before + 1
                yield
        finally:
            here.depth = before
            if here.owes and not before:
                here.owes = False
                self._tell_late()

    def tell(self) -> None:
        """Call the listeners, and raise what they raise."""
        for listener in tuple(self._listeners):
            listener()

    def tell_of_reset(self) -> None:
        """Call the listeners, now or when the thread has left its locks."""
        here = self._here
        if here.depth:
            here.owes = True
            return
        before, here.is_after_reset = here.is_after_reset, True
        try:
            self.tell()
        finally:
            here.is_after_reset = before

    def _tell_late(self) -> None:
        try:
            self.tell_of_reset()
        except UspaceError as error:  # whoever uses it next is told, too
            _log.warning("%s", error)

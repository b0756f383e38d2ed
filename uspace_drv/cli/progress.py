"""The bar that a long verb draws on the terminal: how far it is, how fast, how much longer."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Display

from uspace_drv.verbs import Progress

INTERVAL = 0.1
"""Seconds between two drawings: the verb's own loop draws, and has better things to do."""


@contextmanager
def progress_bar(name: str, *, wanted: bool) -> Iterator[Progress | None]:
    """Give what a verb calls with bytes done and in all; None where nobody sees standard error.

    Nothing of it is left on the screen when the verb is done.
    """
    if not wanted or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    with _display() as display:
        yield _Bar(display, display.add_task(name, total=None))


def _display() -> Display:
    """Return it without its thread, which would take turns of Python's lock from the verb."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    return Display(
        *columns,
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


class _Bar:
    """Draws at most ten times a second, whatever it is told."""

    def __init__(self, display: Display, task: TaskID) -> None:
        self._display = display
        self._task = task
        self._next = 0.0

    def __call__(self, done: int, total: int, /) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + INTERVAL
            self._display.update(self._task, completed=done, total=total or None, refresh=True)

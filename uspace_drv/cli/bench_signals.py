"""Ctrl-C, SIGTERM and SIGHUP in a run of benchmarks: they unwind it, and are never lost.

Suites run foreign code for long, and what a signal interrupts there may end as another error.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import NoReturn, Self, TypeAlias

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Handler: TypeAlias = Callable[[int, FrameType | None], object] | int | None


class Interrupts:
    """Within a `with` block a signal is an exception, so that everything is put back.

    Ctrl-C is handled here as well: asyncio leaves it alone then. Its own handler cancels a task,
    and forgets the signal if that fails meanwhile.
    """

    def __init__(self) -> None:
        self._came: int | None = None
        self._before: dict[int, Handler] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        for number, handler in self._before.items():
            if handler not in (signal.SIG_IGN, None):  # nohup is to be obeyed
                signal.signal(number, self._take)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            if handler is not None:  # that is a handler in C, which Python could not put back
                signal.signal(number, handler)

    def check(self, failure: BaseException) -> None:
        """Raise what the first signal was to raise, if one came before this failure."""
        if self._came is not None:
            leaving = _exception(self._came)
            leaving.add_note(f"meanwhile: {failure}")
            raise leaving from failure

    def _take(self, number: int, _frame: FrameType | None) -> NoReturn:
        self._came = self._came or number
        raise _exception(number)


def _exception(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)

"""The way out: steps that undo what was done, in reverse, each run even if another one failed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from uspace_drv.errors import DeviceGone


class Teardown:
    """A pile of steps. `run()` empties it from the top and reports the first failure last.

    The steps that failed after it are attached to the first failure as notes, so that nothing is
    lost. Whoever fails half-way on the way in calls `run(error)` and re-raises the error. Ctrl-C
    and SIGTERM wait until all steps are done; so does a second thread that calls `run()`.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], None]]] = []
        self.turn = threading.RLock()
        """Held while steps run; hold it for what must be over before another thread leaves."""

    def push(self, what: str, step: Callable[[], None]) -> None:
        """Add what is to be done first on the way out, and its name for the report."""
        self._steps.append((what, step))

    def run(self, error: BaseException | None = None) -> None:
        """Run every step once. Raises the first failure, unless `error` is there to take notes.

        What ends a generator that is closed takes none: nobody would ever read them.
        """
        if isinstance(error, GeneratorExit):
            error = None
        with self.turn, _signals_held():
            first = self._run_steps(error)
            if first is not None and error is None:
                raise first

    def _run_steps(self, first: BaseException | None) -> BaseException | None:
        while self._steps:
            what, step = self._steps.pop()
            try:
                step()
            except BaseException as failure:  # noqa: BLE001 - whatever it is, the rest must run
                if first is None:
                    first = failure
                    failure.add_note(f"while leaving: {what}")
                elif _says_more(failure, first):
                    first.add_note(f"then, while leaving: {what}: {_in_words(failure)}")
        return first


@contextmanager
def _signals_held() -> Iterator[None]:
    """Keep what would interrupt the main thread until the end; Python interrupts no other one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        came.append(number)

    # SIGINT comes back last: what Ctrl-C then interrupts has nothing more to put back.
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    try:
        for number, handler in handlers.items():
            if handler is not None:  # None is a handler in C, which Python could not put back
                signal.signal(number, hold)
        yield
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) is hold:  # else a step has changed it for good
                signal.signal(number, handler)
        for held in came:
            signal.raise_signal(held)


def _says_more(failure: BaseException, first: BaseException) -> bool:
    """Whether it is worth a line: a device that is gone is gone in every step that follows."""
    is_gone = isinstance(first, DeviceGone) and isinstance(failure, DeviceGone)
    return failure is not first and not is_gone


def _in_words(failure: BaseException) -> str:
    return f"{type(failure).__name__}: {failure}"

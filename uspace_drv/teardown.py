"""The way out: steps that undo what was done, in reverse, each run even if another one failed."""

from __future__ import annotations

from collections.abc import Callable


class Teardown:
    """A pile of steps. `run()` empties it from the top and reports the first failure last.

    The steps that failed after it are attached to the first failure as notes, so that nothing is
    lost. Whoever fails half-way on the way in calls `run(error)` and re-raises the error.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], None]]] = []

    def push(self, what: str, step: Callable[[], None]) -> None:
        """Add what is to be done first on the way out, and its name for the report."""
        self._steps.append((what, step))

    def run(self, error: BaseException | None = None) -> None:
        """Run every step once. Raises the first failure, unless `error` is there to take notes."""
        first = error
        while self._steps:
            what, step = self._steps.pop()
            try:
                step()
            except BaseException as failure:  # noqa: BLE001 - Ctrl-C must not skip a step either
                if first is None:
                    first = failure
                    failure.add_note(f"while leaving: {what}")
                else:
                    first.add_note(f"then, while leaving: {what}: {_in_words(failure)}")
        if first is not None and error is None:
            raise first


def _in_words(failure: BaseException) -> str:
    return f"{type(failure).__name__}: {failure}"

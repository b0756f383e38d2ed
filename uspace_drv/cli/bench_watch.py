"""How a run of benchmarks says on standard error how far it is: a bar, or lines where no one looks.

Nothing is drawn while a sample is taken: there is no thread, only the runner's calls draw.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from uspace_drv.bench.report.rows import comparison_rows
from uspace_drv.bench.results import ComparisonResult, Skipped
from uspace_drv.bench.suite import Comparison

MINUTE = 60


class Lines:
    """One line for each comparison when it is over, for logs and pipes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave nothing behind."""

    def say(self, words: str) -> None:
        """Print a line."""
        click.echo(words, err=True)

    def begin(self, suite: str, comparison: Comparison) -> None:
        """Say nothing yet."""

    def rounds(self, fraction: float, seconds_left: float) -> None:
        """Say nothing yet."""

    def end(self, suite: str, result: ComparisonResult) -> None:
        """Print the ratios of a comparison."""
        self.say(line_of(suite, result))

    def skipped(self, suite: str, skipped: Skipped) -> None:
        """Print what is left out."""
        self.say(f"{suite}: skipped: {skipped.what}: {skipped.why}")


class Bar(Lines):
    """The same lines, and below them a bar for the comparison that is being measured."""

    def __init__(self, suites: list[str]) -> None:
        self._suites = suites
        self._display = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f} %", markup=False),
            TextColumn("{task.fields[left]}", markup=False),
            console=Console(stderr=True),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._display.add_task("", total=1.0, left="", visible=False)

    def __enter__(self) -> Self:
        self._display.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._display.stop()

    def say(self, words: str) -> None:
        """Print a line above the bar."""
        self._display.console.print(
            words, markup=False, emoji=False, highlight=False, soft_wrap=True
        )

    def begin(self, suite: str, comparison: Comparison) -> None:
        """Draw it, still empty."""
        number = self._suites.index(suite) + 1 if suite in self._suites else 1
        words = f"{suite} ({number} of {len(self._suites)}): {comparison.name}"
        self._draw(description=words, completed=0.0, left="warming up", visible=True)

    def rounds(self, fraction: float, seconds_left: float) -> None:
        """Draw how far it is."""
        self._draw(completed=fraction, left=f"{duration(seconds_left)} left")

    def end(self, suite: str, result: ComparisonResult) -> None:
        """Print the ratios, and take the bar away until the next one begins."""
        self._draw(visible=False)
        super().end(suite, result)

    def _draw(self, **fields: object) -> None:
        self._display.update(self._task, refresh=True, **fields)  # type: ignore[arg-type]


def teller(suites: list[str]) -> Lines:
    """Return what suits standard error."""
    if sys.stderr is not None and sys.stderr.isatty():
        return Bar(suites)
    return Lines()


def line_of(suite: str, result: ComparisonResult) -> str:
    """Return the figure of the baseline and what the others are to it, in a line."""
    rows = comparison_rows(suite, result)
    base = [f"{row.way} {row.figure}" for row in rows if row.baseline]
    others = [f"{row.way} {row.ratio_words}" for row in rows if row.ratio_value]
    return f"{suite}: {result.name}: {'; '.join([*base, *others])}"


def duration(seconds: float) -> str:
    """Return it as people read it: 5 s, 1 min 40 s."""
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, MINUTE)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"

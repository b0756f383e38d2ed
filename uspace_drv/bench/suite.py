"""What a suite of benchmarks is made of: comparisons, the ways that they compare, and samples.

A plugin brings a suite in a few lines: a generator that opens what it measures and yields one
`Comparison` after the other. The runner (runner.py) calls the ways in turn, round by round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, TypeAlias

from uspace_drv.errors import LayoutError

if TYPE_CHECKING:
    from uspace_drv.bench.histogram import Histogram
    from uspace_drv.bench.setting import Setting


class Figure(StrEnum):
    """What of a sample is compared."""

    TIME = "time"
    """Seconds for each operation: less is better."""

    RATE = "rate"
    """Operations a second: more is better."""

    LATENCY = "latency"
    """Median latency in seconds: less is better."""

    @property
    def more_is_better(self) -> bool:
        """Whether a ratio above 1 is a gain."""
        return self is Figure.RATE

    def of(self, operations: int, seconds: float, latency: float | None) -> float | None:
        """Return it, in seconds or operations a second; None where it was not measured.

        `latency` is the median, in seconds.
        """
        if self is Figure.LATENCY:
            return latency
        if operations <= 0 or seconds <= 0:
            return None
        return seconds / operations if self is Figure.TIME else operations / seconds


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What one way did in one round, its own warm-up not counted.

    `seconds` passed while `operations` were done. `busy` are the seconds that all processors of
    the machine were busy meanwhile, interrupts included, and `own` those of this process and its
    children; None where nobody counted. `latencies` has one entry for each operation looked at.
    """

    operations: int
    seconds: float
    busy: float | None = None
    own: float | None = None
    latencies: Histogram | None = None

    def figure(self, figure: Figure) -> float:
        """Return the one number that is compared, in seconds or operations a second.

        One that was not measured is a `LayoutError`: the suite contradicts itself.
        """
        latency = self.latencies.percentile(50) / 1e9 if self.latencies is not None else None
        value = figure.of(self.operations, self.seconds, latency)
        if value is None:
            raise LayoutError(f"a sample has no {figure}, which is what is compared")
        return value


Way: TypeAlias = Callable[[], Sample]
"""Does something often enough to be measured, for about `Setting.seconds`, and says how it went."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The same thing done in several ways; the others are set beside the way called `baseline`.

    `name` says the thing ("4 KiB random reads, 32 at once"), `operation` one of what is counted
    ("read"), `size` its bytes if it moves data. `axes` place it in plots ({"depth": 32}); equal
    `chart` puts comparisons into one plot.
    """

    name: str
    operation: str
    ways: Mapping[str, Way]
    baseline: str
    figure: Figure = Figure.TIME
    size: int | None = None
    axes: Mapping[str, int | str] = field(default_factory=dict)
    chart: str = ""


@dataclass(frozen=True, kw_only=True)
class GuestMachine:
    """What a guest has to have for a suite, as `uspace_drv.testing.guest.Guest` takes it.

    `device` is the address there that user space drives, `beside` that of an equal one that stays
    with its kernel driver.
    """

    devices: Sequence[str] = ()
    drives: Sequence[str] = ()
    iommu: Literal["none", "intel", "amd", "virtio"] = "none"
    hugepages: int = 0
    modules: Sequence[str] = ()
    words: Sequence[str] = ()
    newest_qemu: bool = False
    device: str | None = None
    beside: str | None = None
    via: str | None = None
    unsafe_dma_without_iommu: bool = False


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One set of comparisons, named on the command line by its entry point.

    `compare` opens what is measured, yields comparisons and closes all again, whatever happens:
    the runner closes the generator when it is interrupted. Entry points of the group
    "uspace_drv.benchmarks" name suites.
    """

    summary: str
    compare: Callable[[Setting], Iterator[Comparison]]
    guest: GuestMachine = field(default_factory=GuestMachine)

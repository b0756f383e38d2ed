"""What both sides are asked to do: so many reads at once, of one size, random or in order.

Only reads: a benchmark that wrote would destroy what is on the disk.
"""

from __future__ import annotations

from dataclasses import dataclass

from uspace_drivers.nvme.verbs.bench import Pattern

KIB = 1 << 10


@dataclass(frozen=True)
class Work:
    """`depth` reads of `size` bytes at once in each of `queues`, a thread each."""

    depth: int
    size: int = 4 * KIB
    pattern: Pattern = Pattern.RANDOM
    queues: int = 1
    chart: str = ""

    @property
    def name(self) -> str:
        """In words: '4 KiB random reads, 32 at once'."""
        where = f" in each of {self.queues} queues" if self.queues > 1 else ""
        return f"{self.size // KIB} KiB {self.pattern.value} reads, {self.depth} at once{where}"

    @property
    def axes(self) -> dict[str, int | str]:
        """Its place in plots."""
        more = {"queues": self.queues} if self.queues > 1 else {}
        return {"depth": self.depth, **more}


CHART = "IOPS by depth"

ALL = (
    *(Work(depth, chart=CHART) for depth in (1, 4, 32, 128)),
    Work(8, 128 * KIB, Pattern.SEQUENTIAL),
    Work(32, queues=2),
)
QUICK = tuple(Work(depth, chart=CHART) for depth in (1, 32))

"""Where and how long a suite measures, and what it could not measure there."""

from __future__ import annotations

from dataclasses import dataclass, field

from uspace_drv.bench.results import Skipped


@dataclass(kw_only=True)
class Setting:
    """What the command line said, as a suite sees it.

    `device` is the address of a device to measure; None asks for what needs none: models, memory,
    sockets. `beside` is an equal device that stays with its kernel driver; with None the suite
    hands the one device to and fro. `via` as for `attach`. `seconds` is how long a sample is to
    take. `quick` asks for the few comparisons that say most. `unsafe_dma_without_iommu` as for
    `attach`: the user's word, never a suite's.
    """

    device: str | None = None
    beside: str | None = None
    via: str | None = None
    seconds: float = 1.0
    quick: bool = False
    unsafe_dma_without_iommu: bool = False
    skipped: list[Skipped] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)

    def skip(self, what: str, why: str) -> None:
        """Note that something cannot be measured here, and why or what helps; nobody hides it."""
        self.skipped.append(Skipped(what=what, why=why))

    def note_way(self, via: str) -> None:
        """Note by which way the device was opened (`device.via`): results say so."""
        if via not in self.opened:
            self.opened.append(via)

"""Made-up results that look like real ones, for the tests of the report."""

from __future__ import annotations

import numpy as np

from uspace_drv.bench.histogram import Histogram
from uspace_drv.bench.results import (
    ComparisonResult,
    Machine,
    Noise,
    Results,
    Round,
    Skipped,
    SuiteResult,
    WayResult,
)
from uspace_drv.bench.statistics import ratios

KERNEL, BATCH = "kernel, io_uring", "kernel, io_uring, handing over many at once"
IRQ, POLLED = "user space, by interrupt", "user space, polled"


def way(name: str, seconds: float, busy: float, *, latency: bool, rounds: int = 9) -> WayResult:
    """Return a way that takes about so many seconds for each operation."""
    made, everything, chance = [], Histogram(), np.random.default_rng(len(name))
    for _ in range(rounds):
        each = seconds * float(chance.normal(1, 0.03))
        drawn = chance.lognormal(np.log(each * 1e9), 0.18, 2000) + chance.pareto(1.6, 2000) * 800
        found = Histogram.of(drawn)
        everything.add(found)
        made.append(
            Round(
                operations=int(1 / each) or 1, seconds=1.0, own=busy * 0.7 / each,
                busy=busy / each * float(chance.normal(1, 0.02)),
                median=found.percentile(50) / 1e9 if latency else None,
            )
        )  # fmt: skip
    return WayResult(name=name, rounds=made, latencies=everything.encode() if latency else None)


def comparison(
    name: str, ways: list[WayResult], *, figure: str = "time", **members: object
) -> ComparisonResult:
    """Return a comparison against the first way, with its ratios."""
    made = ComparisonResult(
        name=name, operation="read", figure=figure, baseline=ways[0].name, ways=ways,
        narrow=True, **members,  # type: ignore[arg-type]
    )  # fmt: skip
    made.ratios = ratios(made)
    return made


def nvme() -> SuiteResult:
    """Return a suite with an axis, latencies, processor time and doubts."""
    comparisons = []
    for depth, kernel, batch, irq, polled in (
        (1, 118e-6, 121e-6, 71e-6, 50e-6),
        (4, 60e-6, 45e-6, 24e-6, 16e-6),
        (32, 34e-6, 15e-6, 5.1e-6, 3.2e-6),
        (128, 33e-6, 12e-6, 4.0e-6, 2.6e-6),
    ):
        ways = [
            way(name, each, each * share, latency=True)
            for name, each, share in (
                (KERNEL, kernel, 0.7),
                (BATCH, batch, 0.8),
                (IRQ, irq, 0.9),
                (POLLED, polled, 0.75),
            )
        ]
        comparisons.append(
            comparison(
                f"4 KiB random reads, {depth} at once", ways, figure="rate", size=4096,
                axes={"depth": depth}, chart="4 KiB random reads",
            )
        )  # fmt: skip
    comparisons[1].noise = Noise(steal=0.04, notes=["the host took 4.0 % of the processors"])
    comparisons[3].narrow = False
    return SuiteResult(
        name="nvme", summary="block storage: the NVMe driver beside Linux's own",
        device="0000:00:04.0", comparisons=comparisons,
        skipped=[Skipped(what="libaio", why="no fio; run: apt-get install fio")],
    )  # fmt: skip


def mmio() -> SuiteResult:
    """Return a suite of plain times, without axes or latencies."""
    idioms = [
        ("memoryview.cast(\"I\")[i]", 14e-9), ("window.read32(offset)", 11.7e-9),
        ("registers.status.read()", 129e-9), ("numpy a[i]", 35e-9), ("ctypes", 14.1e-9),
        ("cffi, API mode", 67e-9), ("python-periphery MMIO", 364e-9),
    ]  # fmt: skip
    return SuiteResult(
        name="mmio", summary="one register access from Python, idiom beside idiom",
        comparisons=[
            comparison(name, [way(each, t * more, t * more, latency=False) for each, t in idioms])
            for name, more in (("one 32-bit read", 1.0), ("one 32-bit write", 1.2))
        ],
    )  # fmt: skip


def irq() -> SuiteResult:
    """Return a suite that compares latencies."""
    ways = [
        way(name, each, each, latency=True)
        for name, each in (("UIO read", 9e-6), ("eventfd, blocking", 8.8e-6), ("busy-polled", 2e-6))
    ]
    return SuiteResult(
        name="irq", summary="from an interrupt to its handler", machine=1,
        comparisons=[comparison("one interrupt", ways, figure="latency")],
    )  # fmt: skip


def results(*suites: SuiteResult, complete: bool = True) -> Results:
    """Return a file with these suites, or with all of them."""
    return Results(
        started="2026-11-23T18:00:00+00:00",
        command=["uspace", "bench", "nvme", "mmio", "--vm"],
        complete=complete,
        seconds=311.2,
        machines=[
            Machine(facts={"processor": f"Example CPU {number}", "processors": "2", "memory":
                           "8 GiB", "kernel": "Linux 7.3.0", "kernel options": "quiet nokaslr",
                           "mitigations": "spectre_v2: Retpolines; mds: not affected",
                           "virtualisation": "qemu, TCG", "Python": "3.11.7"})
            for number in range(2)
        ],
        suites=list(suites) or [nvme(), mmio(), irq()],
    )  # fmt: skip

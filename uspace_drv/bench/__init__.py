"""Benchmarks against the kernel's path: what a plugin needs to bring a suite of its own."""

from uspace_drv.bench.histogram import Histogram
from uspace_drv.bench.setting import Setting
from uspace_drv.bench.stopwatch import Stopwatch
from uspace_drv.bench.suite import Comparison, Figure, GuestMachine, Sample, Suite, Way
from uspace_drv.bench.ways import repeat, statement

__all__ = [
    "Comparison",
    "Figure",
    "GuestMachine",
    "Histogram",
    "Sample",
    "Setting",
    "Stopwatch",
    "Suite",
    "Way",
    "repeat",
    "statement",
]

"""The results file: one JSON document, the same on every machine, written after each comparison.

Figures are SI: seconds, operations a second. Latencies are HDR histograms in nanoseconds, in the
compressed form of version 2 that all HdrHistogram libraries read.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from uspace_drv.errors import HostError, LayoutError

FORMAT, VERSION = "uspace-bench", 1


class Part(msgspec.Struct, forbid_unknown_fields=True):
    """A part of the file; a member that is missing, wrong or unknown is an error that names it."""


class Noise(Part, kw_only=True):
    """What else the machine did while something was measured; fractions of all processors' time.

    `frequencies` are the lowest and the highest clock of the fastest processor, in MHz; empty where
    none is told.
    """

    steal: float = 0.0
    others: float = 0.0
    load: float = 0.0
    frequencies: list[float] = []
    notes: list[str] = []
    """Why the figures deserve doubt, in words; empty on a quiet machine."""


class Round(Part, kw_only=True):
    """One sample; see `uspace_drv.bench.Sample`. `median` is that of its latencies, in seconds."""

    operations: int
    seconds: float
    busy: float | None = None
    own: float | None = None
    median: float | None = None


class WayResult(Part, kw_only=True):
    """All samples of one way, and all latencies together."""

    name: str
    rounds: list[Round] = []
    latencies: str | None = None


class Interval(Part, kw_only=True):
    """A figure with the interval that holds it with 95 % confidence."""

    middle: float
    low: float
    high: float


class Ratio(Part, kw_only=True):
    """One way against the baseline: of the figure, and of processor time for each operation."""

    way: str
    figure: Interval
    busy: Interval | None = None


class ComparisonResult(Part, kw_only=True):
    """A comparison measured; `complete` is false if it was interrupted."""

    name: str
    operation: str
    figure: str
    baseline: str
    size: int | None = None
    axes: dict[str, int | str] = {}
    chart: str = ""
    ways: list[WayResult] = []
    ratios: list[Ratio] = []
    noise: Noise = msgspec.field(default_factory=Noise)
    narrow: bool = False
    """Whether the intervals became as narrow as was asked before the time was up."""
    complete: bool = True


class Skipped(Part, kw_only=True):
    """What was not measured, and why."""

    what: str
    why: str


class SuiteResult(Part, kw_only=True):
    """What came of one suite."""

    name: str
    summary: str
    device: str = ""
    via: str = ""
    """By which ways it was opened."""
    machine: int = 0
    """Where it ran: an index into `Results.machines`."""
    comparisons: list[ComparisonResult] = []
    skipped: list[Skipped] = []

    @property
    def device_in_words(self) -> str:
        """The device and by which ways it was opened, "" where none was measured."""
        return " by ".join(filter(None, (self.device, self.via)))


class Machine(Part, kw_only=True):
    """The fingerprint of a machine: each fact in words, by its name, in order of importance."""

    facts: dict[str, str]


class Results(Part, kw_only=True):
    """The whole file."""

    format: str = FORMAT
    version: int = VERSION
    started: str
    """ISO 8601, with the time zone."""
    command: list[str]
    complete: bool = False
    """False while it runs, and for ever if it was interrupted."""
    seconds: float = 0.0
    machines: list[Machine] = []
    suites: list[SuiteResult] = []


class _Head(msgspec.Struct):
    format: str = ""
    version: int = 0


def read_results(path: Path) -> Results:
    """Read a file; `HostError` if it cannot be read, `LayoutError` if it is no results file."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise HostError(f"{path}: cannot be read: {error.strerror}", cause=error) from error
    try:
        head = msgspec.json.decode(text, type=_Head)
        if head.format != FORMAT:
            raise LayoutError(f"{path}: no results of uspace bench: it does not say {FORMAT!r}")
        if head.version != VERSION:
            raise LayoutError(
                f"{path}: written by another version: format {head.version}, this one reads"
                f" {VERSION}; read it with the uspace that wrote it, or measure again"
            )
        return msgspec.json.decode(text, type=Results)
    except msgspec.DecodeError as error:
        raise LayoutError(
            f"{path}: no results of uspace bench, or a damaged file: {error}"
        ) from error


def write_results(results: Results, path: Path) -> None:
    """Replace the file at once or not at all: what stood there before stays if the disk is full."""
    text = msgspec.json.format(msgspec.json.encode(results), indent=1)
    write_whole(path, text)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that nobody ever sees half of it; `HostError` if it cannot be written."""
    name = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            name = file.name
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except OSError as error:
        raise HostError(f"{path}: cannot be written: {error.strerror}", cause=error) from error
    finally:
        if name is not None:  # Ctrl-C, too, leaves no half of a file behind
            Path(name).unlink(missing_ok=True)


def as_json(part: Part) -> Any:
    """Return it as plain lists and dictionaries."""
    return msgspec.to_builtins(part)

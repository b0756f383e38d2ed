"""Measures a suite in a guest: runs the same command there, and takes over what it measured.

Both sides share a folder, for the results file, and the guest's output: one JSON line for each
event. So what a guest measured before it died or was interrupted is kept. A guest does not see what
takes processors from it, so its host is watched meanwhile.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from uspace_drv.bench.noise import NoiseMeter, add_host
from uspace_drv.bench.results import (
    ComparisonResult,
    Machine,
    Noise,
    Part,
    Results,
    Skipped,
    SuiteResult,
    read_results,
)
from uspace_drv.bench.stopwatch import PROCESSORS_SHOWN
from uspace_drv.bench.suite import Comparison, GuestMachine
from uspace_drv.errors import HostError, LayoutError, UspaceError
from uspace_drv.testing.guest import PROCESSORS as QEMU_THREADS
from uspace_drv.testing.guest import Guest, Kernel, own_kernel
from uspace_drv.testing.guest.qemu import qemu_command, qemu_version

if TYPE_CHECKING:
    from uspace_drv.bench.runner import Watcher

PROCESSORS = 2
LINES_SHOWN = 20
ROLE = "role"


class SuiteFailed(UspaceError):
    """A suite came to no good end in a guest; the message ends with what was said there."""


class Begin(Part, kw_only=True, tag=True):
    """A comparison begins."""

    suite: str
    name: str
    operation: str
    baseline: str


class Rounds(Part, kw_only=True, tag=True):
    """A round of it has ended."""

    fraction: float
    seconds_left: float


class End(Part, kw_only=True, tag=True):
    """It has ended."""

    suite: str
    result: ComparisonResult


class LeftOut(Part, kw_only=True, tag=True):
    """Something cannot be measured there."""

    suite: str
    skipped: Skipped


Event: TypeAlias = Begin | Rounds | End | LeftOut
_READER = msgspec.json.Decoder(Event)


class EventLines:
    """The watcher in the guest: writes each event as one line of JSON."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write

    def begin(self, suite: str, comparison: Comparison) -> None:
        """Tell that a comparison begins."""
        self._tell(
            Begin(
                suite=suite, name=comparison.name, operation=comparison.operation,
                baseline=comparison.baseline,
            )
        )  # fmt: skip

    def rounds(self, fraction: float, seconds_left: float) -> None:
        """Tell how far it is."""
        self._tell(Rounds(fraction=fraction, seconds_left=seconds_left))

    def end(self, suite: str, result: ComparisonResult) -> None:
        """Tell what came of it."""
        self._tell(End(suite=suite, result=result))

    def skipped(self, suite: str, skipped: Skipped) -> None:
        """Tell what is left out."""
        self._tell(LeftOut(suite=suite, skipped=skipped))

    def _tell(self, event: Event) -> None:
        self._write(msgspec.json.encode(event).decode())


class HostNoise:
    """Watches the host while a guest measures; QEMU is a child of ours, so it is no noise."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], Noise] = {}
        self._watching = ExitStack()
        self._meter: NoiseMeter | None = None

    def begin(self, suite: str, comparison: str) -> None:
        """Watch from now on; what was watched before is over."""
        self.end()
        self._meter = self._watching.enter_context(NoiseMeter())
        self._seen[suite, comparison] = self._meter.noise

    def look(self) -> None:
        """Sample what has to be sampled."""
        if self._meter is not None:
            self._meter.look()

    def end(self) -> None:
        """Judge what was watched, if anything was."""
        self._watching.close()
        self._meter = None

    def add_to(self, suites: Sequence[SuiteResult]) -> None:
        """Add it to the noise of each comparison that was watched."""
        for suite in suites:
            for result in suite.comparisons:
                if (seen := self._seen.get((suite.name, result.name))) is not None:
                    add_host(result.noise, seen)


class Relay:
    """Takes the guest's output on the host: events go to the watcher, other lines are kept.

    Between the events of a comparison `host` watches this machine.
    """

    def __init__(self, watcher: Watcher) -> None:
        self.said: list[str] = []
        self.host = HostNoise()
        self._watcher = watcher
        self._rest = b""

    def __call__(self, piece: bytes) -> None:
        """Take a piece of the output, however the lines are cut."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            self._take(line)

    def close(self) -> None:
        """Take what came after the last end of a line; there is nothing to watch any more."""
        if self._rest:
            self._take(self._rest)
        self._rest = b""
        self.host.end()

    def _take(self, line: bytes) -> None:
        try:
            event = _READER.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self.said.append(line.decode(errors="replace").rstrip())
            return
        match event:
            case Begin(suite=suite, name=name, operation=operation, baseline=baseline):
                comparison = Comparison(name=name, operation=operation, ways={}, baseline=baseline)
                self.host.begin(suite, name)
                self._watcher.begin(suite, comparison)
            case Rounds(fraction=fraction, seconds_left=seconds_left):
                self.host.look()
                self._watcher.rounds(fraction, seconds_left)
            case End(suite=suite, result=result):
                self.host.end()
                self._watcher.end(suite, result)
            case LeftOut(suite=suite, skipped=skipped):
                self._watcher.skipped(suite, skipped)


@dataclass(frozen=True, kw_only=True)
class GuestRun:
    """A suite that is to be measured in the guest that it asks for.

    `words` are more options for `uspace bench run` there, `via` overrides the suite's own.
    `timeout` seconds cover boot and measuring. `tell` hears of the build of the guests' own kernel,
    which takes minutes where it was never done.
    """

    name: str
    machine: GuestMachine
    words: Sequence[str]
    timeout: float
    tell: Callable[[str], object]
    via: str | None = None

    def measure(self, results: Results, watcher: Watcher) -> None:
        """Boot, measure, and add all that to `results`, on every way out.

        Raises `GuestFailed` if the guest hung or died, `SuiteFailed` if the suite failed in there,
        `HostError` if this machine cannot run one.
        """
        relay = Relay(watcher)
        # First of all: that there is no QEMU is said before minutes go into a kernel.
        version = qemu_version(qemu_command(newest=self.machine.newest_qemu))
        kernel = own_kernel(self.tell)
        with tempfile.TemporaryDirectory(prefix="uspace-bench-") as there:
            folder = Path(there).resolve()
            guest = _guest(self.machine, folder, kernel)
            try:
                result = guest.run(
                    self._command(folder / "results"), timeout=self.timeout,
                    environment=_environment(), directory=folder, sink=relay,
                )  # fmt: skip
            finally:
                relay.close()
                measured = _read(folder / "results.json")
                if measured is not None:
                    relay.host.add_to(measured.suites)
                    add_guest(results, measured, self._facts(version))
        if result.exit_code or measured is None:
            said = "\n".join(relay.said[-LINES_SHOWN:]) or "(nothing)"
            raise SuiteFailed(
                f"{self.name}: failed in the guest, exit code {result.exit_code}:\n{said}"
            )

    def _facts(self, version: str) -> dict[str, str]:
        """Return what the guest cannot see from within."""
        cards = "; ".join(self.machine.devices) or "none"
        return {ROLE: f"guest for {self.name}", "QEMU": f"{version}, TCG; devices: {cards}"}

    def _command(self, base: Path) -> list[str]:
        machine = self.machine
        chosen = {
            "--device": machine.device, "--beside": machine.beside,
            "--via": self.via or machine.via,
        }  # fmt: skip
        addresses = [word for name, value in chosen.items() if value for word in (name, value)]
        if machine.unsafe_dma_without_iommu:
            addresses.append("--unsafe-dma-without-iommu")
        return [
            sys.executable, "-P", "-m", "uspace_drv", "bench", "run", self.name, "--lines",
            "--output", str(base), *addresses, *self.words,
        ]  # fmt: skip


def add_guest(results: Results, measured: Results, facts: dict[str, str]) -> None:
    """Add what a guest measured; its machine, of which we know some `facts`, goes last."""
    before = len(results.machines)
    for machine in measured.machines or [Machine(facts={})]:
        results.machines.append(Machine(facts={**facts, **machine.facts, **facts}))
    for suite in measured.suites:
        suite.machine += before
        results.suites.append(suite)


def _guest(wanted: GuestMachine, folder: Path, kernel: Kernel) -> Guest:
    return Guest(
        devices=wanted.devices,
        drives=wanted.drives,
        iommu=wanted.iommu,
        hugepages=wanted.hugepages,
        modules=wanted.modules,
        words=wanted.words,
        qemu="newest" if wanted.newest_qemu else "installed",
        processors=PROCESSORS,
        shares=[folder],
        shows_processors=True,
        kernel=kernel,
    )


def _environment() -> dict[str, str]:
    """Return what Python needs to find the same modules there, and the stopwatch its processors."""
    folders = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    path = os.pathsep.join(map(os.path.abspath, folders))
    return {PROCESSORS_SHOWN: str(QEMU_THREADS)} | ({"PYTHONPATH": path} if path else {})


def _read(path: Path) -> Results | None:
    """Return what the guest wrote; None if it came to no results or died while it wrote them."""
    try:
        return read_results(path)
    except (HostError, LayoutError):
        return None

"""The kernel's side, judged by fio: its driver, its block layer, and fio's engines on top of it.

fio(1), "JSON+ output"; Linux Documentation/block/stat.rst and queue-sysfs (io_poll, iostats).
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

from uspace_drivers.nvme.benchmark.work import Work
from uspace_drivers.nvme.verbs.bench import Pattern
from uspace_drv import Deadline, DeviceError, HostError
from uspace_drv.bench import Histogram, Sample, Setting, Stopwatch

BLOCK, DEV = Path("/sys/block"), Path("/dev")

WARM = 0.3
"""Seconds of reading that do not count."""

PATIENCE = 60.0
"""Seconds that fio may take to start, or to say what it found: an emulated machine is slow."""

SECTOR = 512
"""Bytes of what stat.rst counts in, whatever the disk's blocks are."""

LOOK = 0.01
"""Seconds between two looks whether it reads."""

ENDED_BY_SIGNAL = 128
"""fio's exit code after Ctrl-C, when it said all that it was to say."""


@dataclass(frozen=True)
class Engine:
    """One of fio's ways to read, with its options."""

    name: str
    engine: str
    options: tuple[str, ...] = ()
    least_depth: int = 1
    most_depth: int = 1 << 16
    polls: bool = False

    def fits(self, work: Work) -> bool:
        """Whether it makes a difference at that depth."""
        return self.least_depth <= work.depth <= self.most_depth


IO_URING = Engine("io_uring", "io_uring")
REGISTERED = ("--fixedbufs", "--registerfiles")
"""The kernel has pinned memory and looked the file up beforehand, as ours has mapped its memory."""

ENGINES = (
    IO_URING,
    # So that fio, too, hands over and takes many at once; the kernel then rings once for all.
    Engine(
        "io_uring, in batches", "io_uring",
        (*REGISTERED, "--iodepth_batch_submit=16", "--iodepth_batch_complete_min=8"),
        least_depth=32,
    ),
    Engine("io_uring, polled", "io_uring", (*REGISTERED, "--hipri"), polls=True),
    Engine("libaio", "libaio"),
    Engine("pread", "psync", most_depth=1),
)  # fmt: skip


def require_fio() -> None:
    """Raise `HostError` where there is no fio."""
    if shutil.which("fio") is None:
        raise HostError("fio is not installed; run: apt-get install fio")


def usable_engines(disk: str, setting: Setting) -> tuple[Engine, ...]:
    """Those that fio and the kernel have here; the setting is told of the others."""
    known, found = _engines_of_fio(), []
    for engine in ENGINES:
        if engine.engine not in known and engine is not IO_URING:
            setting.skip(engine.name, f"this fio has no engine {engine.engine}")
        elif engine.polls and _read(disk, "queue/io_poll") != "1":
            setting.skip(
                engine.name,
                "the kernel's nvme has no queues for polling; give nvme.poll_queues=1 on the "
                "kernel's line, or to modprobe nvme",
            )
        else:
            found.append(engine)
    return tuple(found)


def _engines_of_fio() -> list[str]:
    command = ["fio", "--enghelp"]
    try:
        said = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired as error:
        raise HostError(f"fio --enghelp did not end within {PATIENCE:.0f} s") from error
    return said.stdout.split()


def read_by_kernel(disk: str, engine: Engine, work: Work, seconds: float) -> Sample:
    """Let fio read for so long; raises `HostError` in fio's own words where it fails.

    fio takes a while to start and to end, so what counts is a window in the middle: bytes as the
    kernel counts them for the disk, processor time of the machine from one end to the other. (With
    its ramp_time alone, fio would say when its own figures begin, but nobody would know when to
    look at the machine's.) Its latencies are those of all reads after it was warm.
    """
    with _running(disk, engine, work, seconds) as fio:
        _await_reads(disk, fio)
        time.sleep(WARM)
        with Stopwatch() as watch:
            before, used = _bytes_read(disk), _processor_time(fio)
            time.sleep(seconds)
            reads = (_bytes_read(disk) - before) // work.size
            used = _processor_time(fio) - used
        watch.own += used
        latencies = _finish(fio)
    if not reads:
        raise DeviceError(f"{disk}: answered no read within {seconds:.3g} s; what does dmesg say?")
    return watch.sample(reads, latencies)


@contextmanager
def _running(
    disk: str, engine: Engine, work: Work, seconds: float
) -> Iterator[subprocess.Popen[str]]:
    """Start fio, and see that nothing of it is left."""
    pattern = "randread" if work.pattern is Pattern.RANDOM else "read"
    words = [
        "fio", "--name=bench", f"--filename={DEV / disk}", "--readonly", "--direct=1", "--thread",
        f"--ioengine={engine.engine}", f"--rw={pattern}", f"--bs={work.size}",
        f"--iodepth={work.depth}", f"--numjobs={work.queues}", "--group_reporting",
        "--norandommap", "--randrepeat=0", "--disable_clat=1", "--disable_slat=1",
        "--lat_percentiles=1", "--time_based", f"--runtime={WARM + seconds + PATIENCE:g}",
        f"--ramp_time={round(WARM * 1000)}ms", "--output-format=json+", "--eta=never",
        *engine.options,
    ]  # fmt: skip
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True) as fio:
        try:
            yield fio
        finally:
            if fio.poll() is None:
                fio.kill()


def _await_reads(disk: str, fio: subprocess.Popen[str]) -> None:
    deadline, idle = Deadline(PATIENCE), _bytes_read(disk)
    while _bytes_read(disk) == idle:
        if fio.poll() is not None:
            raise _failure(fio, *fio.communicate())
        if deadline.passed:
            raise HostError(
                f"{disk}: fio has read nothing within {PATIENCE:.0f} s, or the kernel does not "
                f"count it; see {BLOCK / disk}/queue/iostats"
            )
        time.sleep(LOOK)


def _finish(fio: subprocess.Popen[str]) -> Histogram:
    """End it as Ctrl-C does: there is no need to wait until its time is up."""
    if fio.poll() is None:
        fio.send_signal(signal.SIGINT)
    try:
        said, complaint = fio.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise HostError(f"fio did not end within {PATIENCE:.0f} s of Ctrl-C") from error
    if fio.returncode != ENDED_BY_SIGNAL:
        raise _failure(fio, said, complaint)
    return latencies_of(said)


def _failure(fio: subprocess.Popen[str], said: str, complaint: str) -> HostError:
    heard = f"{complaint}\n{said.partition('{')[0]}"
    lines = [line for line in heard.splitlines() if line.strip()]
    words = "; ".join(lines[-3:]) or "it said nothing"
    return HostError(f"fio ended early, with exit code {fio.returncode}: {words}")


class _Latencies(msgspec.Struct):
    bins: dict[int, int]


class _Reads(msgspec.Struct):
    total_ios: int
    lat_ns: _Latencies


class _Job(msgspec.Struct):
    error: int
    read: _Reads


class _Report(msgspec.Struct):
    jobs: list[_Job]


def latencies_of(said: str) -> Histogram:
    """The latencies in fio's JSON+ output; `HostError` where it says none, or an error.

    They are fio's total ones, from before a read is submitted until fio has it back.
    """
    try:
        report = msgspec.json.decode(said[said.find("{") :], type=_Report)
    except msgspec.DecodeError as error:
        raise HostError(f"what fio printed is no JSON+ output as expected: {error}") from error
    found = Histogram()
    for job in report.jobs:
        if job.error:
            raise HostError(f"fio: reads failed with error {job.error}")
        bins = job.read.lat_ns.bins
        found.add(Histogram.of(list(bins), list(bins.values())))
    if not found.count:
        raise HostError("fio counted no reads at all")
    return found


def _processor_time(fio: subprocess.Popen[str]) -> float:
    """Seconds of fio's threads, the kernel's for them included."""
    try:
        used = psutil.Process(fio.pid).cpu_times()
    except psutil.Error:  # it has ended: `_finish` says why
        return 0.0
    return float(used.user + used.system)


def _bytes_read(disk: str) -> int:
    """What a disk has read (stat.rst). The kernel splits and merges reads, so it counts others."""
    return int((_read(disk, "stat") or "0 0 0").split()[2]) * SECTOR


def _read(disk: str, name: str) -> str | None:
    try:
        return (BLOCK / disk / name).read_text().strip()
    except OSError:
        return None

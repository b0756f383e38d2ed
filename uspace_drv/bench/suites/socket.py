"""What a device in another process costs, beside what the same would cost without it.

QEMU docs/interop/vfio-user.rst. Client and server are two processes: on one core, on two, and on
two with busy polling. A server that polls falls asleep soon, so it is in nobody else's way.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from uspace_drv.bench.floor import compile_floor
from uspace_drv.bench.setting import Setting
from uspace_drv.bench.stopwatch import Stopwatch
from uspace_drv.bench.suite import Comparison, Figure, Sample, Suite, Way
from uspace_drv.bench.suites import socket_models
from uspace_drv.bench.suites.echo import bare_round_trips, echo
from uspace_drv.bench.suites.processors import PATIENCE, Place, alarm, on, places
from uspace_drv.bench.suites.served import serve
from uspace_drv.bench.suites.socket_models import SCRATCH, Plain, Shared
from uspace_drv.bench.ways import repeat, statement
from uspace_drv.errors import HostError
from uspace_drv.native import Channel, Window
from uspace_drv.vfiouser.numbers import Command, Flag
from uspace_drv.vfiouser.wire import REGION_ACCESS

BARE, ECHO, SERVED = "32 bytes, bare, in C", "Channel, echo", "register of a served model"
PLAIN = "plain window"
PYTHON = "python, doing nothing"
SPIN = 0.01
"""Seconds that both sides poll before they sleep, in the mode that polls: as `uspace serve`."""

BATCH = 1000
"""Writes between two looks at the clock."""

READ = REGION_ACCESS.pack(SCRATCH, 0, 4)
WRITE = READ + bytes(4)


@dataclass(frozen=True)
class Mode:
    """Where the two processes run, and for how long they poll before they sleep."""

    place: Place
    spin: float = 0.0

    def __str__(self) -> str:
        return f"{self.place}, busy-polled" if self.spin else str(self.place)


def compare(setting: Setting) -> Iterator[Comparison]:
    """Compare messages in each mode, then memory, then the start."""
    with ExitStack() as stack:
        floor = _floor(setting, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        for mode in _modes(setting):
            yield from _messages(setting, mode, floor)
    if not setting.quick:
        yield from _memory(setting)
        yield _start(setting)


def _modes(setting: Setting) -> list[Mode]:
    """The two that say most, or all."""
    apart, *one = places()
    if not apart.apart:
        setting.skip("two cores", "this process may use one processor")
        return [Mode(apart)]
    modes = [Mode(one[0]), Mode(apart, SPIN)]
    return modes if setting.quick else [*modes, Mode(apart)]


def _floor(setting: Setting, folder: Path) -> Path | None:
    try:
        source = Path(__file__).with_name("bare_round_trip.c")
        return compile_floor(source, folder, shared=False)
    except HostError as error:
        setting.skip(BARE, str(error))
        return None


def _messages(setting: Setting, mode: Mode, floor: Path | None) -> Iterator[Comparison]:
    """There and back, and there only."""
    ours, theirs = mode.place.ours, mode.place.theirs
    with ExitStack() as stack:
        channel = stack.enter_context(echo(theirs, mode.spin))
        device = stack.enter_context(serve(Plain, theirs, spin=mode.spin))
        bar = stack.enter_context(closing(device.bar(0)))
        trips = {
            ECHO: on(ours, repeat(setting, lambda: _exchange(channel, mode.spin))),
            SERVED: on(ours, repeat(setting, lambda: bar.read32(SCRATCH))),
        }
        if floor is not None:
            trips = {BARE: bare_round_trips(setting, floor, mode.place, mode.spin), **trips}
        yield _comparison("round trip", mode, trips, Figure.LATENCY)
        writes = {
            ECHO: on(ours, _posted_messages(setting, channel, mode.spin)),
            SERVED: on(ours, _posted_writes(setting, bar)),
        }
        yield _comparison("posted write", mode, writes, Figure.RATE)


def _comparison(operation: str, mode: Mode, ways: dict[str, Way], figure: Figure) -> Comparison:
    return Comparison(
        name=f"{operation}, {mode}", operation=operation, ways=ways, baseline=next(iter(ways)),
        figure=figure, axes={"mode": str(mode)}, chart=f"vfio-user: {operation}",
    )  # fmt: skip


def _exchange(channel: Channel, spin: float) -> None:
    if channel.exchange(1, Command.REGION_READ, READ, (), PATIENCE, spin) is None:
        raise HostError(f"{channel.name}: no answer within {PATIENCE:g} s")


def _posted_messages(setting: Setting, channel: Channel, spin: float) -> Way:
    """Messages of the same size that nobody answers, the last of them seen to have arrived."""

    def post() -> None:
        for _ in range(BATCH):
            channel.send(1, Command.REGION_WRITE, Flag.NO_REPLY, 0, WRITE)

    return _in_batches(setting, post, lambda: _exchange(channel, spin))


def _posted_writes(setting: Setting, bar: Window) -> Way:
    def post() -> None:
        for number in range(BATCH):
            bar.write32(SCRATCH, number)

    def arrive() -> None:
        if (last := bar.read32(SCRATCH)) != BATCH - 1:
            raise HostError(f"{bar.name}: the last of {BATCH} writes did not arrive: reads {last}")

    return _in_batches(setting, post, arrive)


def _in_batches(setting: Setting, post: Callable[[], None], arrive: Callable[[], None]) -> Way:
    def measure() -> Sample:
        batches = 0
        with Stopwatch() as watch:
            end = time.monotonic() + setting.seconds
            while not batches or time.monotonic() < end:
                post()
                batches += 1
            arrive()
        return watch.sample(batches * BATCH)

    return measure


def _memory(setting: Setting) -> Iterator[Comparison]:
    """A register that is memory which both processes share, beside memory of this one alone."""
    with ExitStack() as stack:
        fd = os.memfd_create("bench", os.MFD_CLOEXEC)
        stack.callback(os.close, fd)
        os.ftruncate(fd, mmap.PAGESIZE)
        device = stack.enter_context(serve(Shared, places()[0].theirs))
        windows = {
            PLAIN: (Window.map("bench", fd, 0, mmap.PAGESIZE), 0),
            "mapped BAR": (device.bar(2), 0),
            "mapped page of a BAR": (device.bar(0), mmap.PAGESIZE),
        }
        for window, _ in windows.values():
            stack.callback(window.close)
        yield Comparison(
            name="read of a mapped BAR", operation="read", baseline=PLAIN,
            ways={
                name: statement(setting, f"window.read32({offset})", {"window": window})
                for name, (window, offset) in windows.items()
            },
        )  # fmt: skip


def _start(setting: Setting) -> Comparison:
    """How long until a model is served, and what of that is the interpreter's own."""

    def nothing() -> None:
        subprocess.run([sys.executable, "-c", ""], check=True, timeout=PATIENCE)

    return Comparison(
        name="start of a server", operation="start", baseline=PYTHON,
        ways={
            PYTHON: repeat(setting, nothing),
            "uspace serve, until it serves": repeat(setting, _start_serving),
        },
    )  # fmt: skip


def _start_serving() -> None:
    model = f"{socket_models.__file__}:{Plain.__name__}"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "uspace_drv", "serve", model, f"{folder}/socket"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            try:
                with alarm(PATIENCE, "uspace serve"):
                    if process.stdout is None or not process.stdout.readline():
                        raise HostError("uspace serve ended before it served")
            finally:
                process.kill()


suite = Suite(
    summary="vfio-user: messages and shared memory of a model in another process", compare=compare
)

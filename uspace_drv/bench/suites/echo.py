"""Round trips without a model: a `Channel` to an echo, and 32 bytes in C."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from uspace_drv.bench.histogram import Histogram
from uspace_drv.bench.setting import Setting
from uspace_drv.bench.stopwatch import Stopwatch
from uspace_drv.bench.suite import Sample, Way
from uspace_drv.bench.suites.echo_process import MOST_BYTES
from uspace_drv.bench.suites.processors import PATIENCE, Place
from uspace_drv.errors import HostError
from uspace_drv.native import Channel

PROGRAM = Path(__file__).with_name("echo_process.py")


@contextmanager
def echo(processor: int, spin: float) -> Iterator[Channel]:
    """Start a process that echoes; gives this end of the channel, and ends both."""
    near, far = socket.socketpair()
    with closing(Channel("echo", near.detach(), MOST_BYTES, 0)) as channel:
        with far:
            numbers = map(str, (processor, far.fileno(), spin))
            command = [sys.executable, "-P", str(PROGRAM), *numbers]
            process = subprocess.Popen(command, pass_fds=[far.fileno()], start_new_session=True)
        try:
            yield channel
        finally:
            process.kill()
            process.wait()


def bare_round_trips(setting: Setting, program: Path, place: Place, spin: float) -> Way:
    """The floor: no framing, no Python; the program times itself."""
    numbers = [place.ours, place.theirs, int(spin > 0), int(setting.seconds * 1e9)]
    command = [str(program), *map(str, numbers)]

    def measure() -> Sample:
        with Stopwatch() as watch:
            done = subprocess.run(
                command, capture_output=True, check=False, timeout=setting.seconds + PATIENCE
            )
        if done.returncode:
            raise HostError(f"{program.name}: failed: {done.stderr.decode(errors='replace')}")
        times = np.frombuffer(done.stdout, np.int64)
        watch.seconds = float(times.sum()) / 1e9
        return watch.sample(len(times), Histogram.of(times))

    return measure

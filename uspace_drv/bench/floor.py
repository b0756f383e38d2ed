"""The floor of a comparison: a small C program or library that is built when it is measured.

ISO/IEC 9899:2011. It does no more than what has to be done, so what a suite measures beside it is
what the framework adds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from uspace_drv.bench.setting import Setting
from uspace_drv.bench.stopwatch import Stopwatch
from uspace_drv.bench.suite import Sample, Way
from uspace_drv.bench.ways import loops_for
from uspace_drv.errors import HostError

OPTIONS = ("-std=c11", "-O2", "-Wall", "-Wextra")

PATIENCE = 120.0
"""Seconds for the compiler; an emulated machine needs some."""


def compile_floor(source: Path, folder: Path, *, shared: bool, include: Sequence[str] = ()) -> Path:
    """Build a C file into `folder`: a library for ctypes if `shared`, else a program.

    `include` are folders of headers. Returns where it is. Raises `HostError` where there is no
    compiler, and, with what the compiler said, where it refuses the file.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise HostError("no cc; run: apt-get install gcc")
    target = folder / (f"{source.stem}.so" if shared else source.stem)
    options = [*OPTIONS, *(f"-I{each}" for each in include)]
    options += ["-shared", "-fPIC"] if shared else []
    command = [compiler, *options, str(source), "-o", str(target)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired as error:
        raise HostError(f"{source}: cc did not end within {PATIENCE:.0f} s") from error
    if done.returncode:
        raise HostError(f"{source}: cc refuses it (exit code {done.returncode}):\n{done.stderr}")
    return target


def timed_loop(setting: Setting, what: str, run: Callable[[int], int]) -> Way:
    """Call a C function that does so many loops and times them itself.

    It returns their nanoseconds, or a negative errno, which is raised as a `HostError`.
    """
    loops = 0

    def seconds_of(count: int) -> float:
        taken = run(count)
        if taken < 0:
            cause = OSError(-taken, os.strerror(-taken))
            raise HostError(f"{what}: {cause.strerror}", cause=cause)
        return taken / 1e9

    def measure() -> Sample:
        nonlocal loops
        loops = loops or loops_for(setting.seconds, seconds_of)
        with Stopwatch() as watch:
            seconds = seconds_of(loops)
        watch.seconds = seconds
        return watch.sample(loops)

    return measure

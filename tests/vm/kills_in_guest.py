"""kill -9 at random moments of bind, attach, DMA and restore, on a real kernel.

Runs in the guest of test_faults_in_guest.py alone, on its edu. Moments are drawn in two ways: by
time, when the kernel may be at any place, and by counting the calls that make system calls, so that
each of those is as likely as another one, however long it takes. USPACE_SEED repeats a run.
"""

from __future__ import annotations

import ast
import mmap
import os
import random
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle, islice, pairwise
from pathlib import Path
from types import FrameType
from typing import NoReturn

import numpy as np
import pytest

from tests.vm.binding_in_guest import NOBODY, state
from uspace_drivers.edu import Edu
from uspace_drv import attach
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.binding import UIO, VFIO, Terms, bind, restore, restore_all
from uspace_drv.pci.sysfs import PciBus

pytestmark = [
    pytest.mark.skipif(socket.gethostname() != "guest", reason="changes the machine it runs on"),
    pytest.mark.timeout(600),
]

EDU = PciAddress(0, 0, 4, 0)
STAGES = ("bind", "attach", "use", "leave", "restore")
VFIO_WAYS = (
    ["vfio-cdev", "vfio-type1", "vfio-compat"] if Path("/dev/iommu").exists() else ["vfio-type1"]
)
WAYS = [*VFIO_WAYS, "uio"]
SYSTEM = {"posix", "fcntl", "_io", "mmap", "select", "_thread", "uspace_drv.native._native"}
"""Modules whose functions make system calls."""

KILLS_BY_TIME, KILLS_BY_COUNT, KILLS_OF_NOBODY = 40, 60, 24
MAPPED = 16 << 20
SLACK = 64 << 20
"""Bytes: far more than a machine's memory moves by itself, far less than the killed had mapped."""

Tell = Callable[[str], None]
Work = Callable[[Tell], None]


@pytest.fixture
def generator() -> random.Random:
    seed = int(os.environ.get("USPACE_SEED", "20261123"))
    print(f"\nUSPACE_SEED={seed}")
    return random.Random(seed)


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    before = whole_state()
    yield
    put_all_back()
    assert whole_state() == before


def put_all_back() -> None:
    failures = [each for each in restore_all() if isinstance(each, Exception)]
    assert failures == []


def whole_state() -> dict[str, object]:
    """Drivers, overrides, bus masters, nodes, journal, rules; and locks."""
    return state() | {"locks": Path("/proc/locks").read_text(encoding="ascii").count("FLOCK")}


def available_memory() -> int:
    """Bytes that processes could have: what stays pinned for a dead one is missing in it."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))


def a_life(via: str) -> Work:
    """All that a device goes through, as root."""

    def live(tell: Tell) -> None:
        tell("bind")
        bind(EDU, UIO if via == "uio" else VFIO, Terms(user="nobody"))
        drive(via, tell)
        tell("restore")
        restore(EDU)

    return live


def drive(via: str, tell: Tell) -> None:
    tell("attach")
    attached = attach(str(EDU), Edu, via=via)
    edu = attached.driver
    tell("use")
    assert edu.factorial(5, timeout=10.0) == 120
    if via != "uio":
        use_memory(edu)
    tell("leave")
    attached.close()


def use_memory(edu: Edu) -> None:
    dma = edu.device.dma
    large = dma.alloc(np.uint8, MAPPED)
    large.array[:: mmap.PAGESIZE] = 1
    small = [dma.alloc(np.uint8, mmap.PAGESIZE) for _ in range(8)]
    array = np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), np.uint8)
    for buffer in small[::2]:
        buffer.close()
        dma.map(array).close()
    edu.store(b"\x5a" * 64, timeout=10.0)
    assert edu.load(64, timeout=10.0) == b"\x5a" * 64


def start(work: Work, prepare: Callable[[], object]) -> tuple[int, int]:
    """A child that does the work again and again: its number, and a pipe that tells each stage."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _live_on(work, prepare, writing)
    os.close(writing)
    return child, reading


def _live_on(work: Work, prepare: Callable[[], object], writing: int) -> NoReturn:
    try:
        prepare()
        while True:
            work(lambda stage: _tell(writing, stage))
    except BaseException:  # noqa: BLE001 - the child may not go on with pytest
        traceback.print_exc()
    finally:
        os._exit(1)


def _tell(writing: int, stage: str) -> None:
    os.write(writing, bytes([STAGES.index(stage)]))


def told(reading: int) -> Iterator[str]:
    """The stages, until the child is dead."""
    while number := os.read(reading, 1):
        yield STAGES[number[0]]


def bury(child: int, reading: int) -> None:
    """Whoever ended by itself has failed, and has said how."""
    os.close(reading)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def nothing() -> None:
    """Prepare nothing."""


def measured(work: Work, prepare: Callable[[], object] = nothing) -> dict[str, float]:
    """Seconds that each stage takes, the second time."""
    child, reading = start(work, prepare)
    moments: list[tuple[str, float]] = []
    for stage in told(reading):
        moments.append((stage, time.monotonic()))
        if [name for name, _ in moments].count(moments[0][0]) == 3:
            break
    os.kill(child, signal.SIGKILL)
    bury(child, reading)
    return {name: after - at for (name, at), (_, after) in pairwise(moments)}  # the last one stands


def kill_by_time(
    work: Work, stage: str, delay: float, prepare: Callable[[], object] = nothing
) -> str:
    """Kill it so long after it said that it begins the stage; the stage that it was in."""
    child, reading = start(work, prepare)
    stages = told(reading)
    assert stage in stages, "it ended by itself"
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    last = list(stages)[-1:] or [stage]
    bury(child, reading)
    return last[0]


def count_calls(limit: int) -> Callable[[], int]:
    """From now on count system calls, in all threads, and die at the limit, 0 for never."""
    calls = 0

    def count(_: FrameType, event: str, called: object) -> None:
        nonlocal calls
        if event in {"c_call", "c_return"} and module_of(called) in SYSTEM:
            calls += 1  # right before it, and right after it
            if calls == limit:
                os.kill(os.getpid(), signal.SIGKILL)

    threading.setprofile(count)
    sys.setprofile(count)
    return lambda: calls


def module_of(called: object) -> str:
    """The module of a function, or of the type whose method it is."""
    module: str | None = getattr(called, "__module__", None)
    return module or type(getattr(called, "__self__", None)).__module__


def calls_of(work: Work) -> dict[str, range]:
    """The numbers of the system calls that each stage of a life makes, twice each: see `count`."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        moments: list[int] = []
        calls = count_calls(0)
        try:
            work(lambda stage: moments.append(calls()))
            os.write(writing, repr([*moments, calls()]).encode())
        finally:
            os._exit(0)
    os.close(writing)
    said = os.read(reading, 1000).decode()
    os.close(reading)
    os.waitpid(child, 0)
    numbers: list[int] = ast.literal_eval(said)
    return {
        stage: range(first + 1, last + 1)
        for stage, (first, last) in zip(STAGES, pairwise(numbers), strict=True)
    }


def kill_by_count(work: Work, number: int) -> str:
    """Let it die at that call; the stage that it was in."""
    child, reading = start(work, lambda: count_calls(number))
    last = list(told(reading))[-1:] or ["before"]
    bury(child, reading)
    return last[0]


def test_by_time(generator: random.Random) -> None:
    before, reached, drivers = whole_state(), Counter[str](), Counter[str | None]()
    lengths = {via: measured(a_life(via)) for via in WAYS}
    put_all_back()
    memory = available_memory()
    rounds = ((via, stage) for stage in cycle(STAGES) for via in WAYS)
    for number, (via, stage) in enumerate(islice(rounds, KILLS_BY_TIME)):
        delay = generator.uniform(0.0, 1.1 * lengths[via][stage])
        reached[kill_by_time(a_life(via), stage, delay)] += 1
        drivers[PciBus().function(EDU).driver] += 1
        put_all_back()
        assert whole_state() == before, f"round {number}: {via} {stage} {delay:.4f} s"
    print("killed by time in", dict(reached), "bound to", dict(drivers))
    assert set(reached) == set(STAGES)
    assert available_memory() > memory - SLACK


def test_by_count(generator: random.Random) -> None:
    before, reached, drivers = whole_state(), Counter[str](), Counter[str | None]()
    calls = {via: calls_of(a_life(via)) for via in WAYS}
    print({via: {stage: len(each) for stage, each in calls[via].items()} for via in WAYS})
    memory = available_memory()
    rounds = ((via, stage) for stage in cycle(STAGES) for via in WAYS)
    for number, (via, stage) in enumerate(islice(rounds, KILLS_BY_COUNT)):
        call = generator.choice(calls[via][stage])
        reached[kill_by_count(a_life(via), call)] += 1
        drivers[PciBus().function(EDU).driver] += 1
        put_all_back()
        assert whole_state() == before, f"round {number}: {via} call {call} ({stage})"
    print("killed by count in", dict(reached), "bound to", dict(drivers))
    assert set(reached) >= set(STAGES)
    assert available_memory() > memory - SLACK


def become_nobody() -> None:
    """With room to lock what one life takes, and half of that more: a leak is seen at once."""
    room = MAPPED * 3 // 2
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (room, room))
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


@pytest.mark.parametrize("via", VFIO_WAYS)
def test_the_next_one_has_the_device_at_once(via: str, generator: random.Random) -> None:
    """Bound once; who is killed leaves no lock, no mapping and no debt of the user behind."""
    bind(EDU, VFIO, Terms(user="nobody"))
    stages = STAGES[1:4]
    lengths = measured(lambda tell: drive(via, tell), become_nobody)
    reached = Counter[str]()
    for stage in islice(cycle(stages), KILLS_OF_NOBODY // len(VFIO_WAYS)):
        delay = generator.uniform(0.0, 1.1 * lengths[stage])
        reached[kill_by_time(lambda tell: drive(via, tell), stage, delay, become_nobody)] += 1
        locks = Path("/proc/locks").read_text(encoding="ascii")
        assert "FLOCK" not in locks
    print("killed in", dict(reached))
    with attach(str(EDU), Edu, via=via) as edu:
        edu.self_test()

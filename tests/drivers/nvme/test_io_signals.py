"""A signal's handler that raises, as Ctrl-C does, in the middle of a command.

The caller gives the memory back when it hears of that, so by then the command has to have ended,
and the queue takes the next one.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from tests.drivers.nvme.data_path_host import until
from uspace_drivers.nvme import Nvme, NvmeModel
from uspace_drivers.nvme.control import life_cycle
from uspace_drivers.nvme.engine.queue import QueuePair
from uspace_drivers.nvme.model.faults import Action, Fault
from uspace_drivers.nvme.spec.commands import Opcode
from uspace_drivers.nvme.storage.namespace import Namespace
from uspace_drv import attach

LATENCY = 0.1
"""Seconds of a command, where a test holds the device's clock until the signals have come."""

SOON = 0.02
PATIENCE = 10.0
RINGS = ["python", "native"]


class Stop(Exception):
    """What the handler raises."""


class Alarm:
    """Makes the main thread raise `Stop`, by a signal of its own: the test's limit has SIGALRM."""

    def __init__(self) -> None:
        self._quiet = threading.Event()
        self._heard = threading.Event()
        self._thread: threading.Thread | None = None

    def set(self, seconds: float) -> None:
        """Do so in that many seconds."""
        self._start(lambda: self._ring_in(seconds))

    def set_for(self, model: NvmeModel, times: int = 1, commands: int = 1) -> None:
        """Do so while that many commands are in the model, whose clock is held; then let them end.

        However slow the machine is, the signal comes before the answer and after the command.
        """
        model.clock.freeze()
        self._start(lambda: self._ring_in_flight(model, times, commands))

    def end(self) -> None:
        """Raise nothing more."""
        self._quiet.set()
        if self._thread is not None:
            self._thread.join()

    def stop(self, _: int, frame: FrameType | None) -> None:
        """Raise it; a little later where it would leave the coverage tool's lock taken for good."""
        if frame is not None and "coverage" in Path(frame.f_code.co_filename).parts:
            threading.Timer(0.001, ring).start()
            return
        self._heard.set()
        if not self._quiet.is_set():
            raise Stop

    def _start(self, ring: Callable[[], object]) -> None:
        self.end()
        self._quiet.clear()
        self._thread = threading.Thread(target=ring)
        try:
            self._thread.start()
        except Stop:  # it rang before `start` had returned: a busy machine
            self._thread.join()
            raise

    def _ring_in(self, seconds: float) -> None:
        if not self._quiet.wait(seconds):
            ring()

    def _ring_in_flight(self, model: NvmeModel, times: int, commands: int) -> None:
        until(lambda: in_flight(model) >= commands, "commands in the model")
        for _ in range(times):
            if self._quiet.wait(SOON):  # until then it has rung, and waits
                break
            self._heard.clear()
            ring()
            assert self._heard.wait(PATIENCE)
        model.clock.advance(LATENCY)


def ring() -> None:
    """Signal the main thread."""
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGUSR1)


def in_flight(model: NvmeModel) -> int:
    """Commands that the model has and has not answered, but for those of the admin queue."""
    with model.quiesce():
        return sum(queue > 0 for queue, _ in model.execution._pending)


@pytest.fixture
def alarm() -> Iterator[Alarm]:
    made = Alarm()
    before = signal.signal(signal.SIGUSR1, made.stop)
    yield made
    made.end()
    signal.signal(signal.SIGUSR1, before)


def a_model(rings: str, latency: float = LATENCY) -> NvmeModel:
    return NvmeModel("nvme", rings=rings, size="4M", latency=latency)


def read(namespace: Namespace, _: QueuePair, memory: Any) -> None:
    namespace.read(0, 8, memory.array)


def read_copied(namespace: Namespace, _: QueuePair, __: Any) -> None:
    namespace.read(0, 8)


def write(namespace: Namespace, _: QueuePair, memory: Any) -> None:
    namespace.write(0, memory.array)


def write_copied(namespace: Namespace, _: QueuePair, __: Any) -> None:
    namespace.write(0, bytes(4096))


def flush(namespace: Namespace, _: QueuePair, __: Any) -> None:
    namespace.flush()


def transfer(namespace: Namespace, pair: QueuePair, memory: Any) -> None:
    pair.transfer(Opcode.READ, 0, namespace.id, 0, 8, memory.array)


def run(namespace: Namespace, pair: QueuePair, memory: Any) -> None:
    pair.run(namespace.requests(Opcode.READ, [0, 1, 2], 1, memory.iova))


WAYS = [read, read_copied, write, write_copied, flush, transfer, run]


@pytest.mark.parametrize("rings", RINGS)
@pytest.mark.parametrize("spin", [1.0, 0.0], ids=["in the engine", "asleep"])
@pytest.mark.parametrize("times", [1, 3], ids=["once", "again and again"])
@pytest.mark.parametrize("way", WAYS, ids=lambda each: each.__name__)
def test_nothing_is_in_flight_afterwards(
    rings: str, spin: float, times: int, way: Callable[..., None], alarm: Alarm
) -> None:
    model = a_model(rings)
    with attach(model, Nvme) as nvme:
        pair = nvme.queue(4, polled=True)
        pair.spin = spin
        namespace = nvme.namespaces[1].on(pair)
        with nvme.memory.alloc("u1", 4096) as memory:
            generation = nvme.controller.generation
            alarm.set_for(model, times)
            with pytest.raises(Stop):
                until_quiet(alarm, lambda: way(namespace, pair, memory))
            assert not pair.in_flight
            assert nvme.controller.generation == generation or times > 1
        model.execution.latency = 0.0
        namespace.write(3, bytes(512))
        assert not namespace.read(3, 1).any()
    assert not [each for each in model.complaints if "reset" not in each]


@pytest.mark.parametrize("rings", RINGS)
def test_a_command_that_never_ends_is_ended(rings: str, alarm: Alarm) -> None:
    """The memory is safe even so, and Ctrl-C again does not wait for the time-out."""
    model = a_model(rings, 0.0)
    with attach(model, Nvme) as nvme:
        pair = nvme.queue(4, polled=True)
        pair.timeout = 30.0
        model.faults.add(Fault(Action.DROP, opcode=Opcode.READ))
        namespace = nvme.namespaces[1].on(pair)
        alarm.set_for(model, times=2)
        with pytest.raises(Stop):
            until_quiet(alarm, lambda: namespace.read(0, 1))
        assert not pair.in_flight
        assert not namespace.read(0, 1).any()


@pytest.mark.parametrize("rings", RINGS)
def test_other_commands_of_the_queue_are_answered(rings: str, alarm: Alarm) -> None:
    model = a_model(rings)
    with attach(model, Nvme) as nvme:
        pair = nvme.queue(4, polled=True)
        namespace = nvme.namespaces[1].on(pair)
        with nvme.memory.alloc("u1", 4096) as memory:
            alarm.set_for(model, commands=2)
            pair.submit(namespace.requests(Opcode.READ, [5], 1, memory.iova))
            with pytest.raises(Stop):
                namespace.read(0, 1, memory.array[512:1024])
            assert pair.poll(1, 1.0)["tag"].tolist() == [0]


def test_a_queue_that_threads_share(alarm: Alarm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is handed the answer of the command that was given up.

    With rings in C only, here and below: those in Python run in the thread that rings, and what the
    signal cuts off may be the device.
    """
    monkeypatch.setattr(life_cycle, "MOST_QUEUES", 1)
    model = a_model("native", 0.002)
    with attach(model, Nvme) as nvme, ThreadPoolExecutor(1) as pool:
        namespace, over = nvme.namespaces[1], threading.Event()
        blocks = np.arange(8, dtype=np.uint8).repeat(512)
        namespace.write(0, blocks)

        def work() -> int:
            count = 0
            while not over.is_set() or not count:
                assert (namespace.read(count % 8, 1) == count % 8).all()
                count += 1
            return count

        other = pool.submit(work)
        try:
            for number in range(20):
                assert storm(lambda: namespace.read(3, 1), alarm, 0.001 + 0.0007 * number)
        finally:
            over.set()
        assert other.result(10.0)
        assert not nvme.queues.here().in_flight
    assert not model.complaints


def test_at_any_moment(alarm: Alarm) -> None:
    with attach(a_model("native", 0.0007), Nvme) as nvme:
        pair = nvme.queue(4, polled=True)
        namespace = nvme.namespaces[1].on(pair)
        chance = np.random.default_rng(1)
        for seconds in chance.uniform(0.0003, 0.006, 100):
            assert storm(lambda: namespace.read(0, 1), alarm, float(seconds))
            assert not pair.in_flight


def until_quiet(alarm: Alarm, work: Callable[[], object]) -> None:
    """Work, and hear no signal afterwards: the last of them may come when the work is over."""
    try:
        work()
    finally:
        alarm.end()


def storm(work: Callable[[], object], alarm: Alarm, seconds: float) -> bool:
    """Work until the signal comes."""
    alarm.end()
    try:
        alarm.set(seconds)
        while True:
            work()
    except Stop:
        return True

"""Trouble that comes at a bad moment: under locks, half-way, without end, or from a signal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from uspace_drivers.nvme import Nvme, NvmeModel
from uspace_drivers.nvme.control.admin import AdminQueue
from uspace_drivers.nvme.control.events import MOST, PERIOD, Events
from uspace_drivers.nvme.engine.queue import QueuePair
from uspace_drivers.nvme.model import Action, Fault
from uspace_drivers.nvme.spec.command_error import CommandError
from uspace_drivers.nvme.spec.commands import AdminOpcode, Opcode
from uspace_drivers.nvme.spec.registers import Configuration, NvmeRegisters, Shutdown
from uspace_drivers.nvme.spec.status import Status, code_of
from uspace_drv import DeviceError, DeviceTimeout, HostError, attach
from uspace_drv.backends.virtual import VirtualDevice

SHORT = 0.5
"""Seconds that an admin command gets which is not going to be answered."""


class Noting(NvmeModel):
    """Remembers how many I/O queues were left when it was told to shut down."""

    left: int | None = None

    def write_bar(self, bar: int, offset: int, width: int, value: int) -> None:
        is_settings = (bar, offset) == (0, NvmeRegisters.cc.offset)
        if is_settings and Configuration(value).shn is Shutdown.NORMAL:
            self.left = len(self.queues._completions) + len(self.queues._submissions)
        super().write_bar(bar, offset, width, value)


class WithoutInterrupts(VirtualDevice):
    irq_counts = {}


@pytest.fixture
def model() -> Noting:
    return Noting("nvme", size="4M", rings="python")


@pytest.fixture
def nvme(model: Noting) -> Iterator[Nvme]:
    with attach(model, Nvme) as driver:
        yield driver


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No admin command is waited for any longer than SHORT."""
    call = AdminQueue.call
    monkeypatch.setattr(
        AdminQueue,
        "call",
        lambda self, asked, data, timeout: call(self, asked, data, min(timeout, SHORT)),
    )


def start(work: Callable[[], Any], ends: list[Any]) -> threading.Thread:
    def run() -> None:
        try:
            ends.append(work())
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            ends.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.usefixtures("hasty")
def test_queue_that_cannot_be_opened_while_another_thread_scans(nvme: Nvme, model: Noting) -> None:
    """The reset that follows is told of when no lock is held: else both wait for ever."""
    fault = model.faults.add(Fault(Action.DROP, opcode=AdminOpcode.CREATE_COMPLETION_QUEUE))
    told: list[bool] = []
    nvme.controller.on_change(lambda: told.append(nvme.controller.changes.may_tell))
    opened: list[Any] = []
    scanned: list[Any] = []
    opening = start(nvme.queue, opened)
    wait_for(lambda: fault.hits)
    scanning = start(nvme.rescan, scanned)
    opening.join(10)
    scanning.join(10)
    assert [type(each) for each in opened + scanned] == [DeviceTimeout, type(None)]
    assert told == [True]
    assert nvme.controller.generation == 2
    nvme.queue()
    nvme.self_test()


@pytest.mark.usefixtures("hasty")
def test_scan_that_fails_after_a_lock_was_left_is_logged(
    nvme: Nvme, model: Noting, caplog: pytest.LogCaptureFixture
) -> None:
    model.faults.add(Fault(Action.DROP, opcode=AdminOpcode.CREATE_COMPLETION_QUEUE))
    model.faults.add(Fault(Action.DROP, opcode=AdminOpcode.IDENTIFY, after=1, count=0))
    with pytest.raises(DeviceTimeout, match="create completion queue"):
        nvme.queue()
    assert "identify (0x06) was not completed" in caplog.text
    model.faults.clear()
    nvme.self_test()
    assert nvme.controller.generation == 2  # what follows a reset is no reason for another


@pytest.mark.parametrize(
    "opcode", [AdminOpcode.CREATE_COMPLETION_QUEUE, AdminOpcode.CREATE_SUBMISSION_QUEUE]
)
def test_queue_that_is_refused_leaves_nothing(
    nvme: Nvme, model: Noting, opcode: AdminOpcode
) -> None:
    before = set(model.queues._completions)
    model.faults.add(Fault(Action.STATUS, opcode=opcode, status=Status.INVALID_FIELD))
    with pytest.raises(CommandError, match="invalid field"):
        nvme.queue()
    assert model.queues._completions == before
    nvme.queue()
    assert nvme.controller.generation == 1


@pytest.mark.parametrize(
    "opcode", [AdminOpcode.DELETE_COMPLETION_QUEUE, AdminOpcode.DELETE_SUBMISSION_QUEUE]
)
def test_queue_that_is_not_deleted_is_taken_away_by_a_reset(
    nvme: Nvme, model: Noting, opcode: AdminOpcode
) -> None:
    pair = nvme.queue()
    model.faults.add(Fault(Action.STATUS, opcode=opcode, status=Status.INVALID_FIELD))
    nvme.queues.close(pair)
    assert pair.number not in {*model.queues._completions, *model.queues._submissions}
    assert nvme.controller.generation == 2
    assert nvme.queue().number == pair.number


def test_signal_while_a_queue_is_opened(
    nvme: Nvme, model: Noting, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(model.queues._completions)
    create = nvme.controller.create_submission_queue

    def interrupted(*what: Any) -> None:
        create(*what)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(nvme.controller, "create_submission_queue", interrupted)
        with pytest.raises(KeyboardInterrupt):
            nvme.queue()
    assert model.queues._completions == before
    nvme.queue()


def test_memory_that_is_not_there_costs_no_vector(
    nvme: Nvme, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise HostError("no memory")

    free = list(nvme.queues._vectors._free)
    with monkeypatch.context() as patch:
        patch.setattr("uspace_drivers.nvme.storage.queues.QueuePair", fail)
        with pytest.raises(HostError):
            nvme.queue()
    with monkeypatch.context() as patch:
        patch.setattr(nvme.device, "irq", fail)
        with pytest.raises(HostError):
            nvme.queue()
    assert nvme.queues._vectors._free == free


class Storm:
    """Completes each event request as soon as it is sent, and answers nothing else."""

    name = "nvme"
    ends_after = 10_000

    def __init__(self) -> None:
        self.events = Events(self, self.post)  # type: ignore[arg-type]
        self.sent = 0

    def post(self, *_: Any) -> None:
        self.sent += 1
        if self.sent < self.ends_after:
            self.events.take(0, 0x0002_0002)

    def get_log(self, *_: Any) -> None:
        raise DeviceTimeout("no answer")


def test_events_without_end() -> None:
    storm = Storm()
    storm.events._to_arm = 1
    storm.events.serve()
    assert storm.sent == MOST
    is_pending = storm.events.pending
    assert not is_pending  # nobody need come back at once
    storm.events._renewal -= PERIOD
    assert storm.events.pending
    storm.events.serve()
    assert storm.sent == 2 * MOST


@pytest.mark.usefixtures("hasty")
def test_trouble_with_an_event_is_not_the_trouble_of_a_command(model: Noting) -> None:
    with attach(WithoutInterrupts(model), Nvme) as nvme:
        model.faults.add(Fault(Action.DROP, opcode=AdminOpcode.GET_LOG_PAGE))
        model.warn(spare=True)
        nvme.controller.identify_controller()
        assert nvme.controller.generation == 2
        assert len(nvme.controller.events.recent) == 1


def test_who_waits_for_room_is_told_when_the_controller_is_given_up(nvme: Nvme) -> None:
    controller = nvme.controller
    ends: list[Any] = []
    controller._queue.reset()  # as in the middle of a reset: nothing is sent
    thread = start(lambda: controller.format(1, 0, timeout=600.0), ends)
    thread.join(0.05)
    assert thread.is_alive()
    controller._give_up(DeviceError("a test wants it"))
    thread.join(5)
    assert isinstance(ends[0], DeviceError)
    assert "a test wants it" in str(ends[0])


@pytest.mark.usefixtures("hasty")
def test_signal_in_the_middle_of_a_reset(
    nvme: Nvme, model: Noting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reset is done to its end, and the next trouble leads to one as well."""
    raise_once(nvme, monkeypatch, times=1)
    with pytest.raises(KeyboardInterrupt):
        nvme.controller.reset()
    nvme.self_test()
    model.faults.add(Fault(Action.DROP, opcode=AdminOpcode.GET_LOG_PAGE))
    with pytest.raises(DeviceTimeout):
        nvme.controller.smart_log()
    assert nvme.controller.generation == 3
    nvme.self_test()


def test_second_signal_in_the_middle_of_a_reset(
    nvme: Nvme, model: Noting, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_once(nvme, monkeypatch, times=2)
    with pytest.raises(KeyboardInterrupt):
        nvme.controller.reset()
    with pytest.raises(DeviceError, match="did not come back from a reset: KeyboardInterrupt"):
        nvme.controller.smart_log()
    assert not model.config.is_bus_master


def raise_once(nvme: Nvme, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    enable, left = nvme.controller._handshake.enable, [KeyboardInterrupt] * times

    def interrupted(*what: int) -> None:
        if left:
            raise left.pop()
        enable(*what)

    monkeypatch.setattr(nvme.controller._handshake, "enable", interrupted)


def test_io_has_ended_and_queues_are_gone_when_it_is_shut_down(nvme: Nvme, model: Noting) -> None:
    model.faults.add(Fault(Action.DELAY, opcode=Opcode.READ, seconds=30.0))
    pair = nvme.queue(4)
    with nvme.memory.alloc("u1", 512) as memory:
        pair.submit(nvme.namespaces[1].requests(Opcode.READ, [0], 1, memory.iova))
        nvme.suspend()
        assert model.left == 0
        assert pair.in_flight == 0
        assert code_of(int(pair.poll()["status"][0])) == Status.ABORTED_BY_HOST
    assert not model.complaints
    nvme.device.set_bus_master(True)
    nvme.resume()
    nvme.self_test()


def test_io_of_other_threads_while_it_is_shut_down(nvme: Nvme, model: Noting) -> None:
    """Each gets an error, and the controller hears of no queue that it has not."""
    done = [0] * 3

    def work(index: int) -> None:
        while True:
            nvme.namespaces[1].read(index, 1)
            done[index] += 1

    ends: list[Any] = []
    threads = [start(lambda index=index: work(index), ends) for index in range(3)]  # type: ignore[misc]
    wait_for(lambda: all(done))
    nvme.suspend()
    for thread in threads:
        thread.join(5)
    assert len(ends) == 3
    assert not model.complaints


def test_queue_that_hangs_is_shut_down_all_the_same(model: Noting) -> None:
    with attach(model, Nvme) as nvme:
        nvme.namespaces[1].read(0, 1)
        model.faults.add(Fault(Action.DROP, opcode=AdminOpcode.DELETE_SUBMISSION_QUEUE))
        began = time.monotonic()
    assert time.monotonic() - began < 3
    assert model.left == 2
    assert model.health.unsafe_shutdowns == 0


def in_flight(nvme: Nvme, pair: QueuePair, iova: int) -> None:
    lbas = np.arange(pair.depth, dtype=np.uint64)
    pair.submit(nvme.namespaces[1].requests(Opcode.READ, lbas, 1, iova))


def test_aborts_have_one_deadline(nvme: Nvme, model: Noting) -> None:
    model.faults.add(Fault(Action.DROP, opcode=Opcode.READ, count=0))
    model.faults.add(Fault(Action.DELAY, opcode=AdminOpcode.ABORT, seconds=0.3, count=0))
    pair = nvme.queue(16)
    with nvme.memory.alloc("u1", 512) as memory:
        in_flight(nvme, pair, memory.iova)
        began = time.monotonic()
        nvme.controller.abort_all(pair)
        assert time.monotonic() - began < 3.0  # one by one they take 4.8 s
        pair.drain()


def test_one_abort_at_a_time(nvme: Nvme, model: Noting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the controller's limit is, that is within it."""
    model.faults.add(Fault(Action.DROP, opcode=Opcode.READ, count=0))
    pairs = [nvme.queue(8) for _ in range(3)]
    abort, now, most = nvme.controller.abort, [0], [0]

    def counted(*what: Any) -> bool:
        now[0] += 1
        most[0] = max(most[0], now[0])
        try:
            return abort(*what)
        finally:
            now[0] -= 1

    monkeypatch.setattr(nvme.controller, "abort", counted)
    ends: list[Any] = []
    with nvme.memory.alloc("u1", 512) as memory:
        for pair in pairs:
            in_flight(nvme, pair, memory.iova)
            assert len(pair.ids_in_flight()) == pair.depth
        threads = [start(lambda pair=pair: nvme.controller.abort_all(pair), ends) for pair in pairs]  # type: ignore[misc]
        for thread in threads:
            thread.join(10)
        assert ends == [None] * 3
        assert most == [1]
        for pair in pairs:
            pair.drain()
            assert not pair.ids_in_flight()

"""A controller that misbehaves on its admin queue: an error in words, a reset, and on it goes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from uspace_drivers.nvme import Nvme, NvmeModel
from uspace_drivers.nvme.control.admin import AdminQueue
from uspace_drivers.nvme.control.admin_commands import command
from uspace_drivers.nvme.model import Action, Fault
from uspace_drivers.nvme.spec.command_error import CommandError
from uspace_drivers.nvme.spec.commands import AdminOpcode, LogPage, Opcode
from uspace_drivers.nvme.spec.registers import NvmeRegisters
from uspace_drivers.nvme.spec.status import Status, code_of
from uspace_drv import (
    Deadline,
    DeviceError,
    DeviceGone,
    DeviceTimeout,
    IrqKind,
    UspaceError,
    attach,
)

SHORT = 0.15
"""Seconds that a command gets which is not going to be answered."""


@pytest.fixture
def model() -> NvmeModel:
    return NvmeModel("nvme", size="4M", rings="python", namespaces=2)


@pytest.fixture
def nvme(model: NvmeModel) -> Iterator[Nvme]:
    with attach(model, Nvme) as driver:
        yield driver


def ask(nvme: Nvme, timeout: float = SHORT) -> int:
    """Read the SMART log, which takes 512 bytes."""
    asked = command(AdminOpcode.GET_LOG_PAGE, 0xFFFF_FFFF, cdw10=127 << 16 | LogPage.SMART)
    return nvme.controller.admin(asked, np.zeros(512, "u1"), timeout)


def on_admin(action: Action, **more: int) -> Fault:
    return Fault(action, opcode=AdminOpcode.GET_LOG_PAGE, queue=0, **more)


def test_command_that_is_never_completed(nvme: Nvme, model: NvmeModel) -> None:
    model.faults.add(on_admin(Action.DROP))
    with pytest.raises(DeviceTimeout, match=r"get log page \(0x02\) was not completed") as caught:
        ask(nvme)
    assert "the controller was reset" in "".join(caught.value.__notes__)
    assert nvme.controller.generation == 2
    ask(nvme)
    nvme.self_test()


def test_late_answer_of_a_lost_command_harms_nobody(nvme: Nvme, model: NvmeModel) -> None:
    model.faults.add(Fault(Action.DELAY, opcode=AdminOpcode.GET_LOG_PAGE, seconds=0.3))
    with pytest.raises(DeviceTimeout):
        ask(nvme)
    time.sleep(0.3)
    ask(nvme)


@pytest.mark.parametrize(
    "fault",
    [
        on_admin(Action.UNSENT),
        on_admin(Action.TWICE),
        on_admin(Action.WRONG_ID),
        on_admin(Action.WRONG_QUEUE),
        on_admin(Action.WRONG_HEAD),
        on_admin(Action.WRONG_PHASE),
        on_admin(Action.FATAL),
    ],
    ids=lambda fault: fault.action.name.lower(),
)
@pytest.mark.parametrize("kind", [IrqKind.INTX, IrqKind.MSIX])
def test_impossible_answers(model: NvmeModel, kind: IrqKind, fault: Fault) -> None:
    """The command may fail; the next one does not, or the one after that."""
    with attach(model, Nvme, irq_kind=kind) as nvme:
        model.faults.add(Fault(**{**vars(fault), "hits": 0}))
        ends: list[DeviceError] = []
        for _ in range(3):
            try:
                ask(nvme)
            except DeviceError as error:
                ends.append(error)
        assert len(ends) <= 2
        model.faults.clear()
        nvme.self_test()


def test_impossible_answer_is_said(
    nvme: Nvme, model: NvmeModel, caplog: pytest.LogCaptureFixture
) -> None:
    model.faults.add(on_admin(Action.WRONG_ID))
    with pytest.raises(DeviceError):
        ask(nvme)
    assert "nvme queue 0: completion" in caplog.text
    assert "resetting the controller" in caplog.text


def test_lost_interrupt_costs_a_moment(nvme: Nvme, model: NvmeModel) -> None:
    model.faults.add(on_admin(Action.LOST_INTERRUPT))
    ask(nvme, 5.0)
    assert nvme.controller.generation == 1


def test_fatal_status_is_said(nvme: Nvme, model: NvmeModel) -> None:
    model.faults.add(on_admin(Action.FATAL))
    with pytest.raises(DeviceTimeout) as caught:
        ask(nvme)
    assert "reports that it failed" in "".join(caught.value.__notes__)
    ask(nvme)


def test_stuck_ready_bit_ends_in_an_error_that_stays(nvme: Nvme, model: NvmeModel) -> None:
    model.is_ready_stuck = True
    began = time.monotonic()
    with pytest.raises(DeviceTimeout, match=r"rdy=[01] not seen within 1\.0 s \(CAP\.TO\)"):
        nvme.controller.reset()
    assert time.monotonic() - began < 10
    with pytest.raises(DeviceError, match=r"did not come back from a reset.*attach it anew"):
        nvme.controller.smart_log()
    with pytest.raises(UspaceError):
        nvme.namespaces[1].read(0, 1)
    assert not model.config.is_bus_master  # it may not be disabled, but it reaches no memory
    model.is_ready_stuck = False


def test_reset_of_the_function_helps_where_that_of_the_controller_does_not(
    nvme: Nvme, model: NvmeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    reset = model.reset

    def repair() -> None:
        model.is_ready_stuck = False
        reset()

    monkeypatch.setattr(model, "reset", repair)
    monkeypatch.setattr(nvme.device._backend, "reset", repair)
    model.is_ready_stuck = True
    nvme.controller.reset()
    nvme.self_test()


def test_vanished_device(model: NvmeModel) -> None:
    attachment = attach(model, Nvme)
    nvme = attachment.driver
    model.faults.add(on_admin(Action.VANISH))
    began = time.monotonic()
    with pytest.raises(DeviceGone, match="all ones"):
        ask(nvme)
    with pytest.raises(DeviceGone):
        nvme.controller.check()
    with pytest.raises(DeviceError):
        attachment.close()
    assert time.monotonic() - began < 10


def test_what_is_in_flight_ends_when_another_thread_resets(nvme: Nvme, model: NvmeModel) -> None:
    fault = model.faults.add(on_admin(Action.DROP))
    ends: list[BaseException] = []

    def wait() -> None:
        try:
            ask(nvme, 30.0)
        except DeviceError as error:
            ends.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not fault.hits:
        time.sleep(0.001)
    nvme.controller.reset()
    thread.join(10)
    assert len(ends) == 1
    assert isinstance(ends[0], CommandError)
    assert ends[0].code == Status.ABORTED_BY_HOST
    ask(nvme)


def test_the_same_trouble_is_no_reason_for_a_second_reset(nvme: Nvme) -> None:
    before = nvme.controller.generation
    nvme.controller._recover("seen by one thread", before)
    nvme.controller._recover("seen by another", before)
    assert nvme.controller.generation == before + 1


def test_many_threads_in_trouble(nvme: Nvme, model: NvmeModel) -> None:
    model.faults.add(on_admin(Action.DROP, count=6))
    ends: list[BaseException] = []

    def wait() -> None:
        try:
            ask(nvme, 0.3)
        except DeviceError as error:
            ends.append(error)

    threads = [threading.Thread(target=wait) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(ends) == 6
    model.faults.clear()
    ask(nvme)


def test_reset_under_load(nvme: Nvme) -> None:
    """Reads in other threads fail with a status at worst, and go on."""
    stop = threading.Event()
    done, wrong = [0] * 3, []

    def work(index: int) -> None:
        namespace = nvme.namespaces[1]
        data = np.full(4096, index + 1, np.uint8)
        while not stop.is_set():
            try:
                namespace.write(8 * index, data)
                found = namespace.read(8 * index, 8)
            except DeviceError:
                continue
            done[index] += 1
            if not np.array_equal(found, data):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        before = list(done)
        nvme.controller.reset()
        deadline = time.monotonic() + 10
        while any(now <= then for now, then in zip(done, before, strict=True)):
            assert time.monotonic() < deadline, (done, before)
            time.sleep(0.001)
    stop.set()
    for thread in threads:
        thread.join(10)
    assert not wrong


def test_probe_of_a_controller_that_does_not_answer(
    model: NvmeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = AdminQueue.call
    monkeypatch.setattr(
        AdminQueue, "call", lambda self, asked, data, _timeout: call(self, asked, data, SHORT)
    )
    model.faults.add(Fault(Action.DROP, queue=0, count=0))
    with pytest.raises(DeviceTimeout, match=r"identify \(0x06\) was not completed"):
        attach(model, Nvme)


def test_controller_that_cannot_be_enabled(
    model: NvmeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "uspace_drivers.nvme.model.model._what_is_wrong", lambda *_: "a test wants it"
    )
    with pytest.raises(DeviceError, match=r"failed after CC\.EN=1.*cfs=1"):
        attach(model, Nvme)


def test_rescan_that_fails_is_no_endless_loop(
    nvme: Nvme, model: NvmeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reset is followed by a scan of namespaces; one that is not answered is not reset for."""
    call = AdminQueue.call
    monkeypatch.setattr(
        AdminQueue, "call", lambda self, asked, data, _timeout: call(self, asked, data, SHORT)
    )
    model.faults.add(Fault(Action.DROP, opcode=AdminOpcode.IDENTIFY, queue=0, after=1, count=0))
    with pytest.raises(DeviceTimeout, match=r"identify"):
        nvme.controller.reset()
    model.faults.clear()
    nvme.controller.reset()
    nvme.self_test()


def test_late_io_command_is_aborted_and_the_others_are_spared(nvme: Nvme, model: NvmeModel) -> None:
    model.faults.add(Fault(Action.DELAY, opcode=Opcode.READ, seconds=30.0))
    pair = nvme.queue(4)
    pair.timeout = 0.2
    with nvme.memory.alloc("u1", 4096) as memory:
        requests = nvme.namespaces[1].requests(Opcode.READ, [0, 8], 8, memory.iova)
        results = pair.run(requests)
    ends = dict(zip(results["tag"].tolist(), results["status"].tolist(), strict=True))
    assert code_of(ends[0]) == Status.ABORT_REQUESTED
    assert ends[1] == 0
    assert nvme.controller.generation == 1


def test_late_transfer_is_aborted(nvme: Nvme, model: NvmeModel) -> None:
    model.faults.add(Fault(Action.DELAY, opcode=Opcode.READ, seconds=30.0))
    pair = nvme.queues.here()
    pair.timeout = 0.2
    namespace = nvme.namespaces[1]
    with nvme.memory.alloc("u1", 512) as memory:
        status = pair.fast(Opcode.READ, 0, 1, 0, 1, memory.array, 0.0)
        assert status == -1
        with pytest.raises(DeviceTimeout, match=r"no answer within 0\.2 s"):
            pair.finish()
        assert nvme.controller.generation == 1
        namespace.read(0, 1, into=memory.array)


def test_dropped_io_command_is_ended(nvme: Nvme, model: NvmeModel) -> None:
    model.faults.add(Fault(Action.DROP, opcode=Opcode.READ))
    pair = nvme.queue(4)
    pair.timeout = 0.2
    with nvme.memory.alloc("u1", 4096) as memory:
        requests = nvme.namespaces[1].requests(Opcode.READ, [0, 8], 8, memory.iova)
        results = pair.run(requests)
    assert sorted(results["tag"].tolist()) == [0, 1]
    assert sorted(bool(status) for status in results["status"]) == [False, True]
    nvme.self_test()


def test_shutdown_that_does_not_end(model: NvmeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    attachment = attach(model, Nvme)
    monkeypatch.setattr(model, "_shut_down", lambda: None)
    monkeypatch.setattr("uspace_drivers.nvme.control.life_cycle.LEAST_SHUTDOWN", 0.1)
    monkeypatch.setattr("uspace_drivers.nvme.control.life_cycle.MOST_SHUTDOWN", 0.1)
    with pytest.raises(DeviceTimeout, match=r"shst=COMPLETE not seen within 0\.100 s"):
        attachment.close()
    assert not model.get(NvmeRegisters.cc).en


def test_place_of_data_is_not_given_away_before_it_was_read(nvme: Nvme) -> None:
    """An answer that came before a reset is read after it, when others send commands already."""
    controller, queue = nvme.controller, nvme.controller._queue
    asked = command(AdminOpcode.IDENTIFY, 2)
    tag = queue._submit(asked, np.zeros(4096, "u1"), Deadline(5.0))
    while tag not in queue._answers:
        queue.collect()
    place = queue._places[tag]
    controller.reset()
    assert place not in queue._free
    assert queue._wait(tag, asked, Deadline(5.0))[0] == 0
    queue._leave(tag)
    assert sorted(queue._free) == sorted({*queue._free, place})


def test_nothing_is_left_of_commands_that_nobody_waits_for(nvme: Nvme, model: NvmeModel) -> None:
    queue = nvme.controller._queue
    free = sorted(queue._free)
    model.faults.add(Fault(Action.DELAY, opcode=AdminOpcode.GET_LOG_PAGE, seconds=0.05))
    asked = command(AdminOpcode.GET_LOG_PAGE, 0xFFFF_FFFF, cdw10=127 << 16 | LogPage.SMART)
    with pytest.raises(DeviceTimeout):
        queue.call(asked, np.zeros(512, "u1"), 0.0)
    assert len(queue._free) == len(free) - 1  # the controller may still write there
    deadline = time.monotonic() + 10
    while sorted(queue._free) != free:
        assert time.monotonic() < deadline
        queue.collect()
    assert not queue._answers
    assert not queue._places
    assert not queue._done

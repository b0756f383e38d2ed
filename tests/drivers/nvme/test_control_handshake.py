"""Enabling and disabling by CC and CSTS, and an interrupt that many wait for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tests.unit.specimens import Line
from uspace_drivers.nvme.control.handshake import Handshake
from uspace_drivers.nvme.engine.interrupts import SharedInterrupt
from uspace_drivers.nvme.spec.registers import (
    Configuration,
    ControllerStatus,
    NvmeRegisters,
    Shutdown,
    ShutdownStatus,
)
from uspace_drv import (
    Deadline,
    DeviceError,
    DeviceGone,
    DeviceTimeout,
    Irq,
    UnsupportedError,
)

CAP = NvmeRegisters.cap.offset
CC = NvmeRegisters.cc.offset
CSTS = NvmeRegisters.csts.offset
WHERE = "0000:00:04.0"
READY, FATAL = ControllerStatus(rdy=True).raw, ControllerStatus(cfs=True).raw


class FakeController:
    """Fills a register window: a CAP that says 0.5 s, and a CSTS that follows CC by a rule."""

    name = f"{WHERE} bar 0"
    size = 0x4000

    def __init__(self, cap: int = 1 << 37 | 1 << 24 | 0x3FF) -> None:
        self.registers = {CAP: cap, CC: 0, CSTS: 0}
        self.writes: list[tuple[int, int]] = []
        self.rule: Callable[[int], int] = obedient

    def read32(self, offset: int) -> int:
        return self.registers.get(offset, 0)

    def write32(self, offset: int, value: int) -> None:
        self.writes.append((offset, value))
        self.registers[offset] = value
        if offset == CC:
            self.registers[CSTS] = self.rule(value)

    read8 = read16 = read64 = read32
    write8 = write16 = write64 = write32


def obedient(configuration: int) -> int:
    value = Configuration(configuration)
    done = ShutdownStatus.COMPLETE if value.shn is Shutdown.NORMAL else ShutdownStatus.NONE
    return ControllerStatus(rdy=value.en, shst=done).raw


def a_handshake(controller: FakeController) -> Handshake:
    return Handshake(NvmeRegisters(controller), WHERE, 4096)


def test_enable_writes_queues_before_it_enables() -> None:
    controller = FakeController()
    handshake = a_handshake(controller)
    handshake.disable()
    handshake.enable(0x1000, 0x2000, 32)
    assert handshake.is_ready
    assert controller.writes[1:] == [
        (0x24, 31 << 16 | 31),
        (0x28, 0x1000),
        (0x30, 0x2000),
        (0x14, 0x0046_0000),
        (0x14, 0x0046_0001),
    ]


def test_shutdown_then_disable() -> None:
    controller = FakeController()
    handshake = a_handshake(controller)
    handshake.enable(0x1000, 0x2000, 32)
    handshake.shut_down(0.1)
    assert controller.writes[-1] == (0x14, 0x0046_4001)
    handshake.disable()
    assert controller.writes[-1] == (0x14, 0x0046_0000)


def test_disable_waits_for_an_enable_that_is_under_way() -> None:
    controller = FakeController()
    controller.registers[CC] = 1  # and not ready yet
    threading.Timer(0.05, lambda: controller.registers.update({CSTS: READY})).start()
    a_handshake(controller).disable()
    assert controller.registers[CSTS] == 0


def test_stuck_ready_bit() -> None:
    controller = FakeController()
    controller.rule = lambda _: READY
    with pytest.raises(DeviceTimeout, match=r"csts.rdy=0 not seen within 0\.5 s \(CAP\.TO\)"):
        a_handshake(controller).disable()


def test_never_ready() -> None:
    controller = FakeController()
    controller.rule = lambda _: 0
    with pytest.raises(DeviceTimeout, match=r"csts\.rdy=1 not seen within 0\.5 s"):
        a_handshake(controller).enable(0x1000, 0x2000, 32)


def test_fatal_while_enabling_ends_the_wait() -> None:
    controller = FakeController(1 << 37 | 255 << 24 | 0x3FF)
    controller.rule = lambda _: FATAL
    began = time.monotonic()
    with pytest.raises(DeviceError, match=r"failed after CC\.EN=1.*cfs=1"):
        a_handshake(controller).enable(0x1000, 0x2000, 32)
    assert time.monotonic() - began < 10  # CAP.TO says 127.5 s


def test_fatal_controller_can_be_disabled() -> None:
    controller = FakeController()
    controller.registers.update({CC: 1, CSTS: FATAL})
    a_handshake(controller).disable()


def test_shutdown_that_does_not_end() -> None:
    controller = FakeController()
    controller.rule = lambda _: READY
    with pytest.raises(DeviceTimeout, match="shst=COMPLETE not seen"):
        a_handshake(controller).shut_down(0.01)


@pytest.mark.parametrize(
    ("cap", "words"),
    [
        (1 << 44 | 0x3FF, r"no NVM command set \(CAP.CSS=0x80\)"),
        (1 << 37 | 4 << 48 | 0x3FF, "has 65536 bytes.* this machine's have 4096"),
    ],
)
def test_controllers_that_cannot_be_driven(cap: int, words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        a_handshake(FakeController(cap))


def test_queues_of_one_entry() -> None:
    with pytest.raises(DeviceError, match="MQES=0"):
        a_handshake(FakeController(1 << 37))


def test_gone_from_the_start() -> None:
    with pytest.raises(DeviceGone, match="CAP reads all ones"):
        a_handshake(FakeController((1 << 64) - 1))


def test_gone_in_the_middle() -> None:
    controller = FakeController()
    handshake = a_handshake(controller)
    controller.registers[CSTS] = 0xFFFF_FFFF
    with pytest.raises(DeviceGone, match="CSTS reads all ones"):
        handshake.check_well()


def test_fatal_is_said() -> None:
    controller = FakeController()
    handshake = a_handshake(controller)
    handshake.check_well()
    controller.registers[CSTS] = FATAL
    with pytest.raises(DeviceError, match=r"reports that it failed: ControllerStatus.*cfs=1"):
        handshake.check_well()


def test_who_waits_is_told_by_the_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uspace_drivers.nvme.engine.interrupts.LOOK_AGAIN", 30.0)
    line = Line()
    irq = Irq(line, "irq 0", lambda: None)
    shared = SharedInterrupt(irq)
    woken = []

    def wait(mark: int) -> None:
        shared.sleep(mark, Deadline(30.0))
        woken.append(shared.mark)

    with irq.reserved():  # as the thread of the handlers does
        threads = [threading.Thread(target=wait, args=(shared.mark,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        shared.tell()
        for thread in threads:
            thread.join(10)
    assert woken == [1, 1, 1]
    irq.close()


def test_what_fired_before_the_sleep_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uspace_drivers.nvme.engine.interrupts.LOOK_AGAIN", 30.0)
    line = Line()
    irq = Irq(line, "irq 0", lambda: None)
    shared = SharedInterrupt(irq)
    mark = shared.mark
    threading.Thread(target=shared.tell).start()
    with irq.reserved():
        while shared.mark == mark:
            time.sleep(0.001)
        began = time.monotonic()
        shared.sleep(mark, Deadline(30.0))
        assert time.monotonic() - began < 10
    irq.close()


def test_without_handlers_the_one_who_waits_takes_the_interrupt() -> None:
    line = Line()
    irq = Irq(line, "irq 0", lambda: None)
    line.fire()
    SharedInterrupt(irq).sleep(0, Deadline(30.0))
    assert irq.count == 1
    irq.close()


def test_a_lost_interrupt_does_not_keep_anyone_asleep() -> None:
    irq = Irq(Line(), "irq 0", lambda: None)
    began = time.monotonic()
    SharedInterrupt(irq).sleep(0, Deadline(30.0))
    assert time.monotonic() - began < 5
    irq.close()


def test_naps_where_nothing_interrupts() -> None:
    began = time.monotonic()
    SharedInterrupt(None).sleep(0, Deadline(30.0))
    assert time.monotonic() - began < 5

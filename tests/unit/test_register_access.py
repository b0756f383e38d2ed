"""Registers in a window: which verb makes which accesses, waiting, and what errors say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from uspace_drv.errors import DeviceGone, DeviceTimeout, RegisterValueError
from uspace_drv.registers import Register, RegisterBlock, array, bit, field, ro, rw, w1c, wo


class Status(Register):
    computing = bit(0, "a factorial is in progress")
    irq_when_done = bit(7, "raise an interrupt when it is finished")


class Ident(Register):
    major = field(31, 24, "major version")
    minor = field(23, 16)
    magic = field(7, 0)


class Events(Register, width=8):
    done = bit(0)
    failed = bit(1)


class Doorbell(Register):
    tail = field(15, 0)


class DemoRegisters(RegisterBlock, size=0x200):
    ident = ro(0x00, Ident, "who it is")
    liveness = rw(0x04, "answers its complement")
    status = rw(0x20, Status)
    events = w1c(0x28, Events)
    ack = wo(0x64)
    fifo = ro(0x68, side_effects=True)
    dma_source = rw(0x80, width=64)
    low_first = rw(0x88, width=64, split="low first")
    high_first = rw(0x94, width=64, split="high first")
    queue = array(rw(0x100, Doorbell), count=4, stride=8)


class FakeWindow:
    """Registers as a dictionary; logs every access, and answers reads from a script first."""

    name = "0000:00:04.0 bar 0"

    def __init__(self, size: int = 0x1000, **script: list[int]) -> None:
        self.size = size
        self.words: dict[int, int] = {}
        self.log: list[tuple[Any, ...]] = []
        self.script: list[int] = script.get("script", [])
        for width in (8, 16, 32, 64):
            setattr(self, f"read{width}", lambda offset, width=width: self._read(width, offset))
            setattr(
                self,
                f"write{width}",
                lambda offset, value, width=width: self._write(width, offset, value),
            )

    def _read(self, width: int, offset: int) -> int:
        self.log.append(("read", width, offset))
        if self.script:
            self.words[offset] = self.script.pop(0)
        return self.words.get(offset, 0)

    def _write(self, width: int, offset: int, value: int) -> None:
        self.log.append(("write", width, offset, value))
        self.words[offset] = value

    read8: Any
    read16: Any
    read32: Any
    read64: Any
    write8: Any
    write16: Any
    write32: Any
    write64: Any


@pytest.fixture
def window() -> FakeWindow:
    return FakeWindow()


@pytest.fixture
def registers(window: FakeWindow) -> DemoRegisters:
    return DemoRegisters(window)


def test_typed_and_untyped_reads(window: FakeWindow, registers: DemoRegisters) -> None:
    window.words = {0: 0x010000ED, 4: 7}
    assert registers.ident.read() == Ident(major=1, magic=0xED)
    assert registers.liveness.read() == 7
    assert window.log == [("read", 32, 0), ("read", 32, 4)]


def test_writes_of_values_numbers_and_fields(window: FakeWindow, registers: DemoRegisters) -> None:
    registers.status.write(Status(1))
    registers.status.write(0x80)
    registers.status.write(irq_when_done=True, computing=1)
    registers.ack.write(np.uint32(3))
    registers.dma_source.write(1 << 40)
    assert window.log == [
        ("write", 32, 0x20, 1),
        ("write", 32, 0x20, 0x80),
        ("write", 32, 0x20, 0x81),
        ("write", 32, 0x64, 3),
        ("write", 64, 0x80, 1 << 40),
    ]
    assert type(window.log[3][3]) is int


def test_update_reads_once_and_writes_once(window: FakeWindow, registers: DemoRegisters) -> None:
    window.words[0x20] = 0xFF000001
    registers.status.update(computing=False, irq_when_done=True)
    assert window.log == [("read", 32, 0x20), ("write", 32, 0x20, 0xFF000080)]


def test_clear_writes_only_those_ones(window: FakeWindow, registers: DemoRegisters) -> None:
    window.words[0x28] = 3
    registers.events.clear(failed=True)
    assert window.log == [("write", 8, 0x28, 2)]
    registers.events.clear(Events(3))
    assert window.log[1:] == [("write", 8, 0x28, 3)]


def test_a_split_register_takes_two_accesses_in_order(
    window: FakeWindow, registers: DemoRegisters
) -> None:
    registers.low_first.write(0x1_0000_0002)
    registers.high_first.write(0x3_0000_0004)
    assert window.log == [
        ("write", 32, 0x88, 2),
        ("write", 32, 0x8C, 1),
        ("write", 32, 0x98, 3),
        ("write", 32, 0x94, 4),
    ]
    window.log.clear()
    assert registers.low_first.read() == 0x1_0000_0002
    assert registers.high_first.read() == 0x3_0000_0004
    assert [offset for _, _, offset in window.log] == [0x88, 0x8C, 0x98, 0x94]


def test_an_array_is_a_sequence(window: FakeWindow, registers: DemoRegisters) -> None:
    registers.queue[3].write(tail=9)
    assert window.log == [("write", 32, 0x118, 9)]
    assert len(registers.queue) == len(DemoRegisters.queue) == 4


def test_a_block_may_lie_further_into_its_window(window: FakeWindow) -> None:
    registers = DemoRegisters(window, 0x400)
    registers.status.write(1)
    assert window.log == [("write", 32, 0x420, 1)]
    assert repr(registers.status) == "<rw register 0000:00:04.0 bar 0 status (0x420)>"


@pytest.mark.parametrize(("size", "offset"), [(0x100, 0), (0x200, 4), (0x400, -4)])
def test_a_window_that_is_too_small_is_refused(size: int, offset: int) -> None:
    with pytest.raises(RegisterValueError, match=r"bar 0: DemoRegisters needs 0x200 bytes at"):
        DemoRegisters(FakeWindow(size), offset)


def test_attributes_never_touch_the_device(window: FakeWindow, registers: DemoRegisters) -> None:
    for name in dir(registers):
        repr(getattr(registers, name))
    with pytest.raises(AttributeError, match=r"status is a register; write it by .status.write"):
        registers.status = 1  # type: ignore[assignment]
    assert window.log == []


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda r: r.liveness.write(1 << 32), r"liveness \(0x4\): 0x100000000 does not fit 32"),
        (lambda r: r.liveness.write(x=1), r"liveness \(0x4\): has no fields"),
        (lambda r: r.status.write(Ident(1)), r"status \(0x20\): Ident.* is not an integer"),
        (lambda r: r.status.write(), "either a value or fields"),
        (lambda r: r.status.write(1, computing=1), "either a value or fields"),
        (lambda r: r.status.update(computin=1), r"status \(0x20\): Status has .*mean computing"),
        (lambda r: r.queue[1].write(1 << 32), r"queue\[1\] \(0x108\): 0x100000000 does not fit"),
    ],
)
def test_a_wrong_write_reaches_nothing(
    window: FakeWindow, registers: DemoRegisters, write: Any, message: str
) -> None:
    with pytest.raises(RegisterValueError, match=f"^0000:00:04.0 bar 0 .*{message}"):
        write(registers)
    assert window.log == []


def test_an_error_says_where_in_the_window(window: FakeWindow) -> None:
    with pytest.raises(RegisterValueError, match=r"bar 0 liveness \(0x404\): -0x1 does not fit"):
        DemoRegisters(window, 0x400).liveness.write(-1)


# Waiting


def test_wait_returns_what_it_saw() -> None:
    window = FakeWindow(script=[1, 1, 0x80])
    assert DemoRegisters(window).status.wait(computing=False) == Status(0x80)
    assert len(window.log) == 3


def test_wait_for_a_whole_number() -> None:
    window = FakeWindow(script=[1] * 20 + [5])
    assert DemoRegisters(window).liveness.wait(5) == 5
    assert len(window.log) == 21


def test_wait_has_a_deadline() -> None:
    window = FakeWindow(script=[1])
    with pytest.raises(DeviceTimeout) as caught:
        DemoRegisters(window).status.wait(computing=False, timeout=0.002)
    assert str(caught.value) == (
        "0000:00:04.0 bar 0 status (0x20): computing=0 not seen within 0.002 s; "
        "last read Status(0x00000001 computing=1 irq_when_done=0)"
    )
    assert len(window.log) > 1


def test_wait_without_time_reads_once() -> None:
    window = FakeWindow()
    with pytest.raises(DeviceTimeout, match=r"liveness \(0x4\): 0x00000005 not seen within 0.000"):
        DemoRegisters(window).liveness.wait(5, timeout=0)
    assert len(window.log) == 1


def test_wait_sees_that_the_device_is_gone() -> None:
    window = FakeWindow(script=[0, 0xFFFFFFFF])
    with pytest.raises(DeviceGone, match=r"status \(0x20\): reads all ones"):
        DemoRegisters(window).status.wait(computing=True)
    assert DemoRegisters(FakeWindow(script=[0xFFFFFFFF])).liveness.wait(0xFFFFFFFF)


def test_a_block_inherits_and_adds() -> None:
    class More(DemoRegisters):
        extra = rw(0x1F0)

    more = More(FakeWindow())
    assert More.SIZE == 0x200
    assert more.extra.read() == more.status.read().raw == 0

"""The edu model answers as QEMU's device does (QEMU docs/specs/edu.rst, hw/misc/edu.c)."""

from __future__ import annotations

import mmap
from typing import Any

import pytest

from uspace_drivers.edu import Edu, EduModel
from uspace_drv import DeviceError, Direction, Iova, IrqKind, attach

PAGE = mmap.PAGESIZE
MEMORY = 0x10000
SLOW = {"dma_delay": 0.1, "factorial_delay": 0.2}
FACTORIAL, STATUS, IRQ_STATUS, RAISE, ACKNOWLEDGE = 0x08, 0x20, 0x24, 0x60, 0x64
SOURCE, DESTINATION, COUNT, COMMAND = 0x80, 0x88, 0x90, 0x98

pytestmark = pytest.mark.usefixtures("nothing_left")


class Bench:
    """The model with a page of memory, held in time."""

    address = 0

    def __init__(self, **parameters: Any) -> None:
        self.model = EduModel("edu", **parameters)
        self.model.clock.freeze()
        self.model.config.write(0x04, 2, 4)
        self.memory = bytearray(PAGE)
        self.model.memory.attach(MEMORY, PAGE, self, Direction.BOTH)
        self.pass_time = self.model.clock.advance

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self.memory[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        self.memory[offset : offset + len(data)] = data

    def get(self, offset: int, width: int = 4) -> int:
        return self.model.read_bar(0, offset, width)

    def put(self, offset: int, value: int, width: int = 4) -> None:
        self.model.write_bar(0, offset, width, value)

    def transfer(self, source: int, destination: int, count: int, command: int) -> None:
        for offset, value in zip(
            (SOURCE, DESTINATION, COUNT, COMMAND),
            (source, destination, count, command),
            strict=True,
        ):
            self.put(offset, value)


def test_identity_is_qemus() -> None:
    bench = Bench()
    assert bench.get(0x00) == 0x010000ED
    assert [bench.model.config.read(offset, 4) for offset in (0x00, 0x08, 0x2C)] == [
        0x11E81234,
        0x00FF0010,
        0x11001AF4,
    ]


def test_computing_is_visible_and_a_write_meanwhile_is_ignored() -> None:
    bench = Bench(**SLOW)
    bench.put(STATUS, 0x80)
    bench.put(FACTORIAL, 5)
    bench.put(FACTORIAL, 6)
    assert (bench.get(FACTORIAL), bench.get(STATUS)) == (5, 0x81)
    bench.pass_time(0.2)
    assert (bench.get(FACTORIAL), bench.get(STATUS), bench.get(IRQ_STATUS)) == (120, 0x80, 1)


def test_interrupt_may_be_asked_for_while_it_computes() -> None:
    bench = Bench(**SLOW)
    bench.put(FACTORIAL, 5)
    bench.put(STATUS, 0xFF)
    assert bench.get(STATUS) == 0x81
    bench.pass_time(0.2)
    assert bench.get(IRQ_STATUS) == 1


def test_dma_takes_its_time_and_registers_stay_meanwhile() -> None:
    bench = Bench(**SLOW)
    bench.memory[:4] = b"\x01\x02\x03\x04"
    bench.transfer(MEMORY, 0x40000, 4, 0x5)
    for offset in (SOURCE, DESTINATION, COUNT, COMMAND):
        bench.put(offset, 0xFF, 8)
    assert [bench.get(offset, 8) for offset in (SOURCE, DESTINATION, COUNT, COMMAND)] == [
        MEMORY,
        0x40000,
        4,
        5,
    ]
    bench.pass_time(0.1)
    assert (bench.get(COMMAND), bench.get(IRQ_STATUS)) == (4, 0x100)
    bench.transfer(0x40000, MEMORY + 100, 4, 0x3)
    bench.pass_time(0.1)
    assert bench.memory[100:104] == b"\x01\x02\x03\x04"
    assert bench.get(IRQ_STATUS) == 0x100


def test_command_without_run_is_ignored() -> None:
    bench = Bench()
    bench.put(COMMAND, 0x6)
    assert bench.get(COMMAND) == 0


@pytest.mark.parametrize(("bits", "works"), [(28, True), (64, False)])
def test_addresses_are_clamped(bits: int, works: bool) -> None:
    bench = Bench(dma_bits=bits)
    bench.put(SOURCE, 1 << 40 | MEMORY, 8)
    bench.put(DESTINATION, 0x40000, 8)
    bench.put(COUNT, 4, 8)
    if works:
        bench.put(COMMAND, 1, 8)
        return
    with pytest.raises(DeviceError, match=r"dma_source \(0x80\) carried IOVA 0x10000010000 "):
        bench.put(COMMAND, 1, 8)
    assert bench.get(COMMAND) == 0  # it does not run for ever


def test_whole_buffer_and_no_more() -> None:
    bench = Bench()
    bench.transfer(MEMORY, 0x40000, 4096, 1)
    with pytest.raises(DeviceError, match="0x1001 bytes at 0x40000 is outside"):
        bench.transfer(MEMORY, 0x40000, 4097, 1)


@pytest.mark.parametrize(
    ("offset", "width"), [(0x00, 1), (0x04, 2), (0x00, 8), (0x80, 1), (0x98, 2), (0x100, 4)]
)
def test_other_widths_and_places_answer_all_ones(offset: int, width: int) -> None:
    assert Bench().get(offset, width) == (1 << 8 * width) - 1


def test_interrupts_are_raised_and_acknowledged_bit_by_bit() -> None:
    bench = Bench()
    line = bench.model.interrupts.line(IrqKind.INTX, 0)
    bench.put(RAISE, 0)
    bench.put(RAISE, 0x5)
    bench.put(RAISE, 0x10)
    assert (line.take(), bench.get(IRQ_STATUS)) == (1, 0x15)
    bench.put(ACKNOWLEDGE, 0x5)
    line.unmask()
    assert line.take() == 1
    bench.put(ACKNOWLEDGE, 0x10)
    line.unmask()
    assert (line.take(), bench.get(IRQ_STATUS)) == (0, 0)
    line.close()


def test_every_raise_is_a_message() -> None:
    bench = Bench()
    line = bench.model.interrupts.line(IrqKind.MSI, 0)
    for value in (1, 1, 0):  # the last one finds the status still set
        bench.put(RAISE, value)
    assert line.take() == 3
    line.close()


def test_driver_copes_with_a_device_that_takes_its_time() -> None:
    with attach("virtual:edu?dma_delay=0.01&factorial_delay=0.01", Edu) as edu:
        edu.self_test()


def test_memory_that_was_never_mapped_is_told_at_the_next_access() -> None:
    model = EduModel("edu", dma_delay=0.001)
    with attach(model, Edu) as edu:
        edu.registers.dma_source.write(Iova(0x5000))
        edu.registers.dma_destination.write(0x40000)
        edu.registers.dma_count.write(4)
        edu.registers.dma_command.write(run=True)
        with pytest.raises(DeviceError, match=r"dma_source \(0x80\) carried IOVA 0x5000 "):
            edu.registers.dma_command.wait(run=True, irq_when_done=True, timeout=10.0)

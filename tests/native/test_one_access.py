"""One register access is one load or one store of exactly that width, proven by counting them."""

from __future__ import annotations

import ctypes
import struct

import pytest

from uspace_drv.native import Window
from uspace_drv.registers import Register, RegisterBlock, bit, ro, rw, w1c, wo

from .conftest import Access, TrapPage

WIDTHS = [8, 16, 32, 64]
PATTERN = 0x8877665544332211


class Status(Register):
    ready = bit(0)
    enabled = bit(7)


class Counted(RegisterBlock, size=0x100):
    ident = ro(0x00)
    small = rw(0x0A, width=16)
    status = rw(0x20, Status)
    doorbell = wo(0x24)
    cause = w1c(0x28, Status)
    address = rw(0x30, width=64)


def value_of(bits: int) -> int:
    return PATTERN & ((1 << bits) - 1)


def ends(bits: int) -> list[int]:
    """The first and the last offset of the page: a wider access would touch a neighbour."""
    return [0, TrapPage.size - bits // 8]


@pytest.mark.parametrize("bits", WIDTHS)
def test_read_is_one_load_of_that_width(trap_page: TrapPage, bits: int) -> None:
    window = Window.over_buffer("page", trap_page.memory)
    read = getattr(window, f"read{bits}")
    for offset in ends(bits):
        trap_page.memory[offset : offset + bits // 8] = value_of(bits).to_bytes(bits // 8, "little")
        with trap_page.counted():
            value = read(offset)
        assert trap_page.log == [Access("load", offset)]
        assert value == value_of(bits)


@pytest.mark.parametrize("bits", WIDTHS)
def test_write_is_one_store_of_that_width(trap_page: TrapPage, bits: int) -> None:
    window = Window.over_buffer("page", trap_page.memory)
    write = getattr(window, f"write{bits}")
    trap_page.memory[:] = b"\xa5" * trap_page.size  # no byte of the pattern is 0xa5
    for offset in ends(bits):
        with trap_page.counted():
            write(offset, value_of(bits))
        assert trap_page.log == [Access("store", offset, bits // 8)]
        assert trap_page.memory[offset : offset + bits // 8].tobytes() == value_of(bits).to_bytes(
            bits // 8, "little"
        )


def test_a_typed_register_costs_the_same_accesses(trap_page: TrapPage) -> None:
    trap_page.memory[:] = b"\xa5" * trap_page.size
    registers = Counted(Window.over_buffer("page", trap_page.memory))
    with trap_page.counted():
        registers.ident.read()
        registers.small.write(value_of(16))
        _ = registers.status.read().ready
        registers.status.write(Status(0x11223344))
        registers.status.update(enabled=True)
        registers.doorbell.write(value_of(32))
        registers.cause.clear(ready=True)
        registers.address.write(value_of(64))
        registers.address.read()
    assert trap_page.log == [
        Access("load", 0x00),
        Access("store", 0x0A, 2),
        Access("load", 0x20),
        Access("store", 0x20, 4),
        Access("load", 0x20),
        Access("store", 0x20, 1),  # 4 bytes stored, of which one changes
        Access("store", 0x24, 4),
        Access("store", 0x28, 4),
        Access("store", 0x30, 8),
        Access("load", 0x30),
    ]


def test_a_refused_access_touches_nothing(trap_page: TrapPage) -> None:
    window = Window.over_buffer("page", trap_page.memory)
    with trap_page.counted():
        for offset, value in [(2, 0), (4096, 0), (-4, 0), (0, 1 << 32), (0, -1)]:
            with pytest.raises(ValueError, match="page: "):
                window.write32(offset, value)
        _ = window.name, window.size, repr(window)
        window.close()
    assert trap_page.log == []


def test_the_counter_sees_two_stores(trap_page: TrapPage) -> None:
    """`struct.pack_into` is what many drivers use; it stores zero first."""
    trap_page.memory[:] = b"\xa5" * trap_page.size
    with trap_page.counted():
        struct.pack_into("<I", trap_page.memory, 0x20, value_of(32))
    assert [access.kind for access in trap_page.log] == ["store", "store"]


def test_the_counter_sees_a_read_before_a_write(trap_page: TrapPage) -> None:
    """A ctypes pointer to a register, as python-periphery has it, reads before it writes."""
    register = ctypes.c_uint32.from_buffer(trap_page.memory, 0x20)
    with trap_page.counted():
        register.value = value_of(32)
    assert [access.kind for access in trap_page.log] == ["load", "store"]


def test_the_counter_sees_an_access_that_is_too_wide(trap_page: TrapPage) -> None:
    """An unaligned load across the end of the page touches both pages."""
    last = ctypes.addressof(ctypes.c_ubyte.from_buffer(trap_page.memory, trap_page.size - 2))
    with trap_page.counted():
        ctypes.string_at(last, 4)
    assert {access.offset // trap_page.size for access in trap_page.log} == {0, 1}

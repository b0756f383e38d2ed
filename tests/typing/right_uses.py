"""Right uses of registers and descriptors: mypy must accept every line. Nothing here runs."""

from __future__ import annotations

from enum import Enum
from typing import assert_type

from uspace_drv.registers import (
    Clearable,
    Declaration,
    Field,
    Readable,
    ReadWrite,
    Register,
    RegisterBlock,
    Window,
    Writable,
    array,
    bit,
    field,
    ro,
    rw,
    w1c,
    wo,
)


class Mode(Enum):
    STOP = 0
    RUN = 1


class Status(Register):
    computing = bit(0, "a factorial is in progress")
    mode = field(5, 4, Mode, "operating mode")
    count = field(31, 16)


class WideStatus(Status):
    late = bit(6)


class Table(RegisterBlock, size=0x100):
    ident = ro(0x00)
    progress = ro(0x08, Status, "how far it is")
    status = rw(0x20, WideStatus)
    events = w1c(0x24, Status)
    ack = wo(0x64)
    source = rw(0x80, width=64, split="low first")
    queue = array(wo(0xC0, Status), count=4, stride=8)


def right_uses(window: Window) -> None:
    registers = Table(window, offset=0x100)
    assert_type(Table.status, Declaration[ReadWrite[WideStatus], WideStatus])
    assert_type(Table.status.decode(1), WideStatus)
    assert_type(Status.mode, Field[Mode])
    assert_type(registers.ident, Readable[int])
    assert_type(registers.ident.read(), int)
    assert_type(registers.progress.read().computing, bool)
    assert_type(registers.progress.read().count, int)
    assert_type(registers.status.read().mode, Mode)
    assert_type(registers.events, Clearable[Status])
    assert_type(registers.queue[1], Writable[Status])
    assert_type(registers.status.wait(computing=True, timeout=2), WideStatus)
    assert_type(registers.source.wait(5), int)
    assert_type(Status(computing=True).replace(mode=Mode.RUN, count=3), Status)
    registers.status.write(WideStatus(0x80, late=True))
    registers.status.write(computing=1, mode=1, late=False)
    registers.status.write(0x80)
    registers.status.update(mode=Mode.STOP)
    registers.events.clear(computing=True)
    registers.events.clear(registers.events.read())
    registers.queue[2].write(count=registers.ident.read())
    registers.source.write(1 << 40)

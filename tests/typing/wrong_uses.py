"""Wrong uses of registers: mypy must refuse every marked line. Nothing here runs.

Each mark names the error that is due; a mark on a line that mypy accepts is an error itself.
"""

from __future__ import annotations

from enum import Enum

from uspace_drv.registers import (
    Register,
    RegisterBlock,
    Window,
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


class Other(Enum):
    STOP = 0


class Ident(Register):
    magic = field(7, 0)


class Status(Register):
    computing = bit(0)
    mode = field(5, 4, Mode)
    count = field(31, 16)


class Table(RegisterBlock, size=0x100):
    ident = ro(0x00, Ident)
    liveness = rw(0x04)
    status = rw(0x20, Status)
    events = w1c(0x24, Status)
    ack = wo(0x64)
    queue = array(ro(0xC0, Status), count=4, stride=8)
    fieldless = ro(0x10, int)  # type: ignore[type-var]
    narrow = ro(0x14, width=12)  # type: ignore[call-overload]
    folded = rw(0x18, width=64, split="high")  # type: ignore[call-overload]


def wrong_rights(registers: Table) -> None:
    registers.ident.write(1)  # type: ignore[attr-defined]
    registers.ident.update(magic=1)  # type: ignore[attr-defined]
    registers.ack.read()  # type: ignore[attr-defined]
    registers.ack.wait(1)  # type: ignore[attr-defined]
    registers.ack.update(x=1)  # type: ignore[attr-defined]
    registers.events.write(1)  # type: ignore[attr-defined]
    registers.events.update(computing=True)  # type: ignore[attr-defined]
    registers.status.clear(computing=True)  # type: ignore[attr-defined]
    registers.queue[0].write(1)  # type: ignore[attr-defined]
    registers.queue.read()  # type: ignore[attr-defined]


def wrong_names(registers: Table) -> None:
    registers.statsu.read()  # type: ignore[attr-defined]
    registers.status.read().computin  # type: ignore[attr-defined]  # noqa: B018
    Status.computin  # type: ignore[attr-defined]  # noqa: B018
    Status(computin=1)  # type: ignore[call-arg]
    Status().replace(computin=1)  # type: ignore[call-arg]
    registers.status.write(computin=1)  # type: ignore[call-arg]
    registers.status.write(magic=1)  # type: ignore[call-arg]
    registers.status.update(computin=1)  # type: ignore[call-arg]
    registers.status.wait(computin=1)  # type: ignore[call-arg]
    registers.events.clear(computin=1)  # type: ignore[call-arg]
    registers.liveness.write(computing=1)  # type: ignore[call-arg]
    registers.queue[0].wait(computin=1)  # type: ignore[call-arg]
    Table.status.encode(computin=1)  # type: ignore[call-arg]


def wrong_names_of_a_local_table() -> None:
    class Local(Register):
        ready = bit(0)

    Local(readi=1)  # type: ignore[call-arg]
    Local().replace(readi=1)  # type: ignore[call-arg]


def wrong_values(registers: Table) -> None:
    Status(computing="yes")  # type: ignore[arg-type]
    Status("yes")  # type: ignore[arg-type]
    Status(mode=Other.STOP)  # type: ignore[arg-type]
    Status(count=1.5)  # type: ignore[arg-type]
    Status().replace(count=Mode.RUN)  # type: ignore[arg-type]
    registers.status.write("yes")  # type: ignore[arg-type]
    registers.status.write(Ident())  # type: ignore[arg-type]
    registers.status.write(computing="yes")  # type: ignore[arg-type]
    registers.status.update(mode="RUN")  # type: ignore[arg-type]
    registers.status.wait(computing=None)  # type: ignore[arg-type]
    registers.status.wait(computing=True, timeout="1 s")  # type: ignore[arg-type]
    registers.liveness.write(1.5)  # type: ignore[arg-type]
    registers.liveness.write(Status())  # type: ignore[arg-type]
    registers.events.clear(Ident())  # type: ignore[arg-type]


def wrong_assignments(registers: Table, window: Window) -> None:
    registers.status = 1  # type: ignore[assignment]
    registers.status.read().computing = True  # type: ignore[assignment]
    registers.status.read().raw = 1  # type: ignore[misc]
    window.size = 4  # type: ignore[misc]
    mode: int = registers.status.read().mode  # type: ignore[assignment]
    ident: Ident = registers.status.read()  # type: ignore[assignment]
    del mode, ident

"""A small device for tests of the core: a bell that rings, and copies memory by DMA."""

from __future__ import annotations

import threading

from uspace_drv import Driver, IrqKind, PciId, RegisterBlock, ro, rw, w1c, wo
from uspace_drv.eventfd import EventFd
from uspace_drv.models import Bar, DeviceModel, PciIdentity, on_write

MAGIC = 0xBE11
WAIT = 10.0
"""Seconds: far longer than anything here takes, so that reaching it is a failure."""


class BellRegisters(RegisterBlock, size=0x40):
    """BAR 0 of the bell."""

    magic = ro(0x00)
    ring = wo(0x04, "send this many messages, and raise INTx")
    quiet = wo(0x08, "lower INTx")
    pending = w1c(0x0C, "bit 0: it rang")
    address = rw(0x10, "where memory is", width=64)
    size = rw(0x18, "bytes")
    fetch = wo(0x1C, "read memory into the bell")
    store = wo(0x20, "write what was fetched to memory")
    crack = wo(0x24, "break the model")


class BellModel(DeviceModel):
    """Rings, and copies memory."""

    identity = PciIdentity(0x1234, 0xBE11)
    bars = {0: Bar(BellRegisters, size=4096)}
    irqs = {IrqKind.INTX: 1, IrqKind.MSI: 4}

    def power_on(self) -> None:
        self.fetched = b""
        self.set(BellRegisters.magic, MAGIC)

    @on_write(BellRegisters.ring)
    def ring(self, times: int) -> None:
        self.set(BellRegisters.pending, 1)
        self.interrupts.set_level(True)
        for _ in range(times):
            self.interrupts.send()

    @on_write(BellRegisters.quiet)
    def quiet(self, _: int) -> None:
        self.interrupts.set_level(False)

    @on_write(BellRegisters.fetch)
    def fetch(self, _: int) -> None:
        self.fetched = self.read_memory(BellRegisters.address, self.get(BellRegisters.size))

    @on_write(BellRegisters.store)
    def store(self, _: int) -> None:
        self.write_memory(BellRegisters.address, self.fetched)

    @on_write(BellRegisters.crack)
    def crack(self, value: int) -> None:
        raise ZeroDivisionError(f"cracked by {value}")


class Bell(Driver):
    """The smallest driver for it."""

    id_table = [PciId(0x1234, 0xBE11)]

    def probe(self) -> None:
        self.registers = BellRegisters(self.device.bar(0))
        self.require(self.registers.magic.read() == MAGIC, "not a bell")

    def remove(self) -> None:
        self.registers.quiet.write(1)


class Line:
    """Fills the port's `IrqLine`: fires when told to, and notes what is asked of it."""

    def __init__(self, kind: IrqKind = IrqKind.MSI) -> None:
        self.kind = kind
        self.log: list[str] = []
        self.watched = threading.Event()
        """Set when somebody is about to sleep on it."""
        self._event = EventFd()
        self.take = self._event.take
        self.fire = self._event.signal

    def fileno(self) -> int:
        self.watched.set()
        return self._event.fileno()

    def mask(self) -> None:
        self.log.append("mask")

    def unmask(self) -> None:
        self.log.append("unmask")

    def close(self) -> None:
        self.log.append("close")
        self._event.close()

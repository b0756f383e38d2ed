"""Models that the suites serve to another process; they import no more than a model needs."""

from __future__ import annotations

import mmap
import time

from uspace_drv.models import Area, Bar, DeviceModel, PciIdentity, on_write
from uspace_drv.port import IrqKind
from uspace_drv.registers import RegisterBlock, rw

SCRATCH, RING = 0x20, 0x24
STAMP_BAR = 2


class BellRegisters(RegisterBlock, size=0x100):
    """A register that keeps what is written, and one that raises an interrupt a moment later."""

    scratch = rw(SCRATCH)
    ring = rw(RING, "after so many nanoseconds")


class Plain(DeviceModel):
    """All of its BAR by message."""

    identity = PciIdentity(0x1234, 0x0001)
    bars = {0: Bar(BellRegisters, size=mmap.PAGESIZE)}


class Shared(DeviceModel):
    """Registers by message, and a page of shared memory in the same BAR and in one of its own."""

    identity = PciIdentity(0x1234, 0x0002)
    bars = {
        0: Bar(BellRegisters, size=2 * mmap.PAGESIZE, memory=(Area(mmap.PAGESIZE, mmap.PAGESIZE),)),
        STAMP_BAR: Bar(size=mmap.PAGESIZE, memory=(Area(0, mmap.PAGESIZE),)),
    }
    irqs = {IrqKind.MSI: 1}

    @on_write(BellRegisters.ring)
    def ring_soon(self, value: int) -> None:
        """Give the driver the time to fall asleep."""
        self.after(value / 1e9, self.ring)

    def ring(self) -> None:
        """Say when, and raise the interrupt."""
        self.bar_list[STAMP_BAR].window.write64(0, time.monotonic_ns())
        self.interrupts.send()

"""A model of QEMU's PCI test device (QEMU docs/specs/pci-testdev.rst, hw/misc/pci-testdev.c)."""

import struct
from dataclasses import dataclass

from uspace_drv.models import Bar, BarKind, DeviceModel, PciIdentity

HEADER = struct.Struct("<BB2xIB3xI")
MATCHING, OTHER = 0xFA, 0xCE
KINDS = ("no-eventfd", "wildcard-eventfd", "datamatch-eventfd")


@dataclass
class Case:
    """A write of one byte that is counted; `matches`: only one of the right value."""

    number: int
    name: str
    offset: int
    matches: bool
    count: int = 0

    @property
    def data(self) -> int:
        """What to write."""
        return MATCHING if self.matches else OTHER

    def header(self) -> bytes:
        """What the start of the BAR reads as."""
        fields = HEADER.pack(self.number, 1, self.offset, self.data, self.count)
        return fields + self.name.encode() + b"\0"


class PciTestdevModel(DeviceModel):
    """Three tests on memory (BAR 0) and the same on I/O ports (BAR 1).

    It has no table of registers: any width reads the header, and any place may be a test's.
    `membar`: bytes of a 64-bit BAR 2 with nothing in it, for systems that place large BARs.
    """

    identity = PciIdentity(0x1B36, 0x0005, subvendor=0x1AF4, subdevice=0x1100)

    def __init__(self, name: str | None = None, *, membar: int = 0) -> None:
        self.bars = {0: Bar(size=4096), 1: Bar(size=256, kind=BarKind.PORTS)}
        if membar:
            self.bars[2] = Bar(size=membar, kind=BarKind.MEMORY_64, prefetchable=True)
        super().__init__(name)

    def power_on(self) -> None:
        self.tests = [
            Case(number, f"{word}-{kind}", start + number, kind != "wildcard-eventfd")
            for number, (word, start, kind) in enumerate(
                (word, start, kind)
                for word, start in (("mmio", 2048), ("portio", 128))
                for kind in KINDS
            )
        ]
        self.running: Case | None = None

    def read_other(self, bar: int, offset: int, width: int) -> int:
        if bar == 2:
            return super().read_other(bar, offset, width)
        header = self.running.header() if self.running else b""
        return int.from_bytes(header[offset : offset + width], "little")

    def write_other(self, bar: int, offset: int, width: int, value: int) -> None:
        for place, byte in enumerate(value.to_bytes(width, "little"), offset):
            self.write_byte(bar, place, byte)

    def write_byte(self, bar: int, offset: int, value: int) -> None:
        """Start a test, or count a write."""
        if bar == 2:
            return
        running = self.running
        if offset == 0:
            self.running = self.tests[len(KINDS) * bar + value] if value < len(KINDS) else None
            if self.running is not None:
                self.running.count = 0
        elif running and offset == running.offset and value in self.values_of(running, value):
            running.count += 1

    def values_of(self, case: Case, value: int) -> tuple[int, ...]:
        """The values that count."""
        return (case.data,) if case.matches else (value,)

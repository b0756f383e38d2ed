"""A driver for QEMU's PCI test device (QEMU docs/specs/pci-testdev.rst)."""

from dataclasses import dataclass

from uspace_drivers.pci_testdev.registers import PciTestdevRegisters
from uspace_drv import Driver, PciId

WRITERS = {1: "write8", 2: "write16", 4: "write32"}


@dataclass(frozen=True)
class Outcome:
    """One test of one BAR: how many writes were made, and how many the device counted."""

    bar: int
    name: str
    writes: int
    counted: int


class PciTestdev(Driver):
    """A device that counts writes, for tests of plain accesses (QEMU's pci-testdev)."""

    id_table = [PciId(0x1B36, 0x0005)]

    def probe(self) -> None:
        """Check that it has a test in BAR 0."""
        self.headers = {bar: PciTestdevRegisters(self.device.bar(bar)) for bar in (0, 1)}
        self.require(self.start(0, 0), "BAR 0 has no test 0")

    def remove(self) -> None:
        """End the test that is on."""
        self.headers[0].test.write(0xFF)

    def start(self, bar: int, number: int) -> bool:
        """Start a test; whether there is one of that number."""
        self.headers[bar].test.write(number)
        return self.headers[bar].width.read() in WRITERS

    def run(self, bar: int, number: int, writes: int = 10) -> Outcome:
        """Run one test of one BAR."""
        self.require(self.start(bar, number), f"BAR {bar} has no test {number}")
        header = self.headers[bar]
        offset, data = header.offset.read(), header.data.read()
        write = getattr(self.device.bar(bar), WRITERS[header.width.read()])
        for _ in range(writes):
            write(offset, data)
        letters = bytes(letter.read() for letter in header.name)
        name = letters.partition(b"\0")[0].decode("ascii", "replace")
        return Outcome(bar, name, writes, header.count.read())

    def self_test(self) -> None:
        """Run the test that counts every write, on memory and on I/O ports."""
        for bar in (0, 1):
            result = self.run(bar, 0)
            self.require(result.counted == result.writes, f"writes were lost: {result}")

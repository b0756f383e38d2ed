"""A driver for the PCI-IDIO-16 card that reacts to its inputs (ACCES PCI-IDIO-16 User Manual)."""

from uspace_drivers.idio16.registers import Idio16Registers
from uspace_drv import Driver, PciId, RegisterValueError, interrupt


class Idio16(Driver):
    """A card with 16 isolated inputs and 16 outputs, number 0 in bit 0 (ACCES PCI-IDIO-16)."""

    id_table = [PciId(0x494F, 0x0DC8)]

    def probe(self) -> None:
        """Take the card as it is, and let changes of the inputs interrupt."""
        self.registers = Idio16Registers(self.device.bar(2))
        status = self.registers.interrupt_status.read()
        self.require(status.raw <= 7, f"not a PCI-IDIO-16: {status}")
        self.changes = 0
        self.remove()
        self.registers.deactivate_filters.write(0)
        self.registers.enable_interrupt.read()

    def remove(self) -> None:
        """Let nothing interrupt any more; the outputs stay, machines hang on them."""
        self.registers.disable_interrupt.write(0)
        self.registers.clear_interrupt.write(0)

    @interrupt(0)
    def on_change(self) -> None:
        """Quiet the card and count."""
        if self.registers.interrupt_status.read().pending:
            self.registers.clear_interrupt.write(0)
            self.changes += 1

    def inputs(self) -> int:
        """Read all inputs."""
        return self.registers.inputs_low.read() | self.registers.inputs_high.read() << 8

    def outputs(self) -> int:
        """Read back all outputs."""
        return self.registers.outputs_low.read() | self.registers.outputs_high.read() << 8

    def set_outputs(self, value: int) -> None:
        """Write all outputs."""
        if not 0 <= value <= 0xFFFF:
            raise RegisterValueError(f"{self.device.address}: {value:#x} is not 16 outputs")
        self.registers.outputs_low.write(value & 0xFF)
        self.registers.outputs_high.write(value >> 8)

    def wait_for_change(self, seen: int = 0, timeout: float = 1.0) -> int:
        """Wait until the inputs changed more than `seen` times; how often they did by now."""
        message = f"no more than {seen} changes of the inputs"
        self.wait_until(lambda: self.changes > seen, timeout, message)
        return self.changes

    def self_test(self) -> None:
        """Write the outputs and read them back; where they are wired to the inputs, those too."""
        before, seen = self.outputs(), self.changes
        for pattern in (0x5AA5, 0xA55A):
            self.set_outputs(pattern)
            self.require(self.outputs() == pattern, f"outputs are {self.outputs():#06x}")
        if self.inputs() == 0xA55A:
            self.wait_for_change(seen)
        self.set_outputs(before)

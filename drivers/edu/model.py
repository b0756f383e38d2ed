"""A model of QEMU's edu device (QEMU docs/specs/edu.rst) that finishes everything at once."""

from math import factorial

from uspace_drivers.edu.registers import (
    BUFFER_OFFSET,
    BUFFER_SIZE,
    Cause,
    Command,
    EduRegisters,
    Status,
)
from uspace_drv import DeviceError, IrqKind
from uspace_drv.models import Bar, DeviceModel, PciIdentity, on_write


class EduModel(DeviceModel):
    """Factorials, liveness, interrupts, and DMA to and from a buffer of 4 KiB."""

    identity = PciIdentity(0x1234, 0x11E8, revision=0x10)
    bars = {0: Bar(EduRegisters, size=1 << 20)}
    irqs = {IrqKind.INTX: 1, IrqKind.MSI: 1}

    def power_on(self) -> None:
        self.buffer = bytearray(BUFFER_SIZE)
        self.set(EduRegisters.ident, major=1, magic=0xED)

    @on_write(EduRegisters.liveness)
    def invert(self, value: int) -> None:
        self.set(EduRegisters.liveness, value ^ 0xFFFF_FFFF)

    @on_write(EduRegisters.status)
    def set_status(self, value: Status) -> None:
        self.set(EduRegisters.status, irq_when_done=value.irq_when_done)

    @on_write(EduRegisters.factorial)
    def compute(self, value: int) -> None:
        # 34! is the first one that 2**32 divides; from there on the device gives 0 too.
        self.set(EduRegisters.factorial, factorial(value) & 0xFFFF_FFFF if value < 34 else 0)
        if self.get(EduRegisters.status).irq_when_done:
            self.raise_irq(Cause(factorial_done=True))

    @on_write(EduRegisters.irq_raise)
    def raise_irq(self, cause: Cause) -> None:
        self.set(EduRegisters.irq_status, self.get(EduRegisters.irq_status).raw | cause.raw)
        self.interrupts.send()
        self.interrupts.set_level(True)

    @on_write(EduRegisters.irq_acknowledge)
    def lower_irq(self, cause: Cause) -> None:
        left = self.get(EduRegisters.irq_status).raw & ~cause.raw
        self.set(EduRegisters.irq_status, left)
        self.interrupts.set_level(left != 0)

    @on_write(EduRegisters.dma_command)
    def transfer(self, command: Command) -> None:
        if not command.run:
            return
        size = self.get(EduRegisters.dma_count)
        if command.to_memory:
            place = self.place_in_buffer(self.get(EduRegisters.dma_source), size)
            self.write_memory(EduRegisters.dma_destination, bytes(self.buffer[place]))
        else:
            place = self.place_in_buffer(self.get(EduRegisters.dma_destination), size)
            self.buffer[place] = self.read_memory(EduRegisters.dma_source, size)
        self.set(EduRegisters.dma_command, command.replace(run=False))
        if command.irq_when_done:
            self.raise_irq(Cause(dma_done=True))

    def place_in_buffer(self, start: int, size: int) -> slice:
        first = start - BUFFER_OFFSET
        if first < 0 or first + size > BUFFER_SIZE:
            raise DeviceError(
                f"{self.name}: a transfer of {size:#x} bytes at {start:#x} is outside of the "
                f"device's buffer ({BUFFER_OFFSET:#x}, {BUFFER_SIZE:#x} bytes)"
            )
        return slice(first, first + size)

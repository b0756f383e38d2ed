"""A model of QEMU's edu device (QEMU docs/specs/edu.rst and hw/misc/edu.c)."""

from math import factorial

from uspace_drivers.edu.registers import (
    BUFFER_OFFSET,
    BUFFER_SIZE,
    Cause,
    Command,
    EduRegisters,
    Status,
)
from uspace_drv import DeviceError, IrqKind, NoDevice
from uspace_drv.models import Bar, DeviceModel, PciIdentity, on_write


class EduModel(DeviceModel):
    """Factorials, liveness, interrupts, and DMA to and from a buffer of 4 KiB.

    `dma_bits` is how many address bits it drives. A transfer takes `dma_delay` seconds (0.1 in
    QEMU) and a factorial `factorial_delay`; 0 is at once, which keeps tests fast.
    """

    identity = PciIdentity(0x1234, 0x11E8, revision=0x10, subvendor=0x1AF4, subdevice=0x1100)
    bars = {0: Bar(EduRegisters, size=1 << 20)}
    irqs = {IrqKind.INTX: 1, IrqKind.MSI: 1}

    def __init__(
        self,
        name: str | None = None,
        *,
        dma_bits: int = 28,
        dma_delay: float = 0.0,
        factorial_delay: float = 0.0,
    ) -> None:
        if not 1 <= dma_bits <= 64:
            raise NoDevice(f"{name or 'edu'}: dma_bits={dma_bits}: expected 1 to 64 address bits")
        if not min(dma_delay, factorial_delay) >= 0:  # nor is it what is no number
            raise NoDevice(f"{name or 'edu'}: a delay is a number of seconds, 0 or more")
        self.dma_mask = (1 << dma_bits) - 1
        self.dma_delay = dma_delay
        self.factorial_delay = factorial_delay
        super().__init__(name)

    def power_on(self) -> None:
        self.buffer = bytearray(BUFFER_SIZE)
        self.set(EduRegisters.ident, major=1, magic=0xED)

    @on_write(EduRegisters.liveness)
    def invert(self, value: int) -> None:
        self.set(EduRegisters.liveness, value ^ 0xFFFF_FFFF)

    @on_write(EduRegisters.status)
    def set_status(self, value: Status) -> None:
        status = self.get(EduRegisters.status)
        self.set(EduRegisters.status, status.replace(irq_when_done=value.irq_when_done))

    @on_write(EduRegisters.factorial)
    def compute(self, value: int) -> None:
        status = self.get(EduRegisters.status)
        if not status.computing:
            self.set(EduRegisters.factorial, value)
            self.set(EduRegisters.status, status.replace(computing=True))
            self.after(self.factorial_delay, self.finish_factorial)

    def finish_factorial(self) -> None:
        """Put n! where n was."""
        value, status = self.get(EduRegisters.factorial), self.get(EduRegisters.status)
        # 34! is the first one that 2**32 divides; from there on the device gives 0 too.
        self.set(EduRegisters.factorial, factorial(value) & 0xFFFF_FFFF if value < 34 else 0)
        self.set(EduRegisters.status, status.replace(computing=False))
        if status.irq_when_done:
            self.raise_irq(Cause(factorial_done=True))

    @on_write(EduRegisters.irq_raise)
    def raise_irq(self, cause: Cause) -> None:
        pending = self.get(EduRegisters.irq_status).raw | cause.raw
        self.set(EduRegisters.irq_status, pending)
        if pending:
            self.interrupts.send()
            self.interrupts.set_level(True)

    @on_write(EduRegisters.irq_acknowledge)
    def lower_irq(self, cause: Cause) -> None:
        left = self.get(EduRegisters.irq_status).raw & ~cause.raw
        self.set(EduRegisters.irq_status, left)
        self.interrupts.set_level(left != 0)

    @on_write(EduRegisters.dma_source)
    def set_source(self, address: int) -> None:
        if not self.get(EduRegisters.dma_command).run:
            self.set(EduRegisters.dma_source, address)

    @on_write(EduRegisters.dma_destination)
    def set_destination(self, address: int) -> None:
        if not self.get(EduRegisters.dma_command).run:
            self.set(EduRegisters.dma_destination, address)

    @on_write(EduRegisters.dma_count)
    def set_count(self, size: int) -> None:
        if not self.get(EduRegisters.dma_command).run:
            self.set(EduRegisters.dma_count, size)

    @on_write(EduRegisters.dma_command)
    def start_transfer(self, command: Command) -> None:
        if command.run and not self.get(EduRegisters.dma_command).run:
            self.set(EduRegisters.dma_command, command)
            self.after(self.dma_delay, self.finish_transfer)

    def finish_transfer(self) -> None:
        """Copy, and say that it is done; an address or size that is wrong ends it, too."""
        command = self.get(EduRegisters.dma_command)
        self.set(EduRegisters.dma_command, command.replace(run=False))
        self.copy(command, self.get(EduRegisters.dma_count))
        if command.irq_when_done:
            self.raise_irq(Cause(dma_done=True))

    def copy(self, command: Command, size: int) -> None:
        """One of both addresses is the buffer's, the other one is clamped to what is driven."""
        source, destination = EduRegisters.dma_source, EduRegisters.dma_destination
        if command.to_memory:
            place = self.place_in_buffer(self.get(source), size)
            address = self.get(destination) & self.dma_mask
            self.memory.write(address, bytes(self.buffer[place]), destination.label)
        else:
            place = self.place_in_buffer(self.get(destination), size)
            address = self.get(source) & self.dma_mask
            self.buffer[place] = self.memory.read(address, size, source.label)

    def place_in_buffer(self, start: int, size: int) -> slice:
        """Where in the buffer a transfer is, which must lie inside of it."""
        first = start - BUFFER_OFFSET
        if first < 0 or first + size > BUFFER_SIZE:
            raise DeviceError(
                f"{self.name}: a transfer of {size:#x} bytes at {start:#x} is outside of the "
                f"device's buffer ({BUFFER_OFFSET:#x}, {BUFFER_SIZE:#x} bytes)"
            )
        return slice(first, first + size)

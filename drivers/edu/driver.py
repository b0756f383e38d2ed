"""A driver for QEMU's edu device (QEMU docs/specs/edu.rst)."""

from uspace_drivers.edu.registers import (
    BUFFER_OFFSET,
    TRANSFER_LIMIT,
    Cause,
    Command,
    EduRegisters,
    Ident,
    Status,
)
from uspace_drv import Deadline, Direction, Driver, PciId, RegisterValueError, publish


class Edu(Driver):
    """A device that computes factorials and copies memory (QEMU's teaching device)."""

    id_table = [PciId(0x1234, 0x11E8)]
    dma_bits = 28

    def probe(self) -> None:
        """Check that it is an edu device and switch its interrupt on."""
        self.registers = EduRegisters(self.device.bar(0))
        ident = self.registers.ident.read()
        self.require(ident.magic == 0xED, f"not an edu device: {ident}")
        self._quiet()  # it has no reset: whoever had it before may have left an interrupt pending
        self.done = self.device.irq(0)

    def remove(self) -> None:
        """Stop it from raising interrupts."""
        self._quiet()

    def identify(self) -> Ident:
        """Say which version it is."""
        return self.registers.ident.read()

    def is_alive(self, value: int = 0x12345678) -> bool:
        """Write a number and see it come back inverted."""
        self.registers.liveness.write(value)
        return self.registers.liveness.read() == value ^ 0xFFFF_FFFF

    def factorial(self, n: int, timeout: float = 1.0) -> int:
        """Compute n! modulo 2**32."""
        self.registers.status.write(irq_when_done=True)
        self.registers.factorial.write(n)
        self._wait_for(Cause(factorial_done=True), timeout)
        self.registers.status.wait(computing=False, timeout=timeout)
        return self.registers.factorial.read()

    def store(self, data: bytes, timeout: float = 1.0) -> None:
        """Copy up to 4095 bytes into the device's buffer by DMA."""
        with self.device.dma.alloc("u1", len(data), Direction.TO_DEVICE) as memory:
            memory.array[:] = memoryview(data)
            self._transfer(memory.iova, BUFFER_OFFSET, len(data), Command(run=True), timeout)

    def load(self, size: int = TRANSFER_LIMIT, timeout: float = 1.0) -> bytes:
        """Copy the first bytes of the device's buffer out by DMA."""
        with self.device.dma.alloc("u1", size, Direction.FROM_DEVICE) as memory:
            command = Command(run=True, to_memory=True)
            self._transfer(BUFFER_OFFSET, memory.iova, size, command, timeout)
            return memory.array.tobytes()

    def self_test(self) -> None:
        """Try registers, interrupt, and DMA both ways."""
        self.require(self.is_alive(), "the liveness register does not invert")
        self.require(self.factorial(10) == 3628800, "10! is wrong")
        pattern = bytes(n & 0xFF for n in range(TRANSFER_LIMIT))
        self.store(pattern)
        self.require(self.load() == pattern, "DMA did not bring back what it took")

    def _quiet(self) -> None:
        """Raise no more interrupts, and lower what is raised."""
        self.registers.status.write(Status())
        self.registers.irq_acknowledge.write(self.registers.irq_status.read())

    def _transfer(
        self, source: int, destination: int, size: int, command: Command, timeout: float
    ) -> None:
        if size > TRANSFER_LIMIT:
            raise RegisterValueError(
                f"{self.device.address}: {size} bytes are more than one transfer's {TRANSFER_LIMIT}"
            )
        self.registers.dma_source.write(source)
        self.registers.dma_destination.write(destination)
        self.registers.dma_count.write(size)
        publish(self.registers.dma_command, command.replace(irq_when_done=True))
        self._wait_for(Cause(dma_done=True), timeout)
        self.registers.dma_command.wait(run=False, timeout=timeout)

    def _wait_for(self, cause: Cause, timeout: float) -> None:
        """Wait for an interrupt with this cause; others, and stale ones, are acknowledged."""
        deadline = Deadline(timeout)
        seen = 0
        while not seen & cause.raw:
            self.done.wait(deadline)
            pending = self.registers.irq_status.read()
            self.registers.irq_acknowledge.write(pending)
            seen |= pending.raw

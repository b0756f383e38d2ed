"""The registers of QEMU's edu device (QEMU docs/specs/edu.rst, "MMIO area spec")."""

from uspace_drv import Register, RegisterBlock, bit, field, ro, rw, wo


class Ident(Register):
    """Identification."""

    major = field(31, 24, "major version")
    minor = field(23, 16, "minor version")
    magic = field(7, 0, "0xED")


class Status(Register):
    """What the factorial unit does."""

    irq_when_done = bit(7, "raise an interrupt when it is finished")
    computing = bit(0, "a factorial is in progress")


class Cause(Register):
    """Why an interrupt was raised."""

    dma_done = bit(8, "a transfer is finished")
    factorial_done = bit(0, "a factorial is finished")


class Command(Register, width=64):
    """Start a DMA transfer."""

    irq_when_done = bit(2, "raise an interrupt when it is finished")
    to_memory = bit(1, "from the device to memory, else the other way")
    run = bit(0, "start; reads 1 until it is finished")


class EduRegisters(RegisterBlock, size=0x100):
    """BAR 0."""

    ident = ro(0x00, Ident)
    liveness = rw(0x04, "reads back inverted")
    factorial = rw(0x08, "n, then n!")
    status = rw(0x20, Status)
    irq_status = ro(0x24, Cause)
    irq_raise = wo(0x60, Cause, "raise these")
    irq_acknowledge = wo(0x64, Cause, "clear these")
    dma_source = rw(0x80, width=64)
    dma_destination = rw(0x88, width=64)
    dma_count = rw(0x90, "bytes", width=64)
    dma_command = rw(0x98, Command)


BUFFER_OFFSET = 0x40000
"""Where DMA finds the device's own memory."""

BUFFER_SIZE = 4096

TRANSFER_LIMIT = BUFFER_SIZE - 1
"""The most that one transfer may take: QEMU 7.2 ends the whole machine when one touches the
buffer's last byte (hw/misc/edu.c, edu_check_range), though it lies inside."""

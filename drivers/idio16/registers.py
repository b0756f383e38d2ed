"""The registers of the PCI-IDIO-16 (ACCES PCI-IDIO-16 User Manual, chapter 4)."""

from uspace_drv import Register, RegisterBlock, bit, ro, rw, wo


class InterruptStatus(Register, width=8):
    """Why an interrupt was raised (Linux drivers/gpio/gpio-pci-idio-16.c)."""

    pending = bit(2, "the card asserts its interrupt")
    high_changed = bit(1, "an input of 8 to 15")
    low_changed = bit(0, "an input of 0 to 7")


class Idio16Registers(RegisterBlock, size=8):
    """BAR 2, I/O ports; a read and a write of the same port are often two different things."""

    outputs_low = rw(0x00, "outputs 0 to 7", width=8)
    inputs_low = ro(0x01, "inputs 0 to 7", width=8)
    clear_interrupt = wo(0x01, "any value", width=8)
    enable_interrupt = ro(0x02, "a read lets changes interrupt", width=8, side_effects=True)
    disable_interrupt = wo(0x02, "any value", width=8)
    activate_filters = ro(0x03, "a read filters all inputs", width=8, side_effects=True)
    deactivate_filters = wo(0x03, "any value", width=8)
    outputs_high = rw(0x04, "outputs 8 to 15", width=8)
    inputs_high = ro(0x05, "inputs 8 to 15", width=8)
    interrupt_status = ro(0x06, InterruptStatus)
    filters_low = rw(0x07, "filters of inputs 0 to 7, one by one", width=8)

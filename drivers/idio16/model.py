"""A model of the PCI-IDIO-16, which Linux has a driver for (ACCES User Manual, chapter 4)."""

from uspace_drivers.idio16.registers import Idio16Registers, InterruptStatus
from uspace_drv import IrqKind
from uspace_drv.models import Bar, BarKind, DeviceModel, PciIdentity, on_read, on_write


class Idio16Model(DeviceModel):
    """Outputs, inputs, and an interrupt when an input changes.

    `loopback`: each output is wired to the input of its number. Filters are kept and do nothing.
    """

    identity = PciIdentity(0x494F, 0x0DC8, class_code=0x118000)
    # BARs 0 and 1 of the card belong to its bus bridge, which no driver touches.
    bars = {2: Bar(Idio16Registers, size=8, kind=BarKind.PORTS)}
    irqs = {IrqKind.INTX: 1}

    def __init__(self, name: str | None = None, *, loopback: bool = False) -> None:
        self.loopback = loopback
        self.inputs = 0
        super().__init__(name)

    def power_on(self) -> None:
        self.enabled = False
        if self.loopback:
            self.inputs = 0

    @property
    def outputs(self) -> int:
        """All 16 outputs, output 0 in bit 0."""
        return self.get(Idio16Registers.outputs_low) | self.get(Idio16Registers.outputs_high) << 8

    def drive(self, inputs: int) -> None:
        """Put these levels on the 16 inputs, from any thread."""
        with self.quiesce():
            changed = self.inputs ^ inputs
            self.inputs = inputs
            if changed and self.enabled:
                status = self.get(Idio16Registers.interrupt_status)
                low, high = status.low_changed, status.high_changed
                self.set(
                    Idio16Registers.interrupt_status,
                    pending=True,
                    low_changed=low or changed & 0x00FF != 0,
                    high_changed=high or changed & 0xFF00 != 0,
                )
                self.interrupts.set_level(True)

    @on_read(Idio16Registers.inputs_low)
    def read_low(self) -> int:
        return self.inputs & 0xFF

    @on_read(Idio16Registers.inputs_high)
    def read_high(self) -> int:
        return self.inputs >> 8

    @on_write(Idio16Registers.outputs_low)
    def write_low(self, value: int) -> None:
        self.set(Idio16Registers.outputs_low, value)
        self.follow_wires()

    @on_write(Idio16Registers.outputs_high)
    def write_high(self, value: int) -> None:
        self.set(Idio16Registers.outputs_high, value)
        self.follow_wires()

    def follow_wires(self) -> None:
        """Let the inputs see the outputs, where they are wired."""
        if self.loopback:
            self.drive(self.outputs)

    @on_read(Idio16Registers.enable_interrupt)
    def enable(self) -> int:
        self.enabled = True
        return 0

    @on_write(Idio16Registers.disable_interrupt)
    def disable(self, _: int) -> None:
        self.enabled = False

    @on_write(Idio16Registers.clear_interrupt)
    def clear(self, _: int) -> None:
        self.set(Idio16Registers.interrupt_status, InterruptStatus())
        self.interrupts.set_level(False)

    @on_read(Idio16Registers.activate_filters)
    def filter_all(self) -> int:
        self.set(Idio16Registers.filters_low, 0xFF)
        return 0

    @on_write(Idio16Registers.deactivate_filters)
    def filter_none(self, _: int) -> None:
        self.set(Idio16Registers.filters_low, 0)

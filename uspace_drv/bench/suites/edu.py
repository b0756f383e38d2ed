"""QEMU's edu device as something that interrupts when told to (QEMU docs/specs/edu.rst)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from uspace_drv.attachment import attach
from uspace_drv.backends.vfio import VfioDevice
from uspace_drv.bench.lending import refuse_model
from uspace_drv.bench.suites.bell import BellProcess
from uspace_drv.bench.suites.processors import Place
from uspace_drv.driver import Driver
from uspace_drv.irq import Irq
from uspace_drv.opening import open_backend
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.ids import PciId
from uspace_drv.pci.sysfs import DEVICES, PciBus
from uspace_drv.port import Backend, IrqKind
from uspace_drv.registers import RegisterBlock, ro, wo

RAISE = 0x60


class Registers(RegisterBlock, size=0x100):
    """What of BAR 0 is used."""

    irq_status = ro(0x24, "why the interrupt is raised")
    irq_raise = wo(RAISE, "raise it for these reasons")
    irq_acknowledge = wo(0x64, "clear these")


class InterruptingEdu(Driver):
    """Takes an edu device's interrupts and does nothing else."""

    id_table = [PciId(0x1234, 0x11E8)]

    def probe(self) -> None:
        """Switch the interrupt on, with nothing pending."""
        self.registers = Registers(self.device.bar(0))
        self._lower()
        self.done = self.device.irq()

    def remove(self) -> None:
        """Leave it quiet."""
        self._lower()

    def quiet(self) -> None:
        """Lower what is raised, and arm INTx again: that is not part of the next wait."""
        self._lower()
        if self.done.kind is IrqKind.INTX:
            self.done.unmask()

    def _lower(self) -> None:
        self.registers.irq_acknowledge.write(self.registers.irq_status.read())


@dataclass(frozen=True)
class OpenEdu:
    """A device that is open, and the process that makes it interrupt."""

    driver: InterruptingEdu
    bell: BellProcess

    @property
    def irq(self) -> Irq:
        """Its interrupt."""
        return self.driver.done


def is_edu(address: str) -> bool:
    """Whether that function is one; `NoDevice` for a model or a mistyped address."""
    refuse_model(address)
    ids = PciBus().function(PciAddress.parse(address)).ids
    return any(each.matches(ids) for each in InterruptingEdu.id_table)


@contextmanager
def open_edu(
    address: str, via: str | None, kind: IrqKind | None, place: Place, delay: float
) -> Iterator[OpenEdu]:
    """Open a bound function; the other process writes to the same registers."""
    with ExitStack() as stack:
        backend = open_backend(address, via=via)
        stack.callback(backend.close)  # attach() does it too; here, should it fail before
        driver = stack.enter_context(attach(backend, InterruptingEdu, irq_kind=kind))
        fd, start = _registers_of(backend, stack)
        bell = BellProcess(fd, processor=place.theirs, delay=delay, place=(start, RAISE))
        yield OpenEdu(driver, stack.enter_context(bell))


def _registers_of(backend: Backend, stack: ExitStack) -> tuple[int, int]:
    """Return a file, and where in it BAR 0 begins."""
    if isinstance(backend, VfioDevice):
        return backend.fd, backend.regions.info(0).offset
    fd = os.open(f"{DEVICES}/{backend.address}/resource0", os.O_RDWR | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd, 0

"""Interrupts of a model behave as through VFIO: levels are masked when they fire, messages not."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from uspace_drv import BusyError, IrqKind, UnsupportedError
from uspace_drv.eventfd import SharedEventFd
from uspace_drv.models import Bar, Msi, Msix, PciIdentity
from uspace_drv.models.config import ModelConfig
from uspace_drv.models.interrupts import ModelIrqs
from uspace_drv.models.msix import MsixTable
from uspace_drv.pci.capability_registers import Msi64Registers, MsixRegisters
from uspace_drv.pci.config import ConfigHeader


class Function:
    """Interrupts, and the configuration space and table that hold them back."""

    def __init__(self) -> None:
        self.irq_counts = {IrqKind.INTX: 1, IrqKind.MSI: 4, IrqKind.MSIX: 4}
        self.config = ModelConfig(
            PciIdentity(1, 2), {0: Bar(size=4096)}, self.irq_counts, [Msi(maskable=True)]
        )
        self.table = MsixTable(Msix(0, 0, 0x800), 4, threading.RLock())
        self.irqs = ModelIrqs("bell", self.config, self.table)
        self.set_bus_master(True)

    def set_bus_master(self, on: bool) -> None:
        self.config.write(0x04, 2, 4 * on)


@pytest.fixture
def function() -> Iterator[Function]:
    function = Function()
    yield function
    function.irqs.close()


@pytest.fixture
def irqs(function: Function) -> ModelIrqs:
    return function.irqs


def test_a_level_fires_once_and_again_on_unmask(irqs: ModelIrqs) -> None:
    line = irqs.line(IrqKind.INTX, 0)
    irqs.set_level(True)
    irqs.set_level(True)
    assert (line.take(), line.take()) == (1, 0)
    line.unmask()
    assert line.take() == 1  # the driver did not quiet the cause
    irqs.set_level(False)
    line.unmask()
    assert line.take() == 0
    irqs.set_level(True)
    assert line.take() == 1


def test_a_level_that_fired_is_masked_even_if_it_goes_down_and_up(irqs: ModelIrqs) -> None:
    line = irqs.line(IrqKind.INTX, 0)
    for level in (True, False, True):
        irqs.set_level(level)
    assert line.take() == 1
    line.unmask()
    assert line.take() == 1


def test_a_level_that_is_up_fires_when_it_is_switched_on(irqs: ModelIrqs) -> None:
    irqs.set_level(True)
    assert irqs.line(IrqKind.INTX, 0).take() == 1


def test_a_masked_level_waits(irqs: ModelIrqs) -> None:
    line = irqs.line(IrqKind.INTX, 0)
    line.mask()
    irqs.set_level(True)
    assert line.take() == 0
    line.unmask()
    assert line.take() == 1


def test_messages_are_counted_each_by_its_own(irqs: ModelIrqs) -> None:
    first, third = irqs.line(IrqKind.MSI, 0), irqs.line(IrqKind.MSI, 2)
    irqs.send()
    irqs.send()
    irqs.send(2)
    irqs.send(1)  # nobody has switched it on
    irqs.set_level(True)  # not how it signals now
    assert (first.take(), third.take()) == (2, 1)
    assert irqs.kind is IrqKind.MSI


def test_a_message_is_lost_while_the_function_may_not_write(
    function: Function, irqs: ModelIrqs
) -> None:
    line = irqs.line(IrqKind.MSI, 0)
    function.set_bus_master(False)
    irqs.send()
    assert line.take() == 0


def test_a_message_is_not_sent_on_intx(irqs: ModelIrqs) -> None:
    line = irqs.line(IrqKind.INTX, 0)
    irqs.send()
    assert line.take() == 0


def test_messages_cannot_be_masked(irqs: ModelIrqs) -> None:
    with pytest.raises(UnsupportedError, match="bell: msix cannot be masked; INTx can"):
        irqs.line(IrqKind.MSIX, 0).mask()


def test_one_kind_at_a_time_and_each_once(irqs: ModelIrqs) -> None:
    line = irqs.line(IrqKind.MSI, 0)
    with pytest.raises(BusyError, match="bell: msi is on; close it before intx"):
        irqs.line(IrqKind.INTX, 0)
    with pytest.raises(BusyError, match="bell: msi 0 is on already"):
        irqs.line(IrqKind.MSI, 0)
    line.close()
    line.close()
    assert irqs.kind is IrqKind.INTX
    irqs.line(IrqKind.INTX, 0)


def test_config_says_what_is_on(function: Function, irqs: ModelIrqs) -> None:
    line = irqs.line(IrqKind.MSIX, 1)
    seen = [function.config.is_msix_enabled]
    assert [function.table.is_masked(index) for index in range(4)] == [True, False, True, True]
    line.close()
    seen.append(function.config.is_msix_enabled)
    assert seen == [True, False]
    assert function.table.is_masked(1)


@pytest.mark.parametrize("kind", [IrqKind.MSI, IrqKind.MSIX])
def test_what_the_client_masks_waits_and_fires_once(irqs: ModelIrqs, kind: IrqKind) -> None:
    line = irqs.line(kind, 2)
    irqs.set_masked(kind, 2, True)
    irqs.send(2)
    irqs.send(2)
    assert line.take() == 0
    irqs.set_masked(kind, 2, False)
    irqs.set_masked(kind, 2, False)
    assert line.take() == 1


def test_msi_mask_and_pending_bits(function: Function, irqs: ModelIrqs) -> None:
    follow(function)
    line = irqs.line(IrqKind.MSI, 3)
    function.config.write(MSI_MASK, 4, 0xFFFF_FFFF)
    assert function.config.read(MSI_MASK, 4) == 0xF
    irqs.send(3)
    assert (line.take(), function.config.read(MSI_PENDING, 4)) == (0, 8)
    function.config.write(MSI_MASK, 4, 0b0111)
    assert (line.take(), function.config.read(MSI_PENDING, 4)) == (1, 0)


def test_msix_vector_mask_and_pending_bits(function: Function, irqs: ModelIrqs) -> None:
    function.table.on_change(irqs.refresh)
    lines = [irqs.line(IrqKind.MSIX, index) for index in range(4)]
    write_table(function, 2, masked=True)
    for index in range(4):
        irqs.send(index)
    assert ([line.take() for line in lines], pending(function)) == ([1, 1, 0, 1], 0b0100)
    write_table(function, 2, masked=False)
    assert ([line.take() for line in lines], pending(function)) == ([0, 0, 1, 0], 0)


def test_msix_function_mask(function: Function, irqs: ModelIrqs) -> None:
    follow(function)
    line = irqs.line(IrqKind.MSIX, 0)
    function.config.write(MSIX_CONTROL, 2, 0xC000)
    irqs.send()
    assert (line.take(), pending(function)) == (0, 1)
    function.config.write(MSIX_CONTROL, 2, 0x8000)
    assert (line.take(), pending(function)) == (1, 0)


def test_a_vector_that_nobody_asked_for_waits_if_msix_is_on(
    function: Function, irqs: ModelIrqs
) -> None:
    irqs.send(1)
    assert pending(function) == 0
    irqs.line(IrqKind.MSIX, 0)
    irqs.send(1)
    irqs.send(99)
    assert pending(function) == 0b10
    assert irqs.line(IrqKind.MSIX, 1).take() == 1


def test_intx_can_be_disabled_in_config(function: Function, irqs: ModelIrqs) -> None:
    follow(function)
    line = irqs.line(IrqKind.INTX, 0)
    function.config.write(0x04, 2, 0x0404)
    irqs.set_level(True)
    assert (line.take(), function.config.read(0x06, 2) & 8) == (0, 8)
    function.config.write(0x04, 2, 0x0004)
    assert line.take() == 1
    irqs.set_level(False)
    assert function.config.read(0x06, 2) & 8 == 0


def test_line_of_a_client_signals_its_eventfd_and_is_replaced(irqs: ModelIrqs) -> None:
    first, second = (os.eventfd(0, os.EFD_CLOEXEC) for _ in range(2))
    ours = os.dup(second)
    irqs.line(IrqKind.MSI, 0, SharedEventFd(first))
    line = irqs.line(IrqKind.MSI, 0, SharedEventFd(second))
    irqs.send()
    irqs.send()
    assert os.eventfd_read(ours) == 2
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(first)
    line.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(second)
    os.close(ours)


def test_eventfd_that_is_full_blocks_nobody(irqs: ModelIrqs) -> None:
    full = os.eventfd(0, os.EFD_CLOEXEC)
    os.eventfd_write(full, 2**64 - 2)
    irqs.line(IrqKind.MSI, 0, SharedEventFd(full))
    irqs.send()


def test_reset_forgets_what_waits(function: Function, irqs: ModelIrqs) -> None:
    line = irqs.line(IrqKind.MSIX, 0)
    irqs.set_masked(IrqKind.MSIX, 0, True)
    irqs.send()
    irqs.reset()
    irqs.set_masked(IrqKind.MSIX, 0, False)
    assert (line.take(), pending(function)) == (0, 0)


MSI_MASK, MSI_PENDING, MSIX_CONTROL = 0x50, 0x54, 0x5A
"""MSI is at 0x40 and MSI-X at 0x58 (PCI Express Base Specification 6.0, 7.7.1 and 7.7.2)."""


def follow(function: Function) -> None:
    config, irqs = function.config, function.irqs
    config.watch(ConfigHeader.command, irqs.refresh)
    config.watch(Msi64Registers.mask_bits, irqs.refresh, 0x40)
    config.watch(MsixRegisters.control, irqs.refresh, 0x58)


def write_table(function: Function, index: int, *, masked: bool) -> None:
    found = function.table.space_at(0, 16 * index + 12)
    assert found is not None
    found[0].write(found[1], 4, int(masked))


def pending(function: Function) -> int:
    found = function.table.space_at(0, 0x800)
    assert found is not None
    return found[0].read(found[1], 8)

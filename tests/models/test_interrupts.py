"""Interrupts of a model behave as through VFIO: levels are masked when they fire, messages not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from uspace_drv import BusyError, IrqKind, UnsupportedError
from uspace_drv.models.interrupts import ModelIrqs


class Master:
    """Whether the function may send."""

    on = True

    def __call__(self) -> bool:
        return self.on


@pytest.fixture
def master() -> Master:
    return Master()


@pytest.fixture
def irqs(master: Master) -> Iterator[ModelIrqs]:
    irqs = ModelIrqs("bell", master)
    yield irqs
    for line in list(irqs._lines.values()):
        line.close()


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
    irqs: ModelIrqs, master: Master
) -> None:
    line = irqs.line(IrqKind.MSI, 0)
    master.on = False
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

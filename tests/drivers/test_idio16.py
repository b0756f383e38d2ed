"""The PCI-IDIO-16 driver on its model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from uspace_drivers.idio16 import Idio16, Idio16Model, Idio16Registers
from uspace_drv import DeviceTimeout, RegisterValueError, attach
from uspace_drv.testing import CHECKS, Check, Target


class Wired(Idio16Model):
    """Its outputs drive its inputs."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name, loopback=True)


@pytest.fixture
def model() -> Idio16Model:
    return Idio16Model("card")


@pytest.fixture
def card(model: Idio16Model) -> Iterator[Idio16]:
    with attach(model, Idio16) as driver:
        yield driver


def test_registers_are_where_the_manual_says() -> None:
    table = {(each.name, each.offset, each.access.value) for each in Idio16Registers.registers()}
    assert table == {
        ("outputs_low", 0, "rw"),
        ("inputs_low", 1, "ro"),
        ("clear_interrupt", 1, "wo"),
        ("enable_interrupt", 2, "ro"),
        ("disable_interrupt", 2, "wo"),
        ("activate_filters", 3, "ro"),
        ("deactivate_filters", 3, "wo"),
        ("outputs_high", 4, "rw"),
        ("inputs_high", 5, "ro"),
        ("interrupt_status", 6, "ro"),
        ("filters_low", 7, "rw"),
    }


def test_outputs_reach_the_card(model: Idio16Model, card: Idio16) -> None:
    card.set_outputs(0xBEEF)
    assert (card.outputs(), model.outputs) == (0xBEEF, 0xBEEF)
    with pytest.raises(RegisterValueError, match="0x10000 is not 16 outputs"):
        card.set_outputs(0x10000)


@pytest.mark.parametrize("inputs", [0x0001, 0x8000, 0xFFFF])
def test_an_input_that_changes_interrupts(model: Idio16Model, card: Idio16, inputs: int) -> None:
    model.drive(inputs)
    assert card.wait_for_change(0, 10.0) == 1
    assert card.inputs() == inputs
    model.drive(0)
    assert card.wait_for_change(1, 10.0) == 2
    assert card.inputs() == 0


def test_an_input_that_does_not_change_is_waited_for_in_vain(card: Idio16) -> None:
    with pytest.raises(DeviceTimeout, match=r"card: no more than 0 changes .* within 0\.010 s"):
        card.wait_for_change(0, 0.01)


@pytest.mark.parametrize(("inputs", "status"), [(0x0100, 0b110), (0x0001, 0b101), (0x0101, 0b111)])
def test_status_says_which_byte_changed(model: Idio16Model, inputs: int, status: int) -> None:
    """Linux's driver takes an interrupt for its own only if bit 2 and one of the others are set."""
    assert model.read_bar(2, 2, 1) == 0  # enables
    model.drive(inputs)
    assert model.read_bar(2, 6, 1) == status
    assert model.config.read(6, 2) & 8  # an INTx is pending
    model.write_bar(2, 1, 1, 0)
    assert (model.read_bar(2, 6, 1), model.config.read(6, 2) & 8) == (0, 0)


def test_no_interrupt_unless_enabled(model: Idio16Model) -> None:
    model.drive(1)
    model.read_bar(2, 2, 1)
    model.write_bar(2, 2, 1, 0)
    model.drive(2)
    assert model.read_bar(2, 6, 1) == 0


def test_filters_can_be_read_back(model: Idio16Model) -> None:
    seen = []
    model.read_bar(2, 3, 1)
    seen.append(model.read_bar(2, 7, 1))
    model.write_bar(2, 3, 1, 0)
    seen.append(model.read_bar(2, 7, 1))
    model.write_bar(2, 7, 1, 0x12)
    seen.append(model.read_bar(2, 7, 1))
    assert seen == [0xFF, 0, 0x12]


def test_wires_carry_outputs_to_inputs() -> None:
    with attach(Wired(), Idio16) as card:
        card.set_outputs(0x0180)
        assert card.wait_for_change(0, 10.0) >= 1
        assert card.inputs() == 0x0180
        card.self_test()


@pytest.mark.parametrize("model", [Idio16Model, Wired])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conforms(check: Check, model: type[Idio16Model]) -> None:
    check(Idio16, Target(model=model))

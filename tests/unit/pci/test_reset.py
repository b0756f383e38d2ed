"""Which way the kernel resets a function: read and chosen in sysfs."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.unit.pci.fake_sysfs import EDU, FakeMachine
from uspace_drv.errors import HostError, RegisterValueError, UnsupportedError
from uspace_drv.pci.reset import choose_reset_methods, reset_methods

METHODS = f"/sys/bus/pci/devices/{EDU}/reset_method"


class ResettableMachine(FakeMachine):
    """edu can be reset by itself and by its bus (drivers/pci/pci-sysfs.c, reset_method_store)."""

    refusal = errno.EINVAL

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.function(EDU)

    def write(self, path: str, text: str) -> None:
        if path != METHODS:
            return super().write(path, text)
        words = text.split()
        if set(words) - {"flr", "bus", "default"}:
            raise HostError(path, cause=OSError(self.refusal, os.strerror(self.refusal)))
        return self.file(path, "flr bus\n" if words == ["default"] else text)


@pytest.fixture
def machine(tmp_path: Path) -> ResettableMachine:
    return ResettableMachine(tmp_path)


@pytest.mark.parametrize("wanted", [("bus",), ("bus", "flr"), ()])
def test_choice(machine: ResettableMachine, wanted: tuple[str, ...]) -> None:
    assert reset_methods(EDU, bus=machine.bus) == ("flr", "bus")
    assert choose_reset_methods(EDU, wanted, bus=machine.bus) == wanted
    assert reset_methods(EDU, bus=machine.bus) == wanted
    assert choose_reset_methods(EDU, ["default"], bus=machine.bus) == ("flr", "bus")


def test_method_that_the_function_does_not_have(machine: ResettableMachine) -> None:
    with pytest.raises(UnsupportedError, match="has not all of flr, pm; it has flr, bus"):
        choose_reset_methods(EDU, ["flr", "pm"], bus=machine.bus)


def test_method_that_nobody_has(machine: ResettableMachine) -> None:
    with pytest.raises(RegisterValueError, match=r"no reset method kick; Linux has .*, flr, "):
        choose_reset_methods(EDU, ["flr", "kick"], bus=machine.bus)


def test_function_that_cannot_be_reset(machine: ResettableMachine) -> None:
    machine.path(METHODS).unlink()
    with pytest.raises(UnsupportedError, match=r"it has none, or Linux is before 5\.15"):
        choose_reset_methods(EDU, ["bus"], bus=machine.bus)


def test_without_the_right_to_choose(machine: ResettableMachine) -> None:
    machine.refusal = errno.EACCES
    with pytest.raises(HostError) as caught:
        choose_reset_methods(EDU, ["pm"], bus=machine.bus)
    assert caught.value.errno == errno.EACCES

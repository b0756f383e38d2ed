"""Killed between any two changes, `bind` and `restore` leave what `restore` needs to undo it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.pci.fake_sysfs import EDU, FakeMachine, Killed
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.binding import UIO, VFIO, Terms, bind, bind_group, restore, restore_all
from uspace_drv.pci.sriov import set_virtual_functions

SIBLING, NAKED, PHYSICAL = PciAddress(0, 0, 4, 1), PciAddress(0, 0, 5, 0), PciAddress(0, 1, 0, 0)
BRIDGE = PciAddress(0, 0, 4, 7)
MOST = 60
"""More changes than any of these actions makes."""

WATCHED = ("driver_override", "config", "sriov_numvfs", "sriov_drivers_autoprobe")


def machine_in(folder: Path) -> FakeMachine:
    machine = FakeMachine(folder)
    machine.has_cdevs = True
    machine.file("/dev/iommu")
    machine.file("/proc/sys/kernel/random/boot_id", "first\n")
    machine.function(EDU, driver="e1000e", group=14)
    machine.file(f"/sys/bus/pci/devices/{EDU}/driver_override", "e1000e\n")
    machine.function(SIBLING, driver="snd_hda_intel", group=14)
    machine.function(BRIDGE, driver="shpchp", group=14)
    machine.file(f"/sys/bus/pci/devices/{BRIDGE}/class", "0x060400\n")
    machine.function(NAKED, group=15)
    machine.set_bus_master(str(NAKED), True)
    machine.function(PHYSICAL, driver="igb", group=16)
    machine.sriov(PHYSICAL, 4)
    return machine


def state(machine: FakeMachine) -> dict[str, object]:
    """All that a user could notice."""
    found: dict[str, object] = {}
    for address in machine.bus.addresses():
        folder = f"/sys/bus/pci/devices/{address}"
        found[f"{address} driver"] = machine.link(f"{folder}/driver")
        for name in filter(lambda n: machine.exists(f"{folder}/{n}"), WATCHED):
            found[f"{address} {name}"] = machine.path(f"{folder}/{name}").read_bytes()
    for folder in ("/dev/vfio", "/dev/vfio/devices", "/etc/udev/rules.d", "/var/lib/uspace_drv"):
        found[folder] = [n for n in machine.names(folder) if n != "devices"]
    found["owners"] = {path: uid for path, uid in machine.owners.items() if machine.owner(path)}
    return found


def bind_for_a_user(machine: FakeMachine) -> None:
    bind(EDU, terms=Terms(user="1000", persist=True), bus=machine.bus)


def bind_the_group(machine: FakeMachine) -> None:
    bind_group(EDU, terms=Terms(user="1000"), bus=machine.bus)


def bind_what_has_no_driver(machine: FakeMachine) -> None:
    bind(NAKED, bus=machine.bus)


def bind_twice(machine: FakeMachine) -> None:
    bind(EDU, VFIO, Terms(user="1000", persist=True), bus=machine.bus)
    bind(EDU, UIO, Terms(user="1001"), bus=machine.bus)


def bind_a_virtual_function(machine: FakeMachine) -> None:
    first, _ = set_virtual_functions(PHYSICAL, 2, bus=machine.bus)
    bind(first, terms=Terms(user="1000", persist=True), bus=machine.bus)
    set_virtual_functions(PHYSICAL, 1, bus=machine.bus)


def bind_both_kinds_of_function(machine: FakeMachine) -> None:
    bind(PHYSICAL, terms=Terms(persist=True), bus=machine.bus)
    (virtual,) = set_virtual_functions(PHYSICAL, 1, bus=machine.bus)
    bind(virtual, terms=Terms(user="1000"), bus=machine.bus)


Action = Callable[[FakeMachine], None]
ACTIONS: list[Action] = [
    bind_for_a_user,
    bind_the_group,
    bind_what_has_no_driver,
    bind_twice,
    bind_a_virtual_function,
    bind_both_kinds_of_function,
]


def restore_everything(machine: FakeMachine) -> None:
    for result in restore_all(bus=machine.bus):
        if isinstance(result, Exception):
            raise result


def dies_after(machine: FakeMachine, lives: int, action: Action) -> bool:
    """Whether the process was killed; another one goes on, on what it left behind."""
    machine.changes, machine.lives = 0, lives
    try:
        action(machine)
    except Killed:
        return True
    finally:
        machine.lives = None
    return False


@pytest.mark.parametrize("action", ACTIONS)
def test_restore_undoes_a_bind_that_was_killed_anywhere(tmp_path: Path, action: Action) -> None:
    for lives in range(MOST):
        machine = machine_in(tmp_path / str(lives))
        before = state(machine)
        killed = dies_after(machine, lives, action)
        restore_everything(machine)
        assert state(machine) == before, f"killed after {lives} changes"
        if not killed:
            assert lives > 2
            return
    pytest.fail("it never ended")


@pytest.mark.parametrize("action", ACTIONS)
def test_restore_finishes_a_restore_that_was_killed_anywhere(
    tmp_path: Path, action: Action
) -> None:
    for lives in range(MOST):
        machine = machine_in(tmp_path / str(lives))
        before = state(machine)
        action(machine)
        killed = dies_after(machine, lives, restore_everything)
        restore_everything(machine)
        assert state(machine) == before, f"killed after {lives} changes"
        if not killed:
            assert lives > 2
            return
    pytest.fail("it never ended")


def test_killed_anywhere_and_killed_again_while_it_is_put_right(tmp_path: Path) -> None:
    for first in range(MOST):
        for second in range(MOST):
            machine = machine_in(tmp_path / f"{first}-{second}")
            before = state(machine)
            killed = dies_after(machine, first, bind_the_group)
            again = dies_after(machine, second, restore_everything)
            restore_everything(machine)
            assert state(machine) == before, f"killed after {first}, then after {second} changes"
            if not again:
                break
        if not killed:
            return
    pytest.fail("it never ended")


def test_a_second_bind_after_a_kill_still_knows_the_first_state(tmp_path: Path) -> None:
    for lives in range(MOST):
        machine = machine_in(tmp_path / str(lives))
        before = state(machine)
        killed = dies_after(machine, lives, bind_for_a_user)
        bind(EDU, UIO, bus=machine.bus)
        restore(EDU, bus=machine.bus)
        assert state(machine) == before, f"killed after {lives} changes"
        if not killed:
            return
    pytest.fail("it never ended")

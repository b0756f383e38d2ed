"""A device is handed to and fro, and is where it was afterwards, whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.pci.fake_sysfs import EDU, FakeMachine, Killed
from uspace_drv.bench.hand_over import HandOver, require_equal
from uspace_drv.errors import BusyError, HostError, NoDevice
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.binding import UIO, VFIO, Terms, bind, restore
from uspace_drv.pci.journal import Journal
from uspace_drv.pci.lock import lock_function

ADDRESS = str(EDU)
MOST = 60
"""More changes than a round of both sides makes."""


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    """edu bound to e1000e, alone in group 14."""
    machine = FakeMachine(tmp_path)
    machine.function(EDU, driver="e1000e", group=14)
    return machine


def driver(machine: FakeMachine) -> str | None:
    return machine.bus.driver_of(EDU)


def test_to_and_fro_and_back(machine: FakeMachine) -> None:
    with HandOver(ADDRESS, bus=machine.bus) as hand:
        assert (driver(machine), machine.writes) == ("e1000e", [])
        for _ in range(2):
            hand.to_user()
            assert driver(machine) == VFIO
            hand.to_kernel()
            assert driver(machine) == "e1000e"
        hand.to_user()
    assert driver(machine) == "e1000e"
    assert Journal(machine).addresses() == []


def test_what_is_so_already_is_left_alone(machine: FakeMachine) -> None:
    with HandOver(ADDRESS, bus=machine.bus) as hand:
        hand.to_kernel()
        assert machine.changes == 0
        hand.to_user()
        before = machine.changes
        hand.to_user()
        assert machine.changes == before


def test_through_uio(machine: FakeMachine) -> None:
    with HandOver(ADDRESS, "uio", bus=machine.bus) as hand:
        hand.to_user()
        assert driver(machine) == UIO
    assert driver(machine) == "e1000e"


def test_one_that_was_bound_is_bound_again_for_the_same_user(machine: FakeMachine) -> None:
    before = bind(EDU, terms=Terms(user="1000", persist=True), bus=machine.bus)
    entry, owners = Journal(machine).read(EDU), dict(machine.owners)
    with HandOver(ADDRESS, bus=machine.bus) as hand:
        hand.to_kernel()
        assert driver(machine) == "e1000e"
        hand.to_user()
        hand.to_kernel()
    assert (driver(machine), Journal(machine).read(EDU)) == (before.driver, entry)
    assert machine.owners == owners
    restore(EDU, bus=machine.bus)
    assert driver(machine) == "e1000e"


@pytest.mark.parametrize("error", [RuntimeError("in the middle"), KeyboardInterrupt()])
def test_back_after_an_error(machine: FakeMachine, error: BaseException) -> None:
    hand = HandOver(ADDRESS, bus=machine.bus)
    hand.__enter__()
    hand.to_user()
    hand.__exit__(type(error), error, None)
    assert driver(machine) == "e1000e"


def test_a_suite_that_is_closed_tells_that_it_cannot_go_back(machine: FakeMachine) -> None:
    """As the runner closes it after Ctrl-C: there is no error yet that could take a note."""

    def suite() -> Iterator[None]:
        with HandOver(ADDRESS, bus=machine.bus) as hand:
            hand.to_user()
            yield

    running = suite()
    next(running)
    machine.readonly = True
    with pytest.raises(HostError):
        running.close()  # type: ignore[attr-defined]


def test_one_in_use_is_refused_before_anything_changes(machine: FakeMachine) -> None:
    folder = machine.resolve(f"/sys/bus/pci/devices/{EDU}")
    machine.disk("sda", folder, "8:0")
    machine.mounts("22 1 8:0 / /data rw - ext4 /dev/sda rw")
    with (
        pytest.raises(BusyError, match=r"/data .* is mounted from it; leaving it to e1000e"),
        HandOver(ADDRESS, bus=machine.bus),
    ):
        raise AssertionError
    assert machine.changes == 0


def test_one_that_another_process_has_is_refused(machine: FakeMachine) -> None:
    with lock_function(EDU, machine), pytest.raises(BusyError):
        HandOver(ADDRESS, bus=machine.bus).__enter__()
    assert machine.changes == 0


def test_one_without_a_driver_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path)
    machine.function(EDU, group=14)
    with pytest.raises(HostError, match="drivers_probe"):
        HandOver(ADDRESS, bus=machine.bus).__enter__()


def test_one_that_waits_for_restore_is_refused(machine: FakeMachine) -> None:
    bind(EDU, bus=machine.bus)
    machine.write(f"/sys/bus/pci/devices/{EDU}/driver/unbind", ADDRESS)
    with pytest.raises(HostError, match=f"first run: uspace restore {ADDRESS}"):
        HandOver(ADDRESS, bus=machine.bus).__enter__()


def test_no_such_device(machine: FakeMachine) -> None:
    with pytest.raises(NoDevice):
        HandOver("0000:00:09.0", bus=machine.bus).__enter__()


def test_a_kernel_that_takes_it_no_more(machine: FakeMachine) -> None:
    """The failure on the way out is told, and the journal still knows where it belongs."""
    hand = HandOver(ADDRESS, bus=machine.bus)
    hand.__enter__()
    hand.to_user()
    machine.refusing.add("e1000e")
    with pytest.raises(HostError, match="e1000e refused it"):
        hand.__exit__(None, None, None)
    assert Journal(machine).addresses() == [EDU]
    machine.refusing.clear()
    restore(EDU, bus=machine.bus)
    assert driver(machine) == "e1000e"


def test_no_kernel_driver_comes_for_one_that_was_bound_by_hand(machine: FakeMachine) -> None:
    machine.write(f"/sys/bus/pci/devices/{EDU}/driver/unbind", ADDRESS)
    machine.file(f"/sys/bus/pci/devices/{EDU}/driver_override", "vfio-pci\n")
    machine.write(f"/sys/bus/pci/drivers/{VFIO}/bind", ADDRESS)
    machine.native.clear()
    hand = HandOver(ADDRESS, bus=machine.bus)
    hand.__enter__()
    with pytest.raises(HostError, match="no driver of the kernel took it"):
        hand.to_kernel()
    hand.__exit__(None, None, None)
    assert driver(machine) == VFIO


def test_killed_at_any_moment_it_is_restored(tmp_path: Path) -> None:
    for lives in range(MOST):
        machine = FakeMachine(tmp_path / str(lives))
        machine.function(EDU, driver="e1000e", group=14)
        machine.lives = lives
        try:
            with HandOver(ADDRESS, bus=machine.bus) as hand:
                hand.to_user()
                hand.to_kernel()
                hand.to_user()
        except Killed:
            machine.lives = None
            restore(EDU, bus=machine.bus)
        else:
            assert lives
            break
        assert driver(machine) == "e1000e", lives
        assert Journal(machine).addresses() == []
    else:
        raise AssertionError


def test_what_is_compared_is_equal_and_idle(tmp_path: Path) -> None:
    host = FakeMachine(tmp_path)
    one, two, other = (PciAddress(0, 0, slot, 0) for slot in (4, 5, 6))
    for address in (one, two):
        host.function(address, driver="nvme")
    host.function(other, driver="nvme", vendor=0x144D, device=0xA808)
    require_equal(str(one), str(two), bus=host.bus)
    with pytest.raises(HostError, match="is the device itself"):
        require_equal(str(one), str(one), bus=host.bus)
    with pytest.raises(HostError, match=r"144d:a808.*expected.*1234:11e8"):
        require_equal(str(one), str(other), bus=host.bus)
    host.disk("nvme1n1", host.resolve(f"/sys/bus/pci/devices/{two}"), "259:0")
    host.mounts("22 1 259:0 / /data rw - ext4 /dev/nvme1n1 rw")
    with pytest.raises(BusyError, match=r"/data .* is mounted from it"):
        require_equal(str(one), str(two), bus=host.bus)

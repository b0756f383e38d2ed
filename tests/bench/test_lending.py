from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.pci.fake_sysfs import EDU, FakeMachine
from uspace_drv.bench.installed import installed_suites
from uspace_drv.bench.lending import lent, open_lent, refuse_model
from uspace_drv.bench.setting import Setting
from uspace_drv.errors import BusyError, HostError, NoDevice, UspaceError
from uspace_drv.pci.binding import UIO, VFIO, bind
from uspace_drv.pci.journal import Journal


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path)


@pytest.mark.parametrize("driver", [None, "e1000e"])
def test_it_goes_back_to_where_it_was(machine: FakeMachine, driver: str | None) -> None:
    machine.function(EDU, driver=driver, group=14)
    with lent(EDU, VFIO, bus=machine.bus):
        assert machine.bus.driver_of(EDU) == VFIO
    assert machine.bus.driver_of(EDU) == driver
    assert Journal(machine).read(EDU) is None


def test_it_goes_back_after_ctrl_c_too(machine: FakeMachine) -> None:
    machine.function(EDU, driver="e1000e", group=14)
    with pytest.raises(KeyboardInterrupt), lent(EDU, VFIO, bus=machine.bus):
        raise KeyboardInterrupt
    assert machine.bus.driver_of(EDU) == "e1000e"


def test_what_user_space_has_stays_there(machine: FakeMachine) -> None:
    machine.function(EDU, driver="e1000e", group=14)
    bind(EDU, UIO, bus=machine.bus)
    machine.writes.clear()
    with lent(EDU, VFIO, bus=machine.bus):
        pass
    assert machine.writes == []


def test_a_failure_to_give_it_back_hides_no_other(machine: FakeMachine) -> None:
    machine.function(EDU, driver="e1000e", group=14)

    def fail() -> None:
        machine.readonly = True
        raise BusyError("the first")

    with pytest.raises(BusyError, match="first") as caught, lent(EDU, VFIO, bus=machine.bus):
        fail()
    assert ["give 0000:00:04.0 back" in note for note in caught.value.__notes__] == [True]


def test_a_failure_to_give_it_back_is_told_by_a_suite_that_is_closed(machine: FakeMachine) -> None:
    machine.function(EDU, driver="e1000e", group=14)

    def suite() -> Iterator[None]:
        with lent(EDU, VFIO, bus=machine.bus):
            yield

    running = suite()
    next(running)
    machine.readonly = True
    with pytest.raises(HostError):
        running.close()  # type: ignore[attr-defined]


def test_a_failure_to_give_it_back_is_told(machine: FakeMachine) -> None:
    machine.function(EDU, driver="e1000e", group=14)
    with pytest.raises(HostError), lent(EDU, VFIO, bus=machine.bus):
        machine.readonly = True


@pytest.mark.usefixtures("nothing_left")
def test_what_is_no_function_of_this_machine_is_just_opened() -> None:
    with open_lent("virtual:edu", None) as backend:
        assert backend.via == "virtual"


@pytest.mark.parametrize("address", ["virtual:nvme", "virtual:edu?dma_bits=28", "vfio-user:/run/x"])
def test_a_model_is_measured_without_being_named(address: str) -> None:
    with pytest.raises(NoDevice, match=r"is a model.* leave --device out, and it measures a model"):
        refuse_model(address)


@pytest.mark.parametrize("address", ["0000:00:04.0", "uio:uio0", "nonsense", "virtual"])
def test_what_is_no_model_is_not_judged(address: str) -> None:
    refuse_model(address)


@pytest.mark.parametrize("name", ["dma", "irq", "mmio", "nvme", "rng"])
def test_every_suite_says_how_its_model_is_measured(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uspace_drivers.nvme.benchmark.comparisons.require_fio", lambda: None)
    suite = next(each.suite for each in installed_suites() if each.name == name)
    assert suite is not None
    with pytest.raises(
        UspaceError, match=r"(leave --device out, and|without --device) it measures"
    ):
        next(suite.compare(Setting(device="virtual:nvme")))

"""Virtual functions: made, removed, refused in words, put back."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.unit.pci.fake_sysfs import EDU, FakeMachine
from uspace_drv.errors import BusyError, HostError, RegisterValueError, UnsupportedError
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.binding import VFIO, Terms, bind, restore
from uspace_drv.pci.journal import Journal
from uspace_drv.pci.lock import lock_function
from uspace_drv.pci.persist import rule_path
from uspace_drv.pci.rehearsal import Rehearsal
from uspace_drv.pci.sriov import set_virtual_functions, virtual_functions
from uspace_drv.pci.sysfs import PciBus

CARD = PciAddress(0, 1, 0, 0)
FOLDER_OF = f"/sys/bus/pci/devices/{CARD}"
FIRST, SECOND = PciAddress(0, 2, 0, 0), PciAddress(0, 2, 1, 0)


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    """A network card that can have 4 of them, at its own driver."""
    machine = FakeMachine(tmp_path)
    machine.file("/dev/iommu")
    machine.function(CARD, driver="igb", group=16)
    machine.sriov(CARD, 4)
    return machine


def test_made_without_drivers_and_removed(machine: FakeMachine) -> None:
    assert set_virtual_functions(CARD, 2, bus=machine.bus) == (FIRST, SECOND)
    assert machine.writes == [
        (f"{FOLDER_OF}/sriov_drivers_autoprobe", "0"),
        (f"{FOLDER_OF}/sriov_numvfs", "2"),
    ]
    assert machine.bus.function(FIRST).driver is None
    machine.writes.clear()
    assert set_virtual_functions(CARD, 0, bus=machine.bus) == ()
    assert machine.writes == [
        (f"{FOLDER_OF}/sriov_numvfs", "0"),
        (f"{FOLDER_OF}/sriov_drivers_autoprobe", "1"),
    ]
    assert Journal(machine).addresses() == []


def test_another_number_goes_through_none(machine: FakeMachine) -> None:
    set_virtual_functions(CARD, 2, bus=machine.bus)
    machine.writes.clear()
    assert len(set_virtual_functions(CARD, 3, bus=machine.bus)) == 3
    assert [text for _, text in machine.writes] == ["0", "3"]
    machine.writes.clear()
    assert len(set_virtual_functions(CARD, 3, bus=machine.bus)) == 3
    assert machine.writes == []


def test_restore_puts_back_how_many_there_were(machine: FakeMachine) -> None:
    machine.write(f"{FOLDER_OF}/sriov_numvfs", "1")
    assert machine.bus.function(FIRST).driver == "igbvf"
    set_virtual_functions(CARD, 2, bus=machine.bus)
    assert restore(CARD, bus=machine.bus).driver == "igb"
    assert virtual_functions(CARD, machine) == (FIRST,)
    assert machine.bus.function(FIRST).driver == "igbvf"
    assert Journal(machine).addresses() == []


def test_a_virtual_function_that_was_bound_is_forgotten_with_its_rule(
    machine: FakeMachine,
) -> None:
    set_virtual_functions(CARD, 2, bus=machine.bus)
    bind(FIRST, terms=Terms(user="1000", persist=True), bus=machine.bus)
    restore(CARD, bus=machine.bus)
    assert Journal(machine).addresses() == []
    assert not machine.exists(rule_path(FIRST))
    assert machine.owner("/dev/iommu") == 0


def test_one_in_use_keeps_them_all(machine: FakeMachine) -> None:
    set_virtual_functions(CARD, 2, bus=machine.bus)
    bind(SECOND, bus=machine.bus)
    with lock_function(SECOND, machine), pytest.raises(BusyError, match=f"{SECOND}: .* has it"):
        set_virtual_functions(CARD, 0, bus=machine.bus)
    machine.open_nodes.add("/dev/vfio/91")
    with pytest.raises(BusyError, match="another process has /dev/vfio/91 open"):
        restore(CARD, bus=machine.bus)
    assert virtual_functions(CARD, machine) == (FIRST, SECOND)
    machine.open_nodes.clear()
    restore(CARD, bus=machine.bus)
    assert virtual_functions(CARD, machine) == ()


def test_a_physical_function_that_has_some_is_not_bound(machine: FakeMachine) -> None:
    set_virtual_functions(CARD, 2, bus=machine.bus)
    with pytest.raises(BusyError, match=r"has 2 virtual functions.*uspace vfs 0000:01:00\.0 0"):
        bind(CARD, bus=machine.bus)


def test_of_a_function_that_user_space_has(machine: FakeMachine) -> None:
    bind(CARD, bus=machine.bus)
    assert set_virtual_functions(CARD, 1, bus=machine.bus) == (FIRST,)
    entry = Journal(machine).read(CARD)
    assert entry is not None
    assert (entry.bound, entry.vfs) == (VFIO, 0)
    set_virtual_functions(CARD, 0, bus=machine.bus)
    assert restore(CARD, bus=machine.bus).driver == "igb"


def test_what_cannot_be_is_said(machine: FakeMachine) -> None:
    machine.function(EDU, driver="e1000e", group=14)
    with pytest.raises(UnsupportedError, match=r"0000:00:04\.0: has no virtual functions"):
        set_virtual_functions(EDU, 1, bus=machine.bus)
    with pytest.raises(UnsupportedError, match="5 virtual functions; it can have 4"):
        set_virtual_functions(CARD, 5, bus=machine.bus)
    with pytest.raises(RegisterValueError, match="expected 0 or more"):
        set_virtual_functions(CARD, -1, bus=machine.bus)
    machine.readonly = True
    with pytest.raises(HostError, match=r"sudo uspace vfs 0000:01:00\.0"):
        set_virtual_functions(CARD, 1, bus=machine.bus)
    assert machine.changes == 0


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOENT, "igb cannot do that; bind a driver that can"),
        (errno.ENOMEM, "pci=realloc"),
        (errno.EBUSY, "pci=assign-busses"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_kernel_that_refuses_leaves_all_as_it_was(
    machine: FakeMachine, number: int, words: str
) -> None:
    write = machine.write

    def refuse(path: str, text: str) -> None:
        if path.endswith("numvfs") and text != "0":
            message = f"cannot write: {errno.errorcode[number]} Input/output error"
            raise HostError(message, cause=OSError(number, "refused"))
        write(path, text)

    machine.write = refuse  # type: ignore[method-assign]
    with pytest.raises(HostError, match=f"cannot have 2 virtual functions: .*{words}"):
        set_virtual_functions(CARD, 2, bus=machine.bus)
    assert machine.read(f"{FOLDER_OF}/sriov_drivers_autoprobe") == "1"
    assert Journal(machine).addresses() == []


def test_vfio_says_which_parameter_it_wants(machine: FakeMachine) -> None:
    machine.function(EDU, driver="other", group=14)
    machine.sriov(EDU, 2)
    bind(EDU, bus=machine.bus)
    machine.path(f"/sys/bus/pci/devices/{EDU}/driver").unlink()
    machine.symlink(f"/sys/bus/pci/devices/{EDU}/driver", "/sys/bus/pci/drivers/other")
    with pytest.raises(HostError, match=r"other cannot do that.*enable_sriov=1"):
        set_virtual_functions(EDU, 1, bus=machine.bus)


def test_a_rehearsal(machine: FakeMachine) -> None:
    rehearsal = Rehearsal(machine)
    set_virtual_functions(CARD, 2, bus=PciBus(host=rehearsal))
    lines = [line for line in rehearsal.lines if line.startswith("write")]
    assert lines == [
        f"write '0' to {FOLDER_OF}/sriov_drivers_autoprobe",
        f"write '2' to {FOLDER_OF}/sriov_numvfs",
    ]
    assert machine.changes == 0

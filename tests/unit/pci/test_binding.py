"""Binding and restoring: what is written, in which order, what is refused, what is put back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.native.child import in_child
from tests.unit.pci.fake_sysfs import EDU, FakeMachine
from uspace_drv.errors import BusyError, HostError, NoDevice, UnsupportedError
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.binding import UIO, VFIO, Terms, bind, restore
from uspace_drv.pci.journal import FOLDER, Journal
from uspace_drv.pci.lock import lock_function

FOLDER_OF = "/sys/bus/pci/devices/0000:00:04.0"


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    """edu bound to e1000e, alone in group 14."""
    machine = FakeMachine(tmp_path)
    machine.function(EDU, driver="e1000e", group=14)
    return machine


def test_bind_writes_the_journal_first_and_then_the_kernel(machine: FakeMachine) -> None:
    binding = bind(EDU, bus=machine.bus)
    assert (binding.driver, binding.previous, binding.node) == (VFIO, "e1000e", "/dev/vfio/14")
    assert str(binding) == "0000:00:04.0: bound to vfio-pci, /dev/vfio/14"
    assert machine.writes == [
        (f"{FOLDER_OF}/driver/unbind", "0000:00:04.0"),
        (f"{FOLDER_OF}/driver_override", "vfio-pci\n"),
        ("/sys/bus/pci/drivers/vfio-pci/bind", "0000:00:04.0"),
    ]
    journal = machine.path(f"{FOLDER}/0000:00:04.0.json").read_text()
    entry = json.loads(journal)
    assert (entry["driver"], entry["driver_override"], entry["bound"]) == ("e1000e", None, VFIO)
    assert (entry["bus_master"], entry["ids"]) == (True, "1234:11e8")


def test_nothing_changes_where_the_journal_cannot_be_written(machine: FakeMachine) -> None:
    machine.file(FOLDER, "in the way")
    with pytest.raises(HostError, match=r"cannot write /var/lib/uspace_drv"):
        bind(EDU, bus=machine.bus)
    assert machine.writes == []


def test_binding_twice_is_binding_once(machine: FakeMachine) -> None:
    bind(EDU, bus=machine.bus)
    machine.writes.clear()
    assert bind(EDU, bus=machine.bus).node == "/dev/vfio/14"
    assert machine.writes == []


def test_restore_gives_it_back(machine: FakeMachine) -> None:
    bind(EDU, bus=machine.bus)
    binding = restore(EDU, bus=machine.bus)
    assert (binding.driver, binding.previous, binding.node) == ("e1000e", VFIO, None)
    function = machine.bus.function(EDU)
    assert (function.driver, function.driver_override) == ("e1000e", None)
    assert Journal(machine).read(EDU) is None
    assert binding.was_ours
    machine.writes.clear()
    again = restore(EDU, bus=machine.bus)
    assert (again.driver, again.was_ours) == ("e1000e", False)
    assert machine.writes == []


def test_a_former_override_comes_back_too(machine: FakeMachine) -> None:
    machine.file(f"{FOLDER_OF}/driver_override", "e1000e\n")
    bind(EDU, bus=machine.bus)
    restore(EDU, bus=machine.bus)
    assert machine.bus.function(EDU).driver_override == "e1000e"


def test_from_vfio_to_uio_and_back_to_the_first_driver(machine: FakeMachine) -> None:
    bind(EDU, VFIO, bus=machine.bus)
    assert bind(EDU, UIO, bus=machine.bus).node == "/dev/uio0"
    assert restore(EDU, bus=machine.bus).driver == "e1000e"


def test_function_without_a_driver_goes_back_to_none(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path)
    machine.function(EDU, group=14)
    bind(EDU, bus=machine.bus)
    assert restore(EDU, bus=machine.bus).driver is None


def test_restore_without_a_journal_lets_the_kernel_choose(machine: FakeMachine) -> None:
    bind(EDU, bus=machine.bus)
    Journal(machine).remove(EDU)
    assert restore(EDU, bus=machine.bus).driver == "e1000e"
    assert machine.writes[-1] == ("/sys/bus/pci/drivers_probe", "0000:00:04.0")


def test_restore_leaves_a_driver_that_came_since(machine: FakeMachine) -> None:
    bind(EDU, bus=machine.bus)
    machine.path(f"{FOLDER_OF}/driver").unlink()
    machine.symlink(f"{FOLDER_OF}/driver", "/sys/bus/pci/drivers/other")
    assert restore(EDU, bus=machine.bus).driver == "other"
    assert machine.bus.function(EDU).driver_override is None


def test_without_an_iommu_it_takes_uio_and_says_so(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path)
    machine.function(EDU)
    binding = bind(EDU, bus=machine.bus)
    assert (binding.driver, binding.node) == (UIO, "/dev/uio0")
    assert "no IOMMU group" in binding.notes[0]
    restore(EDU, bus=machine.bus)
    with pytest.raises(HostError, match=r"no IOMMU group.*intel_iommu=on.*uio_pci_generic"):
        bind(EDU, VFIO, bus=machine.bus)


def test_siblings_in_the_group_are_named(machine: FakeMachine) -> None:
    machine.function(PciAddress(0, 0, 4, 1), driver="snd_hda_intel", group=14)
    (note,) = bind(EDU, bus=machine.bus).notes
    assert "group 14 is shared with 0000:00:04.1 (snd_hda_intel)" in note
    bind(PciAddress(0, 0, 4, 1), bus=machine.bus)
    assert bind(EDU, bus=machine.bus).notes == ()


def test_a_sibling_bound_to_uio_is_in_the_way_of_vfio(machine: FakeMachine) -> None:
    machine.function(PciAddress(0, 0, 4, 1), driver=UIO, group=14)
    machine.function(PciAddress(0, 0, 4, 2), driver="pcieport", group=14)
    (note,) = bind(EDU, bus=machine.bus).notes
    assert "shared with 0000:00:04.1 (uio_pci_generic); run: uspace bind 0000:00:04.1" in note


def test_a_bridge_whose_driver_is_in_the_way_is_not_to_be_bound(machine: FakeMachine) -> None:
    bridge = machine.function(PciAddress(0, 0, 4, 7), driver="shpchp", group=14)
    machine.file(f"{bridge}/class", "0x060400\n")
    (note,) = bind(EDU, bus=machine.bus).notes
    unbind = "/sys/bus/pci/devices/0000:00:04.7/driver/unbind"
    assert note.endswith(f"(shpchp); run: echo 0000:00:04.7 | sudo tee {unbind}")


def test_refuses_what_the_machine_lives_on(machine: FakeMachine) -> None:
    machine.disk("vda", FOLDER_OF, "254:0")
    machine.mounts("27 1 254:0 / / rw - ext4 /dev/vda rw")
    with pytest.raises(BusyError, match=r"/ \(vda\) is mounted from it; leaving it to e1000e"):
        bind(EDU, bus=machine.bus)
    assert machine.writes == []
    assert bind(EDU, terms=Terms(force_device_in_use=True), bus=machine.bus).driver == VFIO


def test_missing_module_names_the_command(machine: FakeMachine) -> None:
    for name in ("bind", "unbind"):
        machine.path(f"/sys/bus/pci/drivers/vfio-pci/{name}").unlink()
    machine.path("/sys/bus/pci/drivers/vfio-pci").rmdir()
    with pytest.raises(HostError, match="run: modprobe vfio-pci"):
        bind(EDU, bus=machine.bus)


def test_without_rights_it_says_sudo(machine: FakeMachine) -> None:
    machine.readonly = True
    with pytest.raises(HostError, match=r"run: sudo uspace bind 0000:00:04\.0"):
        bind(EDU, bus=machine.bus)
    assert machine.writes == []


def test_other_drivers_are_not_for_user_space(machine: FakeMachine) -> None:
    with pytest.raises(UnsupportedError, match="cannot work through e1000e; use vfio-pci or uio"):
        bind(EDU, "e1000e", bus=machine.bus)


def test_absent_function(machine: FakeMachine) -> None:
    for verb in (bind, restore):
        with pytest.raises(NoDevice, match=r"there are 0000:00:04\.0"):
            verb(PciAddress(0, 9, 0, 0), bus=machine.bus)


def assert_as_before(machine: FakeMachine) -> None:
    function = machine.bus.function(EDU)
    assert (function.driver, function.driver_override) == ("e1000e", None)
    assert Journal(machine).read(EDU) is None


def test_a_driver_that_refuses_leaves_all_as_it_was(machine: FakeMachine) -> None:
    machine.refusing.add(VFIO)
    with pytest.raises(HostError, match="vfio-pci refused it") as caught:
        bind(EDU, bus=machine.bus)
    assert caught.value.__notes__ == ["0000:00:04.0: put back to e1000e"]
    assert_as_before(machine)


def test_a_node_that_does_not_appear_leaves_all_as_it_was(machine: FakeMachine) -> None:
    machine.nodeless.add(VFIO)
    with pytest.raises(HostError, match=r"/dev/vfio/14 did not appear within 0\.020 s") as caught:
        bind(EDU, terms=Terms(timeout=0.02), bus=machine.bus)
    assert caught.value.__notes__ == ["0000:00:04.0: put back to e1000e"]
    assert_as_before(machine)


def test_what_cannot_be_put_back_is_said(machine: FakeMachine) -> None:
    machine.refusing |= {VFIO, "e1000e"}
    with pytest.raises(HostError) as caught:
        bind(EDU, bus=machine.bus)
    (note,) = caught.value.__notes__
    assert "could not be put back to e1000e" in note
    entry = Journal(machine).read(EDU)
    assert entry is not None
    assert (entry.driver, entry.driver_override, entry.bound) == ("e1000e", None, VFIO)
    machine.refusing.clear()
    assert restore(EDU, bus=machine.bus).driver == "e1000e"


def test_a_group_that_is_open_elsewhere_is_not_torn_away(machine: FakeMachine) -> None:
    bind(EDU, bus=machine.bus)
    machine.open_nodes.add("/dev/vfio/14")
    machine.writes.clear()
    with pytest.raises(BusyError, match="another process has /dev/vfio/14 open"):
        restore(EDU, bus=machine.bus)
    assert machine.writes == []
    assert Journal(machine).read(EDU) is not None


def test_an_attached_driver_holds_the_lock(machine: FakeMachine) -> None:
    with lock_function(EDU, machine):
        for verb in (bind, restore):
            with pytest.raises(BusyError, match="another process has it"):
                verb(EDU, bus=machine.bus)
    assert bind(EDU, bus=machine.bus).driver == VFIO


def test_the_lock_names_its_owner(machine: FakeMachine, tmp_path: Path) -> None:
    status = (tmp_path / FOLDER_OF.lstrip("/")).stat()
    where = f"{status.st_dev >> 8 & 0xFFF:02x}:{status.st_dev & 0xFF:02x}:{status.st_ino}"
    machine.file("/proc/locks", f"1: FLOCK  ADVISORY  WRITE 4711 {where} 0 EOF\n")
    machine.file("/proc/4711/comm", "uspace\n")
    with (
        lock_function(EDU, machine),
        pytest.raises(BusyError, match=r"process 4711 \(uspace\) has it"),
    ):
        lock_function(EDU, machine)


LOCKED = """
from pathlib import Path
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.host import Host
from uspace_drv.pci.lock import lock_function
address, host = PciAddress(0, 0, 4, 0), Host(Path(sys.argv[1]))
lock = lock_function(address, host)
end, keep = os.pipe()
child = os.fork()
"""


@pytest.mark.usefixtures("machine")
def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    done = in_child(
        f"""{LOCKED}
if child == 0:
    os.close(keep)
    os.read(end, 1)
    os._exit(0)
lock.close()
lock_function(address, host).close()
os.close(keep)
print(os.waitpid(child, 0)[1])
""",
        str(tmp_path),
    )
    assert done.stdout == "0\n", done.stderr


@pytest.mark.usefixtures("machine")
def test_a_forked_child_does_not_give_the_lock_back(tmp_path: Path) -> None:
    done = in_child(
        f"""{LOCKED}
if child == 0:
    lock.close()
    os._exit(0)
os.waitpid(child, 0)
lock_function(address, host)
""",
        str(tmp_path),
    )
    assert "BusyError: 0000:00:04.0: another process has it" in done.stderr


@pytest.mark.parametrize("text", ["", "[]", '{"driver": 1', '{"other": 2}', '{"driver": 1}'])
def test_a_journal_that_makes_no_sense_is_named(machine: FakeMachine, text: str) -> None:
    machine.file(f"{FOLDER}/{EDU}.json", text)
    with pytest.raises(HostError, match=r"0000:00:04.0.json does not say .*; remove it"):
        restore(EDU, bus=machine.bus)

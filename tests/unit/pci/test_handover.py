"""Nodes for a user, udev rules, restarts, rehearsals: what `bind` does beyond binding."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.pci.fake_sysfs import EDU, FakeMachine
from uspace_drv.errors import BusyError, HostError, UnsupportedError
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.binding import UIO, VFIO, Terms, bind, bind_group, restore, restore_all
from uspace_drv.pci.journal import FOLDER, Journal
from uspace_drv.pci.nodes import user_name
from uspace_drv.pci.persist import rule_path
from uspace_drv.pci.rehearsal import Rehearsal
from uspace_drv.pci.sysfs import PciBus

SIBLING, OTHER, BRIDGE = PciAddress(0, 0, 4, 1), PciAddress(0, 0, 5, 0), PciAddress(0, 0, 4, 7)
FOLDER_OF = f"/sys/bus/pci/devices/{EDU}"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
ALICE, BOB = Terms(user="1000"), Terms(user="1001")
HER = user_name(1000)
"""What the machine on which the tests run calls her."""


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    """edu and a sound card in group 14, another function in group 15, nodes of every kind."""
    machine = FakeMachine(tmp_path)
    machine.has_cdevs = True
    machine.file("/dev/iommu")
    machine.file(BOOT_ID, "first\n")
    machine.function(EDU, driver="e1000e", group=14)
    machine.function(SIBLING, driver="snd_hda_intel", group=14)
    machine.function(OTHER, driver="nvme", group=15)
    return machine


def owned(machine: FakeMachine) -> dict[str, int]:
    return {path: user for path, user in machine.owners.items() if machine.owner(path)}


def test_a_user_gets_every_node_and_loses_it_again(machine: FakeMachine) -> None:
    binding = bind(EDU, terms=ALICE, bus=machine.bus)
    nodes = {"/dev/vfio/14", "/dev/vfio/devices/vfio0", "/dev/iommu"}
    assert owned(machine) == dict.fromkeys(nodes, 1000)
    (note,) = binding.notes[:1]
    assert note.startswith(f"user {HER} owns /dev/vfio/")
    assert all(node in note for node in nodes)
    restore(EDU, bus=machine.bus)
    assert owned(machine) == {}


def test_a_user_through_uio_is_warned(machine: FakeMachine) -> None:
    notes = bind(EDU, UIO, ALICE, bus=machine.bus).notes
    assert owned(machine) == {"/dev/uio0": 1000, f"{FOLDER_OF}/config": 1000}
    assert any("as good as root" in note for note in notes)
    restore(EDU, bus=machine.bus)
    assert owned(machine) == {}


def test_an_earlier_owner_comes_back(machine: FakeMachine) -> None:
    machine.owners["/dev/iommu"] = 77
    bind(EDU, terms=ALICE, bus=machine.bus)
    bind(OTHER, terms=ALICE, bus=machine.bus)
    restore(EDU, bus=machine.bus)
    assert owned(machine)["/dev/iommu"] == 1000  # the other function needs it
    restore(OTHER, bus=machine.bus)
    assert owned(machine) == {"/dev/iommu": 77}


def test_two_users_share_no_group_and_no_iommufd(machine: FakeMachine) -> None:
    bind(EDU, terms=ALICE, bus=machine.bus)
    notes = bind(OTHER, terms=BOB, bus=machine.bus).notes
    assert any(f"/dev/iommu belongs to user {HER}, for 0000:00:04.0" in note for note in notes)
    assert owned(machine)["/dev/iommu"] == 1000
    words = rf"/dev/vfio/14 belongs to user {HER}.*one group is for one"
    with pytest.raises(BusyError, match=words):
        bind(SIBLING, terms=BOB, bus=machine.bus)
    assert machine.bus.function(SIBLING).driver == "snd_hda_intel"
    assert owned(machine)["/dev/vfio/14"] == 1000
    assert Journal(machine).read(SIBLING) is None


def test_what_is_bound_already_can_still_be_handed_over(machine: FakeMachine) -> None:
    bind(EDU, bus=machine.bus)
    machine.writes.clear()
    bind(EDU, terms=ALICE, bus=machine.bus)
    assert machine.writes == []
    assert owned(machine)["/dev/vfio/14"] == 1000
    bind(EDU, terms=BOB, bus=machine.bus)
    assert set(owned(machine).values()) == {1001}
    assert restore(EDU, bus=machine.bus).driver == "e1000e"
    assert owned(machine) == {}


def test_a_user_stays_with_another_driver_and_is_told_so(machine: FakeMachine) -> None:
    notes = bind(EDU, terms=ALICE, bus=machine.bus).notes
    assert not any("carried over" in note for note in notes)
    notes = bind(EDU, UIO, bus=machine.bus).notes
    given = f"user {HER} owns /dev/iommu, /dev/uio0, {FOLDER_OF}/config"  # what there is now
    assert notes[0] == given
    assert notes[-1] == (
        f"--user {HER} was carried over from an earlier bind; to end that, first run: "
        f"uspace restore {EDU}"
    )
    assert owned(machine)["/dev/uio0"] == 1000


def test_a_number_that_is_another_functions_now_is_not_handed_over(machine: FakeMachine) -> None:
    bind(EDU, terms=ALICE, bus=machine.bus)
    bind(EDU, UIO, bus=machine.bus)
    machine.file("/dev/vfio/devices/vfio0")  # of another function
    machine.owners.pop("/dev/vfio/devices/vfio0")
    (given, *_) = bind(EDU, UIO, ALICE, bus=machine.bus).notes
    assert "vfio0" not in given
    assert "/dev/vfio/devices/vfio0" not in owned(machine)


def test_users_by_their_names() -> None:
    assert user_name(0) == "root"
    assert user_name(4_000_000_123) == "4000000123"


def test_a_node_of_the_function_alone(machine: FakeMachine) -> None:
    """A kernel without VFIO_GROUP."""
    announce = machine._announce
    machine._announce = lambda folder, group: announce(folder, None)  # type: ignore[method-assign]
    assert bind(EDU, bus=machine.bus).node == "/dev/vfio/devices/vfio0"


def test_an_unknown_user_is_refused_before_anything_changes(machine: FakeMachine) -> None:
    with pytest.raises(HostError, match="no user is called 'nemo_of_nowhere'"):
        bind(EDU, terms=Terms(user="nemo_of_nowhere"), bus=machine.bus)
    for number in (2**32 - 1, 2**64):  # chown(2) takes the first for: leave the owner as it is
        with pytest.raises(HostError, match=f"no user has the number {number}; expected 0 to"):
            bind(EDU, terms=Terms(user=str(number)), bus=machine.bus)
    assert machine.changes == 0


def add_bridge(machine: FakeMachine, driver: str) -> None:
    machine.function(BRIDGE, driver=driver, group=14)
    machine.file(f"/sys/bus/pci/devices/{BRIDGE}/class", "0x060400\n")


def test_a_whole_group_and_no_bridge(machine: FakeMachine) -> None:
    add_bridge(machine, "pcieport")
    bindings = bind_group(EDU, bus=machine.bus)
    assert [binding.address for binding in bindings] == [EDU, SIBLING]
    assert [binding.driver for binding in bindings] == [VFIO, VFIO]
    assert [binding.notes for binding in bindings] == [(), ()]
    assert machine.bus.function(BRIDGE).driver == "pcieport"
    with pytest.raises(UnsupportedError, match="a bridge stays with the kernel"):
        bind(BRIDGE, bus=machine.bus)


def test_a_bridge_of_the_group_is_let_go(machine: FakeMachine) -> None:
    add_bridge(machine, "shpchp")
    *bindings, released = bind_group(EDU, terms=ALICE, bus=machine.bus)
    assert [binding.driver for binding in bindings] == [VFIO, VFIO]
    assert (released.address, released.driver, released.previous) == (BRIDGE, None, "shpchp")
    assert "shpchp let go of the bridge" in released.notes[0]
    assert machine.bus.function(BRIDGE).driver is None
    machine.writes.clear()
    assert len(bind_group(EDU, terms=ALICE, bus=machine.bus)) == 2  # as it is already
    assert machine.writes == []
    assert restore(BRIDGE, bus=machine.bus).driver == "shpchp"
    assert machine.bus.function(BRIDGE).driver_override is None
    bind_group(EDU, UIO, bus=machine.bus)
    assert machine.bus.function(BRIDGE).driver == "shpchp"  # UIO knows no groups


def test_a_bridge_comes_back_where_the_group_fails(machine: FakeMachine) -> None:
    add_bridge(machine, "shpchp")
    machine.function(after := PciAddress(0, 0, 6, 0), driver="nvme", group=14)
    write = machine.write

    def last_fails(path: str, text: str) -> None:
        if path.endswith("vfio-pci/bind") and text == str(after):
            raise HostError("bind", cause=OSError(22, "Invalid argument"))
        write(path, text)

    machine.write = last_fails  # type: ignore[method-assign]
    with pytest.raises(HostError, match="vfio-pci refused it") as caught:
        bind_group(EDU, bus=machine.bus)
    assert f"{BRIDGE}: put back to shpchp" in caught.value.__notes__
    assert machine.bus.function(BRIDGE).driver == "shpchp"
    assert machine.bus.function(BRIDGE).driver_override is None
    assert Journal(machine).addresses() == []


def test_a_bridge_on_which_the_machine_lives_is_kept(machine: FakeMachine) -> None:
    add_bridge(machine, "shpchp")
    card = machine.function(PciAddress(0, 2, 0, 0), driver="e1000", behind=BRIDGE)
    machine.interface("eth0", card)
    machine.file("/proc/net/route", "Iface\tDestination\neth0\t00000000\n")
    with pytest.raises(BusyError, match=r"00:04\.7: network interface eth0 is up"):
        bind_group(EDU, bus=machine.bus)
    assert machine.changes == 0


def test_after_a_restart_a_rule_may_have_released_the_bridge_again(machine: FakeMachine) -> None:
    add_bridge(machine, "shpchp")
    bind_group(EDU, terms=Terms(persist=True), bus=machine.bus)
    rule = machine.read(rule_path(BRIDGE)) or ""
    assert 'ATTR{driver_override}="none", RUN+=' in rule
    assert f"echo {BRIDGE} > driver/unbind" in rule
    assert "probe" not in rule
    machine.file(BOOT_ID, "second\n")
    assert restore(BRIDGE, bus=machine.bus).driver == "shpchp"
    assert machine.bus.function(BRIDGE).driver_override is None
    assert not machine.exists(rule_path(BRIDGE))


def test_a_group_of_which_one_fails_is_put_back(machine: FakeMachine) -> None:
    machine.refusing.add(VFIO)
    with pytest.raises(HostError, match="vfio-pci refused it") as caught:
        bind_group(SIBLING, bus=machine.bus)
    assert caught.value.__notes__ == ["0000:00:04.0: put back to e1000e"]
    machine.refusing.clear()
    write, seen = machine.write, []

    def second_fails(path: str, text: str) -> None:
        if path.endswith("vfio-pci/bind"):
            seen.append(text)
            if len(seen) == 2:
                raise HostError("bind", cause=OSError(22, "Invalid argument"))
        write(path, text)

    machine.write = second_fails  # type: ignore[method-assign]
    with pytest.raises(HostError, match=r"0000:00:04\.1: vfio-pci refused it") as caught:
        bind_group(EDU, terms=ALICE, bus=machine.bus)
    assert caught.value.__notes__ == [
        "0000:00:04.1: put back to snd_hda_intel",
        "0000:00:04.0: put back to e1000e",
    ]
    assert owned(machine) == {}
    assert Journal(machine).addresses() == []


def test_a_rule_says_what_bind_did(machine: FakeMachine) -> None:
    bind(EDU, terms=Terms(user="1000", persist=True), bus=machine.bus)
    rule = machine.read(rule_path(EDU)) or ""
    comment, guard, bind_line, *owner_lines, end = rule.splitlines()
    # udev goes on with a rule for some seconds after its file went.
    assert (guard, end) == (f'TEST!="{rule_path(EDU)}", GOTO="end"', 'LABEL="end"')
    assert comment.startswith("#")
    assert comment.endswith("uspace restore 0000:00:04.0")
    for part in (
        'ACTION=="add", SUBSYSTEM=="pci", KERNEL=="0000:00:04.0"',
        'ATTR{vendor}=="0x1234", ATTR{device}=="0x11e8"',
        'ATTR{driver_override}="vfio-pci"',
        'RUN{builtin}+="kmod load vfio-pci"',
        "echo 0000:00:04.0 > /sys/bus/pci/drivers_probe",
    ):
        assert part in bind_line
    assert owner_lines == [
        'SUBSYSTEM=="vfio", TEST=="/sys/kernel/iommu_groups/%k/devices/0000:00:04.0", OWNER="1000"',
        'SUBSYSTEM=="vfio-dev", KERNELS=="0000:00:04.0", OWNER="1000"',
        'SUBSYSTEM=="misc", KERNEL=="iommu", OWNER="1000"',
    ]
    restore(EDU, bus=machine.bus)
    assert not machine.exists(rule_path(EDU))


def test_a_rule_for_uio(machine: FakeMachine) -> None:
    bind(EDU, UIO, Terms(user="1000", persist=True), bus=machine.bus)
    last = (machine.read(rule_path(EDU)) or "").splitlines()[-2]
    assert last.startswith('SUBSYSTEM=="uio", KERNELS=="0000:00:04.0", OWNER="1000"')
    assert "chown 1000 config reset resource[0-6]*" in last


def restart(machine: FakeMachine, boot: str = "second") -> None:
    """The kernel's view begins anew; files on disk stay."""
    for address in (EDU, SIBLING, OTHER):
        name = str(address)
        if machine.link(f"/sys/bus/pci/devices/{name}/driver"):
            machine._detach(name)
        machine.file(f"/sys/bus/pci/devices/{name}/driver_override", "(null)\n")
        machine._attach(name, machine.native[name])
    machine.owners.clear()
    machine.file(BOOT_ID, f"{boot}\n")


def test_after_a_restart_there_is_nothing_to_undo(machine: FakeMachine) -> None:
    bind(EDU, terms=ALICE, bus=machine.bus)
    restart(machine)
    machine.owners["/dev/iommu"] = 55  # of somebody, since the start
    machine.writes.clear()
    (result,) = restore_all(bus=machine.bus)
    assert not isinstance(result, Exception)
    assert result.driver == "e1000e"
    assert "started again" in result.notes[0]
    assert machine.writes == []
    assert owned(machine) == {"/dev/iommu": 55}
    assert Journal(machine).addresses() == []


def test_after_a_restart_a_rule_may_have_bound_it_again(machine: FakeMachine) -> None:
    bind(EDU, terms=Terms(user="1000", persist=True), bus=machine.bus)
    restart(machine)
    machine._detach(str(EDU))
    machine.file(f"{FOLDER_OF}/driver_override", "vfio-pci\n")
    machine._attach(str(EDU), VFIO)
    machine.owners["/dev/iommu"] = 1000
    assert restore(EDU, bus=machine.bus).driver == "e1000e"
    assert machine.bus.function(EDU).driver_override is None
    assert owned(machine) == {}
    assert not machine.exists(rule_path(EDU))


def test_after_a_restart_bind_starts_anew(machine: FakeMachine) -> None:
    machine.file(f"{FOLDER_OF}/driver_override", "e1000e\n")
    bind(EDU, bus=machine.bus)
    restart(machine)
    bind(EDU, bus=machine.bus)
    entry = Journal(machine).read(EDU)
    assert entry is not None
    assert (entry.driver, entry.driver_override, entry.boot_id) == ("e1000e", None, "second")


@pytest.mark.parametrize("restarted", [False, True])
def test_a_function_that_is_gone_is_forgotten(machine: FakeMachine, restarted: bool) -> None:
    bind(EDU, terms=Terms(user="1000", persist=True), bus=machine.bus)
    machine.unplug(EDU)
    if restarted:
        machine.file(BOOT_ID, "second\n")
    binding = restore(EDU, bus=machine.bus)
    assert "is gone" in binding.notes[0]
    assert not machine.exists(rule_path(EDU))
    assert Journal(machine).addresses() == []
    assert machine.owner("/dev/iommu") == 0


def test_another_function_in_its_place_is_left_alone(machine: FakeMachine) -> None:
    bind(EDU, terms=Terms(persist=True), bus=machine.bus)
    restart(machine)
    machine.file(f"{FOLDER_OF}/device", "0x5845\n")
    machine.writes.clear()
    assert "gone" in restore(EDU, bus=machine.bus).notes[0]
    assert machine.writes == []
    assert not machine.exists(rule_path(EDU))


def test_restoring_all_goes_on_after_a_failure(machine: FakeMachine) -> None:
    bind(EDU, bus=machine.bus)
    bind(OTHER, bus=machine.bus)
    machine.refusing.add("e1000e")
    failed, done = restore_all(bus=machine.bus)
    assert isinstance(failed, HostError)
    assert not isinstance(done, Exception)
    assert done.driver == "nvme"
    assert Journal(machine).addresses() == [EDU]


def test_a_damaged_entry_does_not_keep_the_others(machine: FakeMachine) -> None:
    bind(OTHER, bus=machine.bus)
    machine.file(f"{FOLDER}/{EDU}.json", "rubbish")
    machine.file(f"{FOLDER}/{EDU}.json.new", "what a kill left")
    failed, done = restore_all(bus=machine.bus)
    assert isinstance(failed, HostError)
    assert not isinstance(done, Exception)
    assert done.driver == "nvme"


def test_a_draft_alone_is_cleaned_away(machine: FakeMachine) -> None:
    """Its `bind` was killed before it had changed anything."""
    draft = f"{FOLDER}/{EDU}.json.new"
    machine.file(draft, "a part")
    (done,) = restore_all(bus=machine.bus)
    assert not isinstance(done, Exception)
    assert (done.driver, done.previous) == ("e1000e", "e1000e")
    assert not machine.exists(draft)
    assert restore_all(bus=machine.bus) == []


def test_a_rehearsal_prints_every_write_and_makes_none(machine: FakeMachine) -> None:
    rehearsal = Rehearsal(machine)
    bind(EDU, terms=Terms(user="1000", persist=True), bus=PciBus(host=rehearsal))
    own = "its own nodes (/dev/vfio/N, /dev/vfio/devices/vfioN), once they appear"
    lines = [line for line in rehearsal.lines if not line.startswith("  ")]
    assert lines == [
        f"create {FOLDER}/{EDU}.json",
        f"write '{EDU}' to {FOLDER_OF}/driver/unbind",
        f"write 'vfio-pci' to {FOLDER_OF}/driver_override",
        f"write '{EDU}' to /sys/bus/pci/drivers/vfio-pci/bind",
        f"create {FOLDER}/{EDU}.json",
        f"give /dev/iommu to user {HER}",
        f"give {own}, to user {HER}",
        f"create {rule_path(EDU)}",
    ]
    assert machine.changes == 0
    assert machine.bus.function(EDU).driver == "e1000e"


def test_a_rehearsal_for_a_user_of_what_is_bound_names_its_nodes(machine: FakeMachine) -> None:
    bind(EDU, bus=machine.bus)
    bind(EDU, terms=ALICE, bus=PciBus(host=(rehearsal := Rehearsal(machine))))
    nodes = ("/dev/vfio/14", "/dev/vfio/devices/vfio0", "/dev/iommu")
    given = [line for line in rehearsal.lines if line.startswith("give")]
    assert given == [f"give {node} to user {HER}" for node in nodes]


def test_a_rehearsal_for_a_user_through_uio(machine: FakeMachine) -> None:
    bind(EDU, UIO, ALICE, bus=PciBus(host=(rehearsal := Rehearsal(machine))))
    given = [line for line in rehearsal.lines if line.startswith("give")]
    assert given == [
        f"give {FOLDER_OF}/config to user {HER}",
        f"give its own node (/dev/uioN), once it appears, to user {HER}",
    ]


def test_a_rehearsal_of_restoring(machine: FakeMachine) -> None:
    bind(EDU, bus=machine.bus)
    machine.changes = 0
    rehearsal = Rehearsal(machine)
    restore(EDU, bus=PciBus(host=rehearsal))
    assert rehearsal.lines == [
        f"write '{EDU}' to {FOLDER_OF}/driver/unbind",
        f"write '' to {FOLDER_OF}/driver_override",
        f"write '{EDU}' to /sys/bus/pci/drivers/e1000e/bind",
        f"remove {FOLDER}/{EDU}.json",
    ]
    assert machine.changes == 0


def test_bus_master_comes_back_where_no_driver_does(machine: FakeMachine) -> None:
    machine.function(BRIDGE, group=16)
    machine.set_bus_master(str(BRIDGE), True)
    config = machine.path(f"/sys/bus/pci/devices/{BRIDGE}/config")
    bind(BRIDGE, bus=machine.bus)
    machine.writes.clear()
    restore(BRIDGE, bus=machine.bus)
    assert config.read_bytes()[4] == 4

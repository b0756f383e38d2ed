"""What the doctor says of machines that are made of files."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doctor.machines import (
    CONTAINER,
    DEBIAN,
    DRIVERS,
    EDU,
    LAPTOP,
    LOADED,
    LOCKED,
    MICROVM,
    MODERN,
    NO_REMAPPING,
    NOBODY,
    PCI,
    SIBLING,
    TYPE1,
    VIRTUAL,
    Files,
    Machine,
    config,
    function,
    kernel,
    without,
)
from uspace_drv.doctor import Diagnosis, State, Verdict, diagnose
from uspace_drv.doctor import machine as machine_module
from uspace_drv.doctor.kernel import ModuleState
from uspace_drv.errors import NoDevice, UnsupportedError
from uspace_drv.pci.address import DeviceAddress

Make = Callable[..., Machine]
WORKS, AFTER, CANNOT = State.WORKS, State.AFTER, State.CANNOT
NO_GROUP = ("/sys/kernel/iommu_groups", "/sys/class/iommu", "/sys/devices", PCI)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setenv("PATH", "/usr/bin")
    return lambda *layers: Machine(tmp_path / "machine", *layers)


def ways(machine: Machine, address: str | None = None) -> dict[str, Verdict]:
    return {each.way: each for each in examine(machine, address).verdicts}


def examine(machine: Machine, address: str | None = None) -> Diagnosis:
    found = diagnose(machine, None if address is None else DeviceAddress.parse(address))
    json.dumps(found.as_data())
    return found


def test_nothing_at_all_is_no_error(make: Make) -> None:
    found = examine(make({}))
    assert not found.has_a_way
    assert {each.state for each in found.verdicts if each.is_real} == {CANNOT}


def test_a_microvm(make: Make) -> None:
    found = examine(make(MICROVM, function(EDU)))
    assert found.facts.machine.virtual == "Firecracker microVM"
    assert set(found.facts.kernel.modules.values()) == {ModuleState.ABSENT}
    states = {each.way: each.state for each in found.verdicts}
    assert [way for way, state in states.items() if state is WORKS] == [
        "sysfs",
        "vfio-user",
        "virtual",
    ]
    assert states["vfio-type1"] is CANNOT
    assert found.request is not None
    assert "an IOMMU with interrupt remapping" in found.request
    assert "a kernel of my own choice" in found.request


def test_debian_with_an_iommu(make: Make) -> None:
    found = ways(make(DEBIAN))
    assert found["vfio-type1"].lines == ("modprobe vfio-pci", "modprobe vfio_iommu_type1")
    assert found["uio"].lines == ("modprobe uio_pci_generic",)
    assert found["vfio-cdev"].state is CANNOT
    assert "6.6" in " ".join(found["vfio-cdev"].why)
    assert found["vfio-noiommu"].state is CANNOT
    assert found["uio-platform"].state is CANNOT


def test_modules_that_are_loaded(make: Make) -> None:
    found = ways(make(DEBIAN, LOADED))
    assert found["vfio-type1"].state is found["uio"].state is WORKS
    assert examine(make({})).request is None


def test_a_device_is_bound_first(make: Make) -> None:
    machine = make(DEBIAN, LOADED)
    found = ways(machine, EDU)
    assert found["vfio-type1"].lines == (f"uspace bind {EDU}",)
    assert found["uio"].lines == (f"uspace bind {EDU} --driver uio_pci_generic",)
    assert found["sysfs"].state is WORKS
    assert "vfio-user" not in found
    machine.add({f"{PCI}/{EDU}/driver": f"->{DRIVERS}/vfio-pci", "/dev/vfio/14": ""})
    found = ways(machine, EDU)
    assert found["vfio-type1"].state is WORKS
    assert found["sysfs"].lines == (f"echo {EDU} | tee {PCI}/{EDU}/driver/unbind",)


def test_an_ordinary_user_is_given_the_nodes(make: Make) -> None:
    bound: Files = {f"{PCI}/{EDU}/driver": f"->{DRIVERS}/vfio-pci", "/dev/vfio/14": ""}
    machine = make(DEBIAN, LOADED, NOBODY, bound)
    machine.closed = {"/dev/vfio/14", f"{PCI}/{EDU}/config"}
    found = ways(machine, EDU)
    assert found["vfio-type1"].lines == (f"sudo uspace bind {EDU} --user nobody",)
    assert "8192 KiB (memlock)" in " ".join(found["vfio-type1"].why)
    assert found["sysfs"].lines[1].startswith("sudo chown nobody ")
    machine.closed = set()
    assert ways(machine, EDU)["vfio-type1"].state is WORKS


def test_a_newer_kernel_has_files_of_functions(make: Make) -> None:
    machine = make(DEBIAN, MODERN)
    found = ways(machine)
    assert {found[way].state for way in ("vfio-cdev", "vfio-type1", "vfio-compat")} == {WORKS}
    assert {found[way].state for way in ("vfio-noiommu", "vfio-noiommu-cdev")} == {CANNOT}
    machine.add({f"{PCI}/{EDU}/driver": f"->{DRIVERS}/vfio-pci", "/dev/vfio/14": ""})
    assert ways(machine, EDU)["vfio-cdev"].state is CANNOT  # bound, and there is no such file
    machine.add({f"{PCI}/{EDU}/vfio-dev/vfio0/dev": "243:0", "/dev/vfio/devices/vfio0": ""})
    assert ways(machine, EDU)["vfio-cdev"].state is WORKS


def test_without_an_iommu_there_is_a_risky_way(make: Make) -> None:
    machine = make(without(DEBIAN, *NO_GROUP), MODERN, VIRTUAL, function(EDU))
    machine.path("/sys/firmware/acpi/tables/DMAR").unlink()
    found = ways(machine, EDU)
    parameter = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
    lines = (f"echo 1 | tee {parameter}", f"uspace bind {EDU} --driver vfio-pci")
    assert found["vfio-noiommu"].lines == found["vfio-noiommu-cdev"].lines == lines
    assert "RISK" in " ".join(found["vfio-noiommu"].why)
    assert found["vfio-cdev"].state is CANNOT
    machine.add(NOBODY)
    assert "CAP_SYS_RAWIO" in " ".join(ways(machine, EDU)["vfio-noiommu"].why)


def test_an_iommu_that_the_firmware_hides(make: Make) -> None:
    found = ways(make(LAPTOP))["vfio-type1"]
    assert found.state is AFTER
    assert found.lines[-1] == "systemctl reboot --firmware-setup"
    assert found.lines[-2] == "update-grub"
    assert "VT-d" in " ".join(found.why)
    assert examine(make({})).request is None


@pytest.mark.parametrize(
    ("words", "before", "after"),
    [
        ("", "", "intel_iommu=on "),
        ("quiet intel_iommu=off", "quiet intel_iommu=off", "intel_iommu=on quiet"),
        ("iommu=off intel_iommu=off", "intel_iommu=off iommu=off", "intel_iommu=on "),
    ],
)
def test_an_iommu_that_the_kernel_was_not_told_of(
    make: Make, tmp_path: Path, words: str, before: str, after: str
) -> None:
    layers = (without(DEBIAN, *NO_GROUP), kernel("6.1.0-30-amd64", words), function(EDU))
    machine = make(*layers)
    machine.add({"/etc/default/grub": f'GRUB_CMDLINE_LINUX="{before}"\n'})
    found = ways(machine)["vfio-type1"]
    edit = next(line for line in found.lines if line.startswith("sed"))
    assert found.lines[-1] == "reboot"
    grub = machine.path("/etc/default/grub")
    command = edit.replace("/etc/default/grub", str(grub))
    subprocess.run(["/bin/sh", "-c", command], check=True, env={"PATH": "/usr/bin:/bin"})
    assert grub.read_text() == f'GRUB_CMDLINE_LINUX="{after}"\n'


@pytest.mark.parametrize(
    ("told", "grub"),
    [
        ("", "GRUB_CMDLINE_LINUX='quiet'\n"),
        ("", 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n'),
        ("intel_iommu=off", 'GRUB_CMDLINE_LINUX="quiet"\n'),
    ],
)
def test_a_grub_that_no_edit_fits(make: Make, told: str, grub: str) -> None:
    """A command that changes nothing is worse than none: the words are said instead."""
    layers = (without(DEBIAN, *NO_GROUP), kernel("6.1.0-30-amd64", told), function(EDU))
    lines = ways(make(*layers, {"/etc/default/grub": grub}))["vfio-type1"].lines
    assert not any(line.startswith("sed") for line in lines)
    assert any(line.startswith("# start the kernel") for line in lines)


def test_no_iommu_where_there_is_no_firmware_setup(make: Make) -> None:
    board: Files = {"/proc/sys/kernel/arch": "aarch64\n", "/proc/cpuinfo": "processor : 0\n"}
    found = ways(make(LAPTOP, board))["vfio-type1"]
    assert found.state is CANNOT
    assert "VT-d" not in " ".join(found.why)


def test_a_user_name_is_a_word_of_the_shell(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_module, "user_name", lambda _: "HOUSE\\alice")
    machine = make(DEBIAN, LOADED, NOBODY)
    machine.closed = {f"{PCI}/{EDU}/config"}
    found = ways(machine, EDU)
    assert "--user 'HOUSE\\alice'" in found["vfio-type1"].lines[-1]
    assert " 'HOUSE\\alice' " in found["sysfs"].lines[-1]


def test_interrupts_that_are_not_remapped(make: Make) -> None:
    machine = make(DEBIAN, LOADED, NO_REMAPPING)
    assert ways(machine)["vfio-type1"].lines == (f"echo 1 | tee {TYPE1}",)
    machine.add({TYPE1: "Y\n"})
    assert ways(machine)["vfio-type1"].state is WORKS


def test_a_sibling_in_the_way(make: Make) -> None:
    machine = make(DEBIAN, LOADED, function(SIBLING, group=14, driver="e1000e"))
    found = ways(machine, EDU)
    assert found["vfio-type1"].lines == (f"uspace bind {SIBLING}", f"uspace bind {EDU}")
    assert examine(machine).facts.shared_groups == {14: (f"{SIBLING} (e1000e)",)}
    net: Files = {
        "/proc/net/route": "Iface Destination\neth0 00000000\n",
        f"/sys/devices/pci0000:00/{SIBLING}/net/eth0/flags": "0x1003\n",
        "/sys/class/net/eth0": f"->/sys/devices/pci0000:00/{SIBLING}/net/eth0",
    }
    machine.add(net)
    assert ways(machine, EDU)["vfio-type1"].state is CANNOT
    assert {each.state for each in ways(machine, SIBLING).values()} == {CANNOT}
    assert not examine(machine, SIBLING).has_a_way


def test_a_bridge_whose_driver_is_in_the_way(make: Make) -> None:
    bridge = function(SIBLING, group=14, driver="shpchp")
    bridge[f"/sys/devices/pci0000:00/{SIBLING}/class"] = "0x060400"
    found = ways(make(DEBIAN, LOADED, bridge), EDU)["vfio-type1"]
    assert found.lines[0] == f"echo {SIBLING} | tee {PCI}/{SIBLING}/driver/unbind"


def test_vsock_is_the_machines_own(make: Make) -> None:
    folder = f"/sys/devices/pci0000:00/{EDU}/virtio3"
    vsock = {f"{folder}/device": "0x0013\n", "/sys/bus/virtio/devices/virtio3": f"->{folder}"}
    found = examine(make(MICROVM, function(EDU), vsock))
    assert found.facts.candidates == ()
    assert not found.has_a_way


def test_a_group_that_the_firmware_maps(make: Make) -> None:
    regions = "0x00000000fee00000 0x00000000feefffff msi\n0x0 0xffff direct\n"
    place = "/sys/kernel/iommu_groups/14/reserved_regions"
    found = ways(make(DEBIAN, LOADED, {place: regions}), EDU)
    assert "RMRR" in " ".join(found["vfio-type1"].why)


def test_a_locked_kernel(make: Make) -> None:
    machine = make(LOCKED)
    found = ways(machine, EDU)
    assert found["vfio-type1"].state is AFTER
    assert found["uio"].state is found["sysfs"].state is CANNOT
    assert "locked down (integrity, as Secure Boot wants it)" in found["sysfs"].why[0]
    assert examine(machine).facts.machine.secure_boot is True


def test_a_container(make: Make) -> None:
    found = examine(make(CONTAINER))
    assert found.facts.machine.container == "docker"
    assert found.facts.machine.sealed
    type1 = next(each for each in found.verdicts if each.way == "vfio-type1")
    assert type1.state is CANNOT
    assert found.request is not None
    assert "instead of a container" in found.request


def test_a_container_leaves_binding_to_its_host(make: Make) -> None:
    found = ways(make(CONTAINER, LOADED), EDU)["vfio-type1"]
    assert (found.state, found.lines) == (CANNOT, ())
    assert f"run on its host: uspace bind {EDU}" in " ".join(found.why)


def test_what_a_running_kernel_shows_counts_for_more(make: Make) -> None:
    machine = make(DEBIAN, MODERN, {"/proc/devices": "Character devices:\n242 vfio\n"})
    machine.add({"/proc/config.gz": config("VFIO_PCI=y", "IOMMUFD=y", "VFIO_DEVICE_CDEV=y")})
    found = ways(machine)
    assert found["vfio-cdev"].state is CANNOT
    assert found["vfio-compat"].state is WORKS


def test_a_container_that_was_given_the_nodes(make: Make) -> None:
    bound: Files = {f"{PCI}/{EDU}/driver": f"->{DRIVERS}/vfio-pci"}
    machine = make(CONTAINER, LOADED, bound)
    assert "--device /dev/vfio/14" in " ".join(ways(machine, EDU)["vfio-type1"].why)
    machine.add({"/dev/vfio/14": ""})
    assert ways(machine, EDU)["vfio-type1"].state is WORKS


@pytest.mark.parametrize(
    ("layer", "state"),
    [
        ({}, ModuleState.LOADABLE),
        ({"/etc/modprobe.d/x.conf": "blacklist vfio-pci\n"}, ModuleState.LOADABLE),
        ({"/etc/modprobe.d/x.conf": "install vfio_pci /bin/false\n"}, ModuleState.BLOCKED),
        (
            {
                "/etc/modprobe.d/x.conf": "",
                "/usr/lib/modprobe.d/x.conf": "install vfio_pci /bin/false\n",
            },
            ModuleState.LOADABLE,
        ),
        ({"/proc/cmdline": "quiet module_blacklist=x,vfio-pci\n"}, ModuleState.BLOCKED),
        ({"/proc/cmdline": "quiet nomodule\n"}, ModuleState.UNLOADABLE),
        ({"/proc/sys/kernel/modules_disabled": "1\n"}, ModuleState.UNLOADABLE),
        ({"/lib/modules/6.1.0-30-amd64/modules.dep": ""}, ModuleState.UNINSTALLED),
        ({"/proc/config.gz": config("VFIO_PCI=y")}, ModuleState.PRESENT),
        ({"/proc/config.gz": b"not packed"}, ModuleState.LOADABLE),
    ],
)
def test_modules(make: Make, layer: Files, state: ModuleState) -> None:
    machine = make(DEBIAN, layer)
    assert examine(machine).facts.kernel.modules["vfio-pci"] is state
    expected = AFTER if state is ModuleState.LOADABLE else CANNOT
    if state is not ModuleState.PRESENT:
        assert ways(machine)["vfio-type1"].state is expected


def test_a_device_of_the_board(make: Make) -> None:
    folder = "/sys/devices/platform/USPC0001:00/uio/uio0"
    node: Files = {
        f"{folder}/name": "edu\n",
        f"{folder}/version": "1\n",
        "/sys/class/uio/uio0": f"->{folder}",
        f"{folder}/device": "->/sys/devices/platform/USPC0001:00",
        "/dev/uio0": "",
    }
    machine = make(DEBIAN, NOBODY, node)
    assert ways(machine)["uio-platform"].state is WORKS
    machine.closed = {"/dev/uio0"}
    found = ways(machine, "uio:edu")
    assert list(found) == ["uio-platform"]
    assert found["uio-platform"].lines == ("sudo chown nobody /dev/uio0",)


def test_a_guest_needs_a_busybox_that_runs_alone(make: Make) -> None:
    guest = ways(make(DEBIAN))["guest"]
    assert guest.lines == ("apt-get install busybox-static",)
    assert not guest.is_real


def test_addresses_that_are_none(make: Make) -> None:
    machine = make(DEBIAN)
    with pytest.raises(NoDevice):
        examine(machine, "0000:00:1f.0")
    with pytest.raises(UnsupportedError, match="no hardware"):
        examine(machine, "virtual:edu")

"""Discovery in a tree of our own, and read-only on this machine's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.pci.fake_sysfs import EDU, FakeMachine
from uspace_drv.errors import NoDevice
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.ids import FunctionIds
from uspace_drv.pci.in_use import uses_of
from uspace_drv.pci.sysfs import PciBus, ResourceFlag

# A 64-bit prefetchable BAR 0, I/O ports in BAR 2 and a ROM, as Linux prints them.
RESOURCE = """\
0x0000004000080000 0x00000040000fffff 0x000000000014220c
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x000000000000c000 0x000000000000c01f 0x0000000000040101
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x00000000febd0000 0x00000000febdffff 0x0000000000046200
"""


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path)


def test_everything_that_sysfs_says(machine: FakeMachine) -> None:
    machine.function(EDU, driver="edu-native", group=3, resource=RESOURCE)
    function = machine.bus.function("00:04.0")
    assert function.ids == FunctionIds(0x1234, 0x11E8, 0x1AF4, 0x1100, 0xFF00, 0x10)
    assert function.driver == "edu-native"
    assert function.driver_override is None
    assert function.group is not None
    assert (function.group.number, function.group.type) == (3, "DMA-FQ")
    assert function.group.members == (EDU,)
    assert function.group.node == "/dev/vfio/3"
    assert (function.irq, function.numa_node, function.enabled) == (11, None, True)
    assert function.reset_methods == ("flr", "bus")


def test_resources(machine: FakeMachine) -> None:
    machine.function(EDU, resource=RESOURCE)
    memory, ports, rom = machine.bus.function(EDU).resources
    assert (memory.number, memory.start, memory.size) == (0, 0x4000080000, 0x80000)
    assert memory.flags & ResourceFlag.MEM
    assert str(memory) == "bar 0: 0x4000080000, 0x80000 bytes, memory, 64-bit, prefetchable"
    assert ports.is_io
    assert str(ports) == "bar 2: 0xc000, 0x20 bytes, io ports"
    assert str(rom) == "rom: 0xfebd0000, 0x10000 bytes, memory, prefetchable"


@pytest.mark.parametrize(("kind", "translated"), [("DMA", True), ("identity", False)])
def test_whether_an_iommu_translates(machine: FakeMachine, kind: str, translated: bool) -> None:
    machine.function(EDU)
    assert not machine.bus.function(EDU).is_translated
    machine.group(EDU, 5, kind)
    assert machine.bus.function(EDU).is_translated is translated


def test_a_group_that_vfio_made_up_protects_nothing(machine: FakeMachine) -> None:
    machine.function(EDU, group=0)
    machine.file("/sys/kernel/iommu_groups/0/name", "vfio-noiommu\n")
    function = machine.bus.function(EDU)
    assert function.group is not None
    assert function.group.node == "/dev/vfio/noiommu-0"
    assert not function.is_translated


def test_absent_function_says_where_and_what_there_is(machine: FakeMachine) -> None:
    with pytest.raises(NoDevice, match=r"devices; there are none"):
        machine.bus.function(EDU)
    for number in range(18):
        machine.function(PciAddress(0, 0, number, 0))
    with pytest.raises(NoDevice, match=r"0000:01:00.0: no .*0000:00:0f.0 and 2 more"):
        machine.bus.function("01:00.0")


def test_function_that_vanishes_while_it_is_read_is_left_out(machine: FakeMachine) -> None:
    folder = machine.function(EDU)
    machine.function(PciAddress(0, 0, 5, 0))
    machine.path(f"{folder}/device").unlink()
    assert [str(f.address) for f in machine.bus.functions()] == ["0000:00:05.0"]


def test_configuration_space_is_for_looking(machine: FakeMachine) -> None:
    folder = machine.function(EDU)
    machine.path(f"{folder}/config").write_bytes(bytes.fromhex("3412e811") + bytes(0xFC))
    with machine.bus.config(EDU) as config:
        assert (config.size, config.read32(0)) == (0x100, 0x11E81234)


def test_configuration_space_without_rights_is_the_header(machine: FakeMachine) -> None:
    folder = machine.function(EDU)
    machine.path(f"{folder}/config").write_bytes(bytes(64))
    with machine.bus.config(EDU) as config:
        assert config.size == 64


HAS_PCI = bool(PciBus().addresses())


@pytest.mark.skipif(not HAS_PCI, reason="this machine has no PCI bus")
def test_this_machine_lists_its_functions() -> None:
    functions = PciBus().functions()
    assert functions
    for function in functions:
        assert function == PciBus().function(function.address)
        modalias = PciBus().host.read(f"/sys/bus/pci/devices/{function.address}/modalias")
        assert function.ids.modalias == modalias


@pytest.mark.skipif(not HAS_PCI, reason="this machine has no PCI bus")
def test_this_machine_lives_on_what_carries_its_root() -> None:
    host = PciBus().host
    root = next(
        line.split()[2]
        for line in (host.read("/proc/self/mountinfo") or "").splitlines()
        if line.split()[4] == "/"
    )
    path = host.resolve(f"/sys/dev/block/{root}")
    on = [f.address for f in PciBus().functions() if f"/{f.address}/" in path]
    if not on:
        pytest.skip(f"the root file system ({root}) is not on a disk of a PCI function")
    assert any("/ (" in use.what for use in uses_of(on[-1]))

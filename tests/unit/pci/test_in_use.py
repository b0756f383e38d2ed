"""What the machine lives on, through every layer between a function and a mount or a route."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.pci.fake_sysfs import FakeMachine
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.in_use import uses_of

DISK, CARD, BRIDGE = (PciAddress(0, 0, number, 0) for number in (1, 2, 3))
IPV4 = "Iface\tDestination\tGateway\tFlags\n"
ROUTE6 = "{net:0<32} 40 {zero:0>32} 00 {zero:0>32} 00000100 00000001 00000000 {flags} {name}\n"


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path)


@pytest.fixture
def disk(machine: FakeMachine) -> str:
    """vda with one partition on 0000:00:01.0; returns the disk's folder."""
    path = machine.disk("vda", f"{machine.function(DISK)}/virtio0", "254:0")
    machine.file(f"{path}/vda1/partition", "1\n")
    machine.block("vda1", f"{path}/vda1", "254:1")
    return path


def words(machine: FakeMachine, address: PciAddress = DISK) -> list[str]:
    return [str(use) for use in uses_of(address, machine)]


def mount(number: str, point: str, kind: str = "ext4", source: str = "/dev/x") -> str:
    return f"27 1 {number} / {point} rw,relatime shared:1 - {kind} {source} rw"


@pytest.mark.usefixtures("disk")
def test_nothing_lives_on_an_idle_disk(machine: FakeMachine) -> None:
    machine.mounts(mount("0:21", "/proc", "proc", "proc"))
    assert words(machine) == []


def test_the_socket_to_the_host(machine: FakeMachine) -> None:
    for address, number in ((DISK, "0x0013"), (CARD, "0x0002")):
        device = f"{machine.function(address)}/virtio{number[-1]}"
        machine.file(f"{device}/device", f"{number}\n")
        machine.symlink(f"/sys/bus/virtio/devices/virtio{number[-1]}", device)
    assert words(machine) == ["0000:00:01.0: the host talks with this machine through it (vsock)"]
    assert words(machine, CARD) == []


@pytest.mark.usefixtures("disk")
def test_mounted_partition(machine: FakeMachine) -> None:
    machine.mounts(mount("254:1", "/"), mount("254:1", "/mnt/my\\040disk"))
    assert words(machine) == [
        "0000:00:01.0: / (vda1) is mounted from it",
        "0000:00:01.0: /mnt/my disk (vda1) is mounted from it",
    ]
    machine.function(CARD)
    assert words(machine, CARD) == []


@pytest.mark.usefixtures("disk")
def test_device_mapper_over_raid_over_a_partition(machine: FakeMachine) -> None:
    for name, number, below in (("md0", "9:0", "vda1"), ("dm-0", "253:0", "md0")):
        folder = f"/sys/devices/virtual/block/{name}"
        machine.block(name, folder, number)
        machine.symlink(f"{folder}/slaves/{below}", f"/sys/class/block/{below}")
    machine.mounts(mount("253:0", "/home", source="/dev/mapper/home"))
    assert words(machine) == ["0000:00:01.0: /home (dm-0) is mounted from it"]


@pytest.mark.usefixtures("disk")
def test_partition_of_a_raid(machine: FakeMachine) -> None:
    folder = "/sys/devices/virtual/block/md0"
    machine.block("md0", folder, "9:0")
    machine.symlink(f"{folder}/slaves/vda", "/sys/class/block/vda")
    machine.file(f"{folder}/md0p1/partition", "1\n")
    machine.block("md0p1", f"{folder}/md0p1", "259:0")
    machine.mounts(mount("259:0", "/srv"))
    assert words(machine) == ["0000:00:01.0: /srv (md0p1) is mounted from it"]


@pytest.mark.usefixtures("disk")
def test_file_on_a_loop_device(machine: FakeMachine) -> None:
    machine.block("loop0", "/sys/devices/virtual/block/loop0", "7:0")
    machine.file("/sys/devices/virtual/block/loop0/loop/backing_file", "/data/image\n")
    machine.mounts(mount("254:1", "/data"), mount("7:0", "/snap"))
    assert "0000:00:01.0: /snap (loop0) is mounted from it" in words(machine)


@pytest.mark.usefixtures("disk")
def test_btrfs_counts_all_its_disks(machine: FakeMachine) -> None:
    machine.disk("sda", f"{machine.function(CARD)}/ata1", "8:0")
    for name in ("vda1", "sda"):
        machine.symlink(f"/sys/fs/btrfs/1234/devices/{name}", f"/sys/class/block/{name}")
    machine.mounts(mount("0:30", "/", "btrfs", "/dev/vda1"))
    assert words(machine) == ["0000:00:01.0: / (vda1) is mounted from it"]
    assert words(machine, CARD) == ["0000:00:02.0: / (sda) is mounted from it"]


def test_nvme_with_multipath_has_its_disk_elsewhere(machine: FakeMachine) -> None:
    machine.file(f"{machine.function(DISK)}/nvme/nvme0/state", "live\n")
    subsystem = "/sys/devices/virtual/nvme-subsystem/nvme-subsys0"
    machine.block("nvme0n1", f"{subsystem}/nvme0n1", "259:0")
    machine.symlink(f"{subsystem}/nvme0", f"/sys/bus/pci/devices/{DISK}/nvme/nvme0")
    machine.mounts(mount("259:0", "/"))
    assert words(machine) == ["0000:00:01.0: / (nvme0n1) is mounted from it"]


@pytest.mark.usefixtures("disk")
def test_swap_on_a_partition_and_in_a_file(machine: FakeMachine) -> None:
    machine.mounts(mount("254:1", "/"))
    machine.file(
        "/proc/swaps",
        "Filename Type Size Used Priority\n"
        "/dev/vda partition 100 0 -2\n"
        "/swap\\040file file 100 0 -3\n",
    )
    assert words(machine)[1:] == [
        "0000:00:01.0: swap (/dev/vda) is on it",
        "0000:00:01.0: swap (/swap file) is on it",
    ]


def test_a_disk_behind_a_bridge_counts_for_the_bridge(machine: FakeMachine) -> None:
    machine.function(BRIDGE)
    behind = PciAddress(0, 1, 0, 0)
    machine.disk("sda", machine.function(behind, behind=BRIDGE), "8:0")
    machine.mounts(mount("8:0", "/"))
    for address in (BRIDGE, behind):
        assert words(machine, address) == [f"{address}: / (sda) is mounted from it"]


@pytest.mark.parametrize("kind", ["9p", "virtiofs"])
def test_a_share_of_the_host(machine: FakeMachine, kind: str) -> None:
    for address, number, tag in ((DISK, 0, "root"), (CARD, 1, "other")):
        folder = f"{machine.function(address)}/virtio{number}"
        if kind == "9p":
            machine.file(f"{folder}/mount_tag", f"{tag}\0")
            machine.symlink(f"/sys/bus/virtio/devices/virtio{number}", folder)
        else:
            machine.file(f"{folder}/device", "0x001a\n")
            machine.file(f"/sys/fs/virtiofs/{number}/tag", f"{tag}\n")
            machine.symlink(f"/sys/fs/virtiofs/{number}/device", folder)
    machine.mounts(mount("0:20", "/", kind, "root"), mount("0:21", "/proc", "proc", "other"))
    assert words(machine) == ["0000:00:01.0: / (root) is mounted from it"]
    assert words(machine, CARD) == []


def test_mounts_that_only_the_first_process_sees(machine: FakeMachine) -> None:
    """This one was put into a folder (chroot) of an overlay over what is mounted there."""
    machine.file(f"{machine.function(DISK)}/virtio0/mount_tag", "root\0")
    machine.symlink("/sys/bus/virtio/devices/virtio0", f"/sys/bus/pci/devices/{DISK}/virtio0")
    machine.mounts(mount("0:22", "/", "overlay", "overlay"))
    assert words(machine) == []
    machine.file("/proc/1/mountinfo", f"{mount('0:20', '/host', '9p', 'root')}\n")
    assert words(machine) == ["0000:00:01.0: /host (root) is mounted from it"]


@pytest.mark.usefixtures("disk")
def test_mounts_of_other_namespaces(machine: FakeMachine) -> None:
    """A container's volume: the host does not see it, and one process speaks for all of them."""
    for process, space in (("1", "mnt:[1]"), ("70", "mnt:[7]"), ("71", "mnt:[7]")):
        machine.file(f"/proc/{process}/mountinfo", f"{mount('254:1', f'/volume{process}')}\n")
        machine.symlink(f"/proc/{process}/ns/mnt", f"/proc/{process}/ns/{space}")
    machine.symlink("/proc/69/ns/mnt", "/proc/69/ns/mnt:[7]")  # it has just ended
    assert words(machine) == [
        "0000:00:01.0: /volume1 (vda1) is mounted from it",
        "0000:00:01.0: /volume70 (vda1) is mounted from it by process 70",
    ]


def test_interface_with_a_route(machine: FakeMachine) -> None:
    machine.interface("eth0", machine.function(CARD))
    assert words(machine, CARD) == []
    machine.file("/proc/net/route", f"{IPV4}eth0\t00000000\t010200C0\t0003\n")
    assert words(machine, CARD) == ["0000:00:02.0: network interface eth0 is up with a route"]


def test_interface_that_is_down_does_not_count(machine: FakeMachine) -> None:
    machine.interface("eth0", machine.function(CARD), flags=0x1002)
    machine.file("/proc/net/route", f"{IPV4}eth0\t00000000\t010200C0\t0003\n")
    assert words(machine, CARD) == []


@pytest.mark.parametrize(
    ("net", "flags", "counts"),
    [
        ("fd00", "00000001", True),
        ("0", "00000003", True),
        ("fe80", "00000001", False),
        ("ff00", "00000001", False),
        ("fd00", "80200001", False),
        ("0", "00200200", False),
    ],
)
def test_only_ipv6_routes_that_lead_out_count(
    machine: FakeMachine, net: str, flags: str, counts: bool
) -> None:
    machine.interface("eth0", machine.function(CARD))
    machine.file("/proc/net/ipv6_route", ROUTE6.format(net=net, zero="", flags=flags, name="eth0"))
    assert bool(words(machine, CARD)) is counts


def test_interface_under_a_bond_under_a_bridge(machine: FakeMachine) -> None:
    machine.interface("eth0", machine.function(CARD))
    for name, below in (("bond0", "eth0"), ("br0", "bond0")):
        machine.interface(name, f"/sys/devices/virtual/{name}")
        machine.symlink(f"/sys/class/net/{name}/lower_{below}", f"/sys/class/net/{below}")
    machine.file("/proc/net/route", f"{IPV4}br0\t00000000\t010200C0\t0003\n")
    assert words(machine, CARD) == [
        "0000:00:02.0: network interface eth0 (under br0) is up with a route"
    ]

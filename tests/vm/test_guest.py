"""The guest itself, run from the host: each test boots one."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from uspace_drv.testing.guest import PROCESSORS, Guest, GuestFailed, order, own_kernel
from uspace_drv.testing.guest.iommu import KINDS, IommuKind

pytestmark = pytest.mark.timeout(240)

BOOT = 180.0  # seconds; a busy machine may be slow, a hang is still found
EDU = "0000:00:04.0"
BIND = f"""
set -e
cd /sys/bus/pci/devices/{EDU}
cat vendor device
echo $1 >driver_override
echo {EDU} >/sys/bus/pci/drivers_probe
basename $(readlink driver)
"""
GET_WAYS = f"""
cat /sys/module/vfio/parameters/enable_unsafe_noiommu_mode
find /dev/vfio /dev/iommu -type c
ls /sys/bus/platform/drivers | grep uio_
for device in mtty mdpy mbochs; do
    ls -d /sys/devices/virtual/$device/$device/mdev_supported_types
done
exec {sys.executable} - <<'END'
import fcntl, os, struct
iommu = os.open("/dev/iommu", os.O_RDWR)
(name,) = os.listdir("/dev/vfio/devices")
card = os.open("/dev/vfio/devices/" + name, os.O_RDWR)
fcntl.ioctl(card, 0x3B76, struct.pack("IIiI", 16, 0, iommu, 0))
space = struct.unpack("III", fcntl.ioctl(iommu, 0x3B81, bytes([12]) + bytes(11)))[2]
fcntl.ioctl(card, 0x3B77, struct.pack("IIII", 16, 0, space, 0))
print("attached", name)
END
"""
PULL = """
import os, time
from pathlib import Path
from uspace_drv.testing.guest.hot_unplug import pull_card
devices = Path("/sys/bus/pci/devices")
first, second = devices / "0000:01:00.0", devices / "0000:02:00.0"
def wait(card):
    while card.exists():
        time.sleep(0.02)
    print("gone", card.name, flush=True)
config = os.open(first / "config", os.O_RDONLY)
pull_card(devices / "0000:00:06.0")
print(os.pread(config, 2, 0).hex())
wait(first)
print("order", second.exists(), flush=True)
wait(second)
"""
COMMAND = [sys.executable, "-m", "uspace_drv.testing.guest"]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield the folder that guests make their own in; it must be empty again afterwards."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    yield tmp_path
    assert list(tmp_path.iterdir()) == []
    assert children(os.getpid()) == []


def children(pid: int) -> list[int]:
    words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(word) for word in words]


def test_command_sees_the_host_and_changes_nothing(
    temporary: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    share = tmp_path_factory.mktemp("with, comma and space")
    trace = f"/etc/uspace-guest-test-{os.getpid()}"
    pieces: list[bytes] = []
    script = f"""
        pwd; echo "$WORD"; echo error >&2; head -c 6 {__file__}; echo
        touch {trace}; echo result >'{share}/result'; ls /dev/fd/ | wc -l; nproc; uname -r
        cd {PROCESSORS}; grep -l '^CPU ' */comm | sed s/comm/schedstat/ | xargs cat >'{share}/run'
        dd if=/dev/zero bs=65536 count=64 2>/dev/null | tr '\\0' x; exit 7
    """
    result = Guest(shares=[share], memory="512M", shows_processors=True).run(
        ["sh", "-c", script], timeout=BOOT, environment={"WORD": "a 'b' $c\n"}, sink=pieces.append
    )
    lines = result.output.split("\n")
    assert lines[:5] == [str(Path.cwd()), "a 'b' $c", "", "error", '"""The'], result.output[:500]
    assert lines[-2].startswith(("6.", "7."))
    assert lines[-1] == "x" * 64 * 65536
    assert b"".join(pieces).decode() == result.output
    assert len(pieces) > 1
    assert result.exit_code == 7
    assert "uspace guest: ready" in result.kernel_log
    assert (share / "result").read_text() == "result\n"
    times = [int(line.split()[0]) for line in (share / "run").read_text().splitlines()]
    assert len(times) == 2
    assert max(times) > 1e8  # nanoseconds: it has booted
    assert not Path(trace).exists()


def test_vfio_binds_behind_the_iommu(temporary: Path) -> None:
    word = "vfio_iommu_type1.allow_unsafe_interrupts=1"  # a module's: it is not built in
    guest = Guest(devices=["edu,addr=4"], iommu="intel", memory="512M", words=[word])
    group = f"/sys/bus/pci/devices/{EDU}/iommu_group"
    script = BIND + f'ls -l /dev/vfio/$(basename "$(readlink {group})"); ls {group}/devices'
    script += "; cat /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"
    result = guest.run(["sh", "-c", script, "bind", "vfio-pci"], timeout=BOOT)
    assert result.exit_code == 0, result.output
    vendor, device, driver, node, alone, unsafe = result.output.splitlines()
    assert (vendor, device, driver, alone, unsafe) == ("0x1234", "0x11e8", "vfio-pci", EDU, "Y")
    assert node.startswith("c")


def test_uio_binds_without_an_iommu(temporary: Path) -> None:
    guest = Guest(devices=["edu,addr=4"], memory="256M", hugepages=8)
    script = BIND + "cat /sys/class/uio/uio0/name; grep -E 'HugePages_Free|MemAv' /proc/meminfo"
    script += f"; ls -d /dev/hugepages /dev/uio0 /sys/bus/pci/devices/{EDU}/iommu_group || true"
    result = guest.run(["sh", "-c", script, "bind", "uio_pci_generic"], timeout=BOOT)
    assert result.exit_code == 0, result.output
    words = result.output.split()
    assert words[2:4] == ["uio_pci_generic", "uio_pci_generic"]
    assert words[words.index("HugePages_Free:") + 1] == "8"
    assert "/dev/uio0" in words
    assert "/dev/hugepages" in words
    assert "cannot access" in result.output  # no IOMMU group: nothing translates


@pytest.mark.parametrize("iommu", KINDS)
def test_our_own_kernel_has_every_way(temporary: Path, iommu: IommuKind) -> None:
    guest = Guest(
        devices=["edu,addr=4"], iommu=iommu, memory="512M", kernel=own_kernel(),
        modules=["mtty", "mdpy", "mbochs"], words=["vfio.enable_unsafe_noiommu_mode=1"],
    )  # fmt: skip
    result = guest.run(["sh", "-c", BIND + GET_WAYS, "bind", "vfio-pci"], timeout=BOOT)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[2:4] == ["vfio-pci", "Y"]
    kind = "noiommu-" if iommu == "none" else ""
    nodes = {line.rpartition("/")[2] for line in lines if line.startswith("/dev/")}
    assert {"iommu", "vfio", f"{kind}vfio0"} < nodes
    assert len([node for node in nodes if node.removeprefix(kind).isdigit()]) == 1
    assert {"uio_pdrv_genirq", "uio_dmem_genirq"} < set(lines)
    assert len([line for line in lines if line.endswith("mdev_supported_types")]) == 3
    assert lines[-1] == f"attached {kind}vfio0"


def test_newer_devices_of_a_newer_qemu(temporary: Path) -> None:
    devices = ["pcie-root-port,id=root,addr=6", "igb,bus=root"]
    guest = Guest(devices=devices, iommu="intel", memory="512M", kernel=own_kernel(), qemu="newest")
    script = "cd /sys/bus/pci/devices/0000:01:00.0; echo 2 >sriov_numvfs; ls -d virtfn?"
    result = guest.run(["sh", "-c", script], timeout=BOOT)
    assert result.output.split() == ["virtfn0", "virtfn1"]


def test_cards_go_with_and_without_warning(
    temporary: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monitor = tmp_path_factory.mktemp("orders") / "monitor"

    def sink(piece: bytes) -> None:
        if b"order True" in piece:
            order(monitor, "device_del", id="second")

    slots = [f"pcie-root-port,id=slot{number},chassis={number},addr={number}" for number in (6, 7)]
    cards = ["virtio-rng-pci,bus=slot6,id=first", "virtio-rng-pci,bus=slot7,id=second"]
    guest = Guest(devices=slots + cards, memory="512M", monitor=monitor, kernel=own_kernel())
    result = guest.run([sys.executable, "-c", PULL], timeout=BOOT, sink=sink)
    assert result.output.splitlines() == [
        "ffff", "gone 0000:01:00.0", "order True", "gone 0000:02:00.0",
    ]  # fmt: skip
    assert "Card not present" in result.kernel_log
    assert "utton press" in result.kernel_log


def test_a_hang_ends_at_the_deadline(temporary: Path) -> None:
    with pytest.raises(GuestFailed, match=r"not finished within 8 s.*kernel log:\n.") as caught:
        Guest(memory="256M").run(["sleep", "1000"], timeout=8.0)
    assert "Linux version" in caught.value.kernel_log


def test_a_panic_ends_at_once(temporary: Path) -> None:
    guest = Guest(memory="256M", words=["rdinit=/nowhere"])
    with pytest.raises(GuestFailed, match=r"(?s)before the command did.*Kernel panic"):
        guest.run(["true"], timeout=BOOT)


def test_a_device_that_qemu_does_not_know(temporary: Path) -> None:
    with pytest.raises(GuestFailed, match=r"QEMU ended .* before .*'nonsuch' is not a valid"):
        Guest(devices=["nonsuch"]).run(["true"], timeout=BOOT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_machine_outlives_its_command(tmp_path: Path, number: signal.Signals) -> None:
    arguments = ["--timeout", str(BOOT), "--", "sh", "-c", "echo up; exec sleep 1000"]
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, env=os.environ | {"TMPDIR": str(tmp_path)}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        (machine,) = map(os.pidfd_open, children(process.pid))
        process.send_signal(number)
        code = process.wait(30)
        # A process descriptor is readable when the process has ended.
        ended, _, _ = select.select([machine], [], [], 30)
        os.close(machine)
    assert ended
    if number != signal.SIGKILL:
        assert code == 128 + number
        assert list(tmp_path.iterdir()) == []

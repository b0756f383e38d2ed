"""The guest itself, run from the host: each test boots one."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from uspace_drv.testing.guest import Guest, GuestFailed

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
        dd if=/dev/zero bs=65536 count=64 2>/dev/null | tr '\\0' x; exit 7
    """
    result = Guest(shares=[share], memory="512M").run(
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
    assert not Path(trace).exists()


def test_vfio_binds_behind_the_iommu(temporary: Path) -> None:
    guest = Guest(devices=["edu,addr=4"], iommu="intel", memory="512M")
    group = f"/sys/bus/pci/devices/{EDU}/iommu_group"
    script = BIND + f'ls -l /dev/vfio/$(basename "$(readlink {group})"); ls {group}/devices'
    result = guest.run(["sh", "-c", script, "bind", "vfio-pci"], timeout=BOOT)
    assert result.exit_code == 0, result.output
    vendor, device, driver, node, alone = result.output.splitlines()
    assert (vendor, device, driver, alone) == ("0x1234", "0x11e8", "vfio-pci", EDU)
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

"""The kernel's own nvme driver on a controller, worked hard; runs in a guest, by its name.

The disk is all ours and what was on it is lost. NVME_ADDRESS is the function, NVME_RESULTS the
folder for what nvme-cli reads out of it, and NVME_MODULES the kernel's modules, if it has any.
Linux Documentation/ABI/stable/sysfs-class-nvme has the files that the driver offers.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ADDRESS = os.environ["NVME_ADDRESS"]
RESULTS = Path(os.environ["NVME_RESULTS"])
MODULES = Path(os.environ.get("NVME_MODULES", "/nowhere"))
ROUNDS = 10
RESETS = 5
APPEARS = 60.0  # seconds; the driver allows a controller CAP.TO to become ready

os.environ["PATH"] += ":/usr/sbin:/sbin"

# The data is verified while it is written and once more when all of it is there.
FIO = (
    "fio", "--name=verify", "--ioengine=io_uring", "--direct=1", "--rw=randwrite",
    "--bsrange=4k-64k", "--iodepth=16", "--verify=crc32c", "--verify_backlog=64",
    "--verify_fatal=1", "--randseed=5", "--output-format=json",
)  # fmt: skip


def run(*words: str | Path, text: str | None = None) -> str:
    """Run a program to its end and return what it printed."""
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def wait_for(found: Callable[[], bool], what: str) -> None:
    """Wait until `found` says so: the kernel looks for disks in the background."""
    deadline = time.monotonic() + APPEARS
    while not found():
        assert time.monotonic() < deadline, f"{what}: not seen within {APPEARS:g} s"
        time.sleep(0.02)


def controller() -> Path:
    """Return the driver's folder of the controller, in sysfs, as soon as it is live."""
    folder = Path(f"/sys/bus/pci/devices/{ADDRESS}/nvme")
    wait_for(lambda: any(folder.glob("nvme*")), f"{folder}")
    (found,) = folder.glob("nvme*")
    wait_for(lambda: (found / "state").read_text() == "live\n", f"{found} live")
    return found


def disk() -> Path:
    """Return the first namespace, as a file in /dev."""
    path = Path("/dev", f"{controller().name}n1")
    wait_for(path.is_block_device, f"{path}")
    return path


def partition(number: int) -> Path:
    path = Path(f"{disk()}p{number}")
    wait_for(path.is_block_device, f"{path}")
    return path


@contextmanager
def mounted(path: Path, folder: Path) -> Iterator[Path]:
    run("mount", path, folder)
    try:
        yield folder
    finally:
        run("umount", folder)


def contents(folder: Path) -> dict[str, str]:
    """Return the checksum of every file under `folder`."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and "lost+found" not in path.parts
    }


def plant(folder: Path) -> None:
    """Make a tree of files, from empty ones to some of a megabyte."""
    source = random.Random(1)
    sizes = [0, 1, 511, 4096, 4097, 1 << 20, *(source.randrange(40_000) for _ in range(60))]
    for number, size in enumerate(sizes):
        path = folder / f"branch{number % 7}" / f"twig{number % 3}" / f"leaf{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.randbytes(size))


def read_out() -> None:
    """Leave what nvme-cli says of the controller, as it prints it and byte by byte."""
    device = f"/dev/{controller().name}"
    for name in ("id-ctrl", "smart-log"):
        (RESULTS / f"{name}.json").write_text(run("nvme", name, device, "--output-format=json"))
        raw = subprocess.run(
            ["nvme", name, device, "--output-format=binary"], capture_output=True, check=True
        )
        (RESULTS / f"{name}.bin").write_bytes(raw.stdout)


def test_nvme_cli_reads_what_the_driver_saw() -> None:
    read_out()
    said = json.loads((RESULTS / "id-ctrl.json").read_text())
    for name, file in {"sn": "serial", "mn": "model", "fr": "firmware_rev"}.items():
        assert said[name].strip() == (controller() / file).read_text().strip()
    spaces = json.loads(run("nvme", "list-ns", f"/dev/{controller().name}", "-o", "json"))
    assert spaces["nsid_list"][0] == {"nsid": 1}
    sectors = int(Path("/sys/class/block", disk().name, "size").read_text())
    space = json.loads(run("nvme", "id-ns", disk(), "--output-format=json"))
    used = next(form for form in space["lbafs"] if form.get("in_use", True))
    assert space["nsze"] << used["ds"] == sectors * 512


def test_partitions() -> None:
    run("sfdisk", "--quiet", "--wipe=always", disk(), text="label: gpt\n,32M\n,\n")
    assert int(Path("/sys/class/block", partition(1).name, "size").read_text()) == (32 << 20) // 512
    assert partition(2).is_block_device()


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Make a file system with a tree of files on the first partition; return what is in it."""
    run("mkfs.ext4", "-q", partition(1))
    with mounted(partition(1), tmp_path_factory.mktemp("first")) as folder:
        plant(folder)
        run("fstrim", folder)
        return contents(folder)


def check_file_system(planted: dict[str, str], folder: Path) -> None:
    """Compare what is on the disk, and let the file system's own checker look for trouble."""
    assert len(planted) == 66
    Path("/proc/sys/vm/drop_caches").write_text("3")
    with mounted(partition(1), folder):
        assert contents(folder) == planted
    assert "clean" in run("dumpe2fs", "-h", partition(1))
    run("e2fsck", "-f", "-n", partition(1))


def test_a_file_system_holds_its_files(planted: dict[str, str], tmp_path: Path) -> None:
    check_file_system(planted, tmp_path)


def test_fio_finds_no_bad_block() -> None:
    job = json.loads(run(*FIO, f"--filename={partition(2)}", "--size=16M"))["jobs"][0]
    assert job["error"] == 0
    assert job["write"]["io_bytes"] >= 16 << 20
    assert job["read"]["io_bytes"] == job["write"]["io_bytes"]


def test_resets_under_load() -> None:
    words = (*FIO, f"--filename={partition(2)}", "--size=16M", "--time_based", "--runtime=10")
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as fio:
        for _ in range(RESETS):
            with pytest.raises(subprocess.TimeoutExpired):
                fio.wait(1.0)  # the load goes on
            (controller() / "reset_controller").write_text("1")
        said, _ = fio.communicate()
    assert fio.returncode == 0, said
    job = json.loads(said)["jobs"][0]
    assert job["error"] == 0
    assert job["read"]["io_bytes"] > 0


def leave_and_come_back() -> None:
    """Let the driver go and come again: as a module, or where it is built in, from the device."""
    driver = next(MODULES.rglob("nvme.ko"), None)
    if driver:
        run("busybox", "rmmod", "nvme")
        run("busybox", "insmod", driver)
    else:
        for file in ("unbind", "bind"):
            Path("/sys/bus/pci/drivers/nvme", file).write_text(ADDRESS)


def checksum(path: Path) -> str:
    """Return that of a disk's first megabyte, which no cache answers for."""
    words = ("dd", f"if={path}", "bs=1M", "count=1", "iflag=direct", "status=none")
    done = subprocess.run(words, capture_output=True, check=True)
    assert len(done.stdout) == 1 << 20
    return hashlib.sha256(done.stdout).hexdigest()


def test_the_driver_comes_and_goes() -> None:
    before = checksum(disk())
    for _ in range(ROUNDS):
        leave_and_come_back()
        assert checksum(disk()) == before


def test_the_file_system_is_whole_after_all(planted: dict[str, str], tmp_path: Path) -> None:
    check_file_system(planted, tmp_path)


def test_the_log_counts_what_was_done() -> None:
    """Runs last: then nothing is left to be done that the model would count as well."""
    read_out()
    log = json.loads((RESULTS / "smart-log.json").read_text())
    counts = {name: int(value) for name, value in log.items()}  # the long ones are text
    assert (counts["critical_warning"], counts["media_errors"]) == (0, 0)
    assert counts["host_write_commands"] > 1000
    assert counts["data_units_written"] * 1000 * 512 > 32 << 20

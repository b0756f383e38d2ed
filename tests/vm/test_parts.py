"""The parts of a guest that need no boot: archive, modules, image, missing programs, tally."""

import lzma
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from uspace_drv.errors import HostError
from uspace_drv.testing.guest import Guest, Kernel, initramfs, programs
from uspace_drv.testing.guest.__main__ import main
from uspace_drv.testing.guest.cache import fetch
from uspace_drv.testing.guest.iommu import KINDS, IommuKind
from uspace_drv.testing.guest.kernel import extract_elf
from uspace_drv.testing.guest.machine import Result
from uspace_drv.testing.guest.modules import BOOT_MODULES, load_modules

SCRIPTS = Path(__file__).parents[2] / "scripts"
TALLY, MATRIX = SCRIPTS / "tally.py", SCRIPTS / "matrix.py"


def test_archive_is_what_cpio_reads(tmp_path: Path) -> None:
    entries = [("a", 0o040755, b""), ("a/odd", 0o100755, b"12345"), ("empty", 0o100755, b"")]
    packed = initramfs.archive(entries)
    busybox = programs.find_program("busybox")
    subprocess.run([busybox, "cpio", "-idm"], input=packed, cwd=tmp_path, check=True)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "a", "a/odd", "empty",
    ]  # fmt: skip
    assert (tmp_path / "a/odd").read_bytes() == b"12345"
    assert os.access(tmp_path / "a/odd", os.X_OK)


def test_command_script_quotes(tmp_path: Path) -> None:
    folder = tmp_path / "it's here"
    folder.mkdir()
    argv = ["sh", "-c", 'pwd; echo "$1 $A $B"', "sh", "x  $y"]
    script = initramfs.command_script(argv, {"A": "1 2", "B": "'"}, folder)
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"{folder}\nx  $y 1 2 '\n"


def test_static_program() -> None:
    assert initramfs.is_static(programs.find_program("busybox").read_bytes())
    assert not initramfs.is_static(Path("/bin/sh").read_bytes())


def module(folder: Path, name: str, depends: str) -> bytes:
    content = b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0"
    packed = lzma.compress(content) if name.endswith(".xz") else content
    folder.joinpath("kernel", name).write_bytes(packed)
    return content


def test_modules_come_after_what_they_need(tmp_path: Path) -> None:
    (tmp_path / "kernel").mkdir()
    module(tmp_path, "vfio-pci.ko", "vfio,core")
    core = module(tmp_path, "core.ko.xz", "vfio")
    module(tmp_path, "vfio.ko", "built-in")
    module(tmp_path, "unused.ko", "")
    (tmp_path / "modules.builtin").write_text("kernel/a/built_in.ko\n")
    loaded = load_modules(tmp_path, ["vfio-pci", "vfio", "built-in"])
    assert list(loaded) == ["vfio", "core", "vfio_pci"]
    assert loaded["core"] == core
    with pytest.raises(HostError, match="has no module nonsuch"):
        load_modules(tmp_path, ["nonsuch"])


def image(payload: bytes) -> bytes:
    setup = bytearray(3 * 512)
    setup[0x1F1] = 2
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", setup, 0x248, 16, len(payload))
    return bytes(setup) + bytes(16) + payload + b"after it"


def test_elf_inside_an_image() -> None:
    size = struct.pack("<I", 12)  # the kernel's build appends the unpacked size
    assert extract_elf(image(lzma.compress(b"\x7fELF and more") + size)) == b"\x7fELF and more"
    assert extract_elf(image(lzma.compress(b"something else"))) is None
    assert extract_elf(image(b"packed otherwise")) is None
    assert extract_elf(bytes(4096)) is None


@pytest.mark.parametrize(
    ("missing", "package"),
    [("qemu-system-x86_64", "qemu-system-x86"), ("busybox", "busybox-static")],
)
def test_missing_program_names_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, package: str
) -> None:
    for name in programs.PACKAGES:
        if name != missing and shutil.which(name):
            (tmp_path / name).symlink_to(programs.find_program(name))
    monkeypatch.setenv("PATH", str(tmp_path))
    # Any ELF file stands for a kernel: it is never booted.
    with pytest.raises(HostError, match=rf"{missing}: not found.* apt-get install {package}$"):
        Guest(kernel=Kernel(Path("/bin/sh"))).run(["true"])


def test_missing_apt_names_the_other_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="apt-cache: not found"):
        Guest().run(["true"])


def test_apt_that_knows_no_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "apt-cache").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="apt-get update"):
        Guest().run(["true"])


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "which COMMAND"),
        (["--iommu", "nonsuch", "true"], 2, "'none', 'intel'"),
        (["--kernel", "/bin/sh", "--share", "/nowhere", "true"], 2, "/nowhere"),
        (["--modules", "/", "true"], 2, "--kernel"),
        (["--devcie", "edu", "--", "true"], 2, "No such option '--devcie'"),
        (["--log", "/nonexistent/log", "true"], 2, "cannot write /nonexistent/log: No such file"),
    ],
)
def test_wrong_arguments(arguments: list[str], code: int, says: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code
    assert says in result.output


def test_options_of_the_command_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, ...]] = []

    def run(_: Guest, argv: tuple[str, ...], **__: object) -> Result:
        seen.append(argv)
        return Result(0, "", "")

    monkeypatch.setattr(Guest, "run", run)
    for words in (["ls", "--log", "-l"], ["--", "ls", "--log", "-l"]):
        assert CliRunner().invoke(main, words).exit_code == 0
    assert seen == [("ls", "--log", "-l")] * 2


@pytest.mark.parametrize(
    ("before", "code"), [(signal.default_int_handler, 129), (signal.SIG_IGN, 0)]
)
def test_a_terminal_that_is_closed(monkeypatch: pytest.MonkeyPatch, before: Any, code: int) -> None:
    def run(*_: object, **__: object) -> Result:
        signal.raise_signal(signal.SIGHUP)
        return Result(0, "", "")

    monkeypatch.setattr(Guest, "run", run)
    found = signal.signal(signal.SIGHUP, before)
    try:
        assert CliRunner().invoke(main, ["true"]).exit_code == code
    finally:
        signal.signal(signal.SIGHUP, found)


def test_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(HostError, match=r"Not a directory; set XDG_CACHE_HOME to a folder"):
        fetch(lambda _: "name")


def words_of(guest: Guest) -> str:
    return " ".join(guest.command(["qemu"], Path("/tmp"), Kernel(Path("/bin/sh")), 5))


@pytest.mark.parametrize("iommu", KINDS)
def test_each_iommu_has_its_device_and_words(iommu: IommuKind) -> None:
    words = words_of(Guest(iommu=iommu, iommu_option="aw-bits=39"))
    assert (",aw-bits=39" in words) == (iommu != "none")
    assert (f"-device {iommu}-iommu" in words) == (iommu != "none")
    assert ("iommufd.allow_unsafe_interrupts=1" in words) == (iommu in {"amd", "virtio"})


def test_virtio_iommu_needs_a_module_that_a_kernel_may_lack(tmp_path: Path) -> None:
    built_in = [f"kernel/{name}.ko\n" for name in BOOT_MODULES]
    (tmp_path / "modules.builtin").write_text("".join(built_in))
    guest = Guest(iommu="virtio", kernel=Kernel(Path("/bin/sh"), tmp_path))
    with pytest.raises(HostError, match="has no module virtio_iommu"):
        guest.run(["true"])


def test_tables_monitor_and_processors() -> None:
    tables = [Path("/a,b"), Path("/c")]
    words = words_of(Guest(acpi_tables=tables, monitor=Path("/m"), processors=3))
    assert "-acpitable file=/a,,b -acpitable file=/c" in words
    assert "-qmp unix:/m,server=on,wait=off" in words
    assert "-smp 3 " in words


def test_drives_come_before_the_devices_that_want_them() -> None:
    drives = ["null-co,node-name=a,size=1073741824", "file,node-name=b,filename=/b"]
    words = words_of(Guest(drives=drives, devices=["nvme,drive=a,serial=1"]))
    assert f"-blockdev {drives[0]} -blockdev {drives[1]} -device nvme,drive=a,serial=1" in words


def test_a_choice_of_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Guest] = []

    def run(guest: Guest, *_: object, **__: object) -> Result:
        seen.append(guest)
        return Result(0, "", "")

    monkeypatch.setattr(Guest, "run", run)
    for name in ("debian", "own"):
        kernel = Kernel(Path("/bin/sh"), name=name)
        monkeypatch.setattr(f"uspace_drv.testing.guest.__main__.{name}_kernel", lambda k=kernel: k)
    for choice in ("debian", "own", "/bin/cat"):
        assert CliRunner().invoke(main, ["--kernel", choice, "true"]).exit_code == 0
    assert CliRunner().invoke(main, ["--fetch", "own"]).output == "own\n"
    assert [guest.kernel and guest.kernel.name for guest in seen] == [
        "debian", "own", "given kernel",
    ]  # fmt: skip
    wrong = CliRunner().invoke(main, ["--kernel", "/nowhere", "true"])
    assert (wrong.exit_code, "/nowhere: no such kernel image" in wrong.output) == (125, True)


def test_share_that_is_no_folder() -> None:
    with pytest.raises(HostError, match="/nowhere: no such folder"):
        Guest(kernel=Kernel(Path("/bin/sh")), shares=[Path("/nowhere")]).run(["true"])
    with pytest.raises(HostError, match="/nowhere: no such kernel"):
        Kernel(Path("/nowhere"))


def tally(results: Path, *tiers: str) -> tuple[int, list[str]]:
    command = [sys.executable, str(TALLY), str(results), *tiers]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def leave(folder: Path, name: str, cases: str) -> None:
    text = f"<testsuites><testsuite>{cases}</testsuite></testsuites>"
    (folder / f"{name}.xml").write_text(text)


def skipped(reason: str) -> str:
    return f"<testcase classname='m' name='b'><skipped message='{reason}'/></testcase>"


GOOD = "<testcase classname='m' name='a'/>"
BAD = "<testcase classname='m' name='c'><failure/></testcase>"


def test_tally_of_what_passed(tmp_path: Path) -> None:
    leave(tmp_path, "good", GOOD * 3)
    assert tally(tmp_path, "good=VFIO") == (0, ["VFIO: 3 passed", "3 passed, 0 failed"])
    leave(tmp_path, "own-amd.vfio-cdev", GOOD + skipped("this IOMMU has none"))
    assert tally(tmp_path, "good=VFIO") == (0, [
        "VFIO: 3 passed",
        "in the guest: own-amd, vfio-cdev: 1 passed, 1 impossible there",
        "    impossible m::b: this IOMMU has none",
        "4 passed, 0 failed",
    ])  # fmt: skip


def test_tally_of_what_failed(tmp_path: Path) -> None:
    for name, cases in {"good": GOOD * 3, "skips": GOOD + skipped("no card")}.items():
        leave(tmp_path, name, cases)
    leave(tmp_path, "bad", GOOD + BAD)
    code, lines = tally(tmp_path, "good=A", "skips=B", "bad=C", "none=D")
    assert code == 1
    assert lines == [
        "A: 3 passed",
        "B: 1 passed, 1 skipped unexpectedly",
        "    skipped m::b: no card",
        "C: 1 passed, 1 failed",
        "D (left no result): 0 passed, 1 failed",
        "5 passed, 3 failed",
    ]


def test_tally_of_a_step_that_failed(tmp_path: Path) -> None:
    leave(tmp_path, "good", GOOD * 3)
    (tmp_path / "failed").write_text("coverage\n")
    assert tally(tmp_path, "good=A") == (
        1, ["coverage: this step failed", "A: 3 passed", "3 passed, 1 failed"],
    )  # fmt: skip


def matrices(results: Path) -> tuple[str, str]:
    """That of the ways, and that of the drivers."""
    command = [sys.executable, str(MATRIX), str(results)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    ways, drivers = printed.split("\n\n")
    return ways, drivers


def test_the_matrix_tells_what_ran_from_what_should_have(tmp_path: Path) -> None:
    def matrix() -> str:
        return matrices(tmp_path)[0]

    ran = {
        "debian-intel": ["vfio-type1"], "debian-none": ["uio"],
        "own-intel": [
            "vfio-cdev", "vfio-type1", "vfio-type1v1", "vfio-compat", "platform-uio", "sysfs"
        ],
        "own-amd": ["vfio-cdev", "vfio-type1"], "own-virtio": ["vfio-cdev", "vfio-type1"],
        "own-none": ["vfio-noiommu-cdev", "vfio-noiommu", "uio"],
    }  # fmt: skip
    names = [f"{guest}.{way}" for guest, ways in ran.items() for way in ways]
    assert (matrix().count("NO RESULT"), matrix().count("passed")) == (len(names), 0)
    for name in names:
        leave(tmp_path, name, GOOD)
    assert (matrix().count("NO RESULT"), matrix().count("1 passed")) == (0, len(names))
    leave(tmp_path, "own-amd.vfio-cdev", GOOD + BAD)
    assert "1 FAILED" in matrix()


def of(module: str, case: str = GOOD) -> str:
    """The same, in that module."""
    return case.replace("'m'", f"'tests.drivers.{module}'")


def test_the_matrix_says_by_which_way_each_driver_ran(tmp_path: Path) -> None:
    def row(driver: str) -> list[str]:
        lines = matrices(tmp_path)[1].splitlines()
        found = next(line for line in lines if line.startswith(driver))
        return re.split(r"  +", found.strip())[1:]

    edu, rng = of("test_edu"), of("test_virtio_rng")
    nvme = of("test_nvme") + of("nvme.test_io.TestSizes")
    lost = "NO RESULT"
    assert [row(driver) for driver in ("edu", "nvme", "virtio-rng")] == [[lost] * 6] * 3
    runs = {
        "virtual": GOOD + edu + nvme + rng, "socket": edu + of("test_nvme") + rng,
        "vfio-user": edu, "own-intel.vfio-type1": edu, "own-amd.vfio-type1": edu + GOOD,
        "own-intel.vfio-cdev": edu, "own-intel.vfio-cdev.nvme": nvme,
        "own-intel.vfio-cdev.rng": rng, "debian-intel.vfio-type1.nvme": nvme,
        "own-none.uio.rng": of("test_virtio_rng", BAD), "own-none.uio.nvme": nvme,
        "own-none.vfio-noiommu.rng": of("test_virtio_rng", skipped("no card")),
        "own-intel.platform-uio": edu,
    }  # fmt: skip
    for name, cases in runs.items():
        leave(tmp_path, name, cases)
    assert row("edu") == ["1 passed", "2 passed", "2 passed", "1 passed", lost, lost]
    two = "2 passed"
    assert row("nvme") == [two, "1 passed", two, two, lost, two]
    bad = "1 FAILED"
    assert row("virtio-rng") == ["1 passed", "1 passed", lost, "1 passed", bad, bad]
    (tmp_path / "own-none.uio.nvme.xml").write_text("<")
    assert row("nvme")[-1] == bad

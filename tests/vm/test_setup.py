"""`scripts/setup` on machines that lack something: what it says, and that it then stops."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OTHER_TOOLS = (
    "make", "flex", "bison", "bc", "xz", "lspci", "fio", "nvme", "sfdisk", "mkfs.ext4",
)  # fmt: skip
TOOLS = ("sh", "cat", "cksum", "dirname", "env", "find", "grep", "tr", "gcc")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of what the script reads, beside a folder of programs that stands for PATH."""
    for folder in ("scripts", "uspace_drv", "drivers", "programs"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in ("setup", "vm"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts")
    options = Path("uspace_drv/testing/guest/__main__.py")
    (tmp_path / options.parent).mkdir(parents=True)
    shutil.copy(ROOT / options, tmp_path / options)
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / "programs" / tool).symlink_to(found)
    # The Python under the one that runs these tests: setup has found it complete.
    (tmp_path / "programs/python3").symlink_to(Path(sys.base_prefix, "bin/python3"))
    return tmp_path


def program(checkout: Path, name: str, text: str) -> None:
    path = checkout / "programs" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def script(checkout: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a script of a checkout that nobody has set up."""
    return subprocess.run(
        [checkout / "scripts" / name, *words],
        env={"PATH": str(checkout / "programs")},
        capture_output=True,
        text=True,
        check=False,
    )


def setup(checkout: Path, purpose: str, python: str = "python3") -> tuple[int, str]:
    done = subprocess.run(
        [checkout / "scripts/setup", purpose],
        env={"PATH": str(checkout / "programs"), "PYTHON": python},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_an_unknown_purpose(checkout: Path) -> None:
    code, says = setup(checkout, "nonsuch")
    assert code == 2
    assert says.startswith("setup: for what? 'demo', 'bench' or 'test', not 'nonsuch'\nusage: ")


@pytest.mark.parametrize("name", ["setup", "vm"])
@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_is_printed_and_nothing_is_set_up(checkout: Path, name: str, word: str) -> None:
    done = script(checkout, name, word)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: scripts/{name} [")
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize(
    ("name", "words", "says"),
    [
        ("setup", ["--nonsuch"], "for what? 'demo', 'bench' or 'test', not '--nonsuch'"),
        ("setup", ["test", "more"], "one word is enough; there is no use for: more"),
        ("vm", ["--nonsuch=1", "--", "ls"], "there is no option --nonsuch=1"),
    ],
)
def test_what_there_is_not_gets_the_usage(
    checkout: Path, name: str, words: list[str], says: str
) -> None:
    done = script(checkout, name, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{name}: {says}\nusage: scripts/{name} [")
    assert not (checkout / ".venv").exists()


def test_an_option_of_the_guest_sets_the_checkout_up(checkout: Path) -> None:
    (checkout / "scripts/setup").write_text("#!/bin/sh\necho setting up for $*\nexit 3\n")
    for words in (["--device=edu", "ls"], ["--iommu", "intel", "ls"], ["--", "ls"], ["ls", "-l"]):
        done = script(checkout, "vm", *words)
        assert (done.returncode, done.stdout) == (3, "setting up for test\n")


def test_without_root_it_prints_the_line(checkout: Path) -> None:
    program(checkout, "id", "echo 1000")
    program(checkout, "apt-get", "echo must not be called; exit 9")
    code, says = setup(checkout, "test")
    assert code == 1
    assert "missing on this machine" in says
    assert "run: sudo apt-get update && sudo apt-get install" in says
    assert "qemu-system-x86 busybox-static" in says
    assert "must not" not in says


def test_without_apt_it_names_the_packages(checkout: Path) -> None:
    code, says = setup(checkout, "test")
    assert code == 1
    assert "qemu-system-x86" in says
    assert "no apt-get here" in says


def test_benchmarks_need_less_than_tests(checkout: Path) -> None:
    _, benchmarks = setup(checkout, "bench")
    _, tests = setup(checkout, "test")
    assert "fio" in benchmarks
    assert "qemu-system-x86" in benchmarks
    assert "pciutils" not in benchmarks
    assert "pciutils" in tests


def test_as_root_it_says_what_it_installs_first(checkout: Path) -> None:
    program(checkout, "id", "echo 0")
    program(checkout, "apt-get", 'echo "apt-get $*" >&2; exit 9')
    code, says = setup(checkout, "test")
    assert code == 9
    assert "qemu-system-x86" in says[: says.index("running: ")]
    assert says.endswith("running: apt-get update\napt-get -qq update\n")


def test_a_python_that_is_too_old(checkout: Path) -> None:
    for name in ("qemu-system-x86_64", "busybox", *OTHER_TOOLS):
        program(checkout, name, "")
    # It fails at the version question only.
    program(checkout, "old", 'case "$*" in *version_info*) exit 1;; -V) echo Python 3.9.2;; esac')
    code, says = setup(checkout, "test", "old")
    assert code == 1
    assert "old is Python 3.9.2, but 3.11 or newer is needed" in says


def test_a_second_run_is_quick_and_silent(checkout: Path) -> None:
    (checkout / ".venv/bin").mkdir(parents=True)
    for name in ("qemu-system-x86_64", "busybox", *OTHER_TOOLS):
        program(checkout, name, "")
    calls = checkout / "calls"
    python = checkout / ".venv/bin/python"
    python.write_text(f'#!/bin/sh\necho "$*" >>{calls}\n')
    python.chmod(0o755)
    code, says = setup(checkout, "test")
    assert code == 0, says
    assert "pip install --quiet" in calls.read_text()
    assert "--editable .[test]" in calls.read_text()
    assert f'uspace_drv_checkout.pth").write_text(sys.argv[1]) {checkout}\n' in calls.read_text()
    assert "--fetch kernel" in calls.read_text()
    assert "--fetch qemu" in calls.read_text()
    assert "QEMU with vfio-user-pci, which the installed one lacks" in says
    calls.unlink()
    assert setup(checkout, "test") == (0, "")
    (checkout / "uspace_drv/changed.c").write_text("int changed;\n")
    code, says = setup(checkout, "test")
    assert code == 0
    assert calls.exists()

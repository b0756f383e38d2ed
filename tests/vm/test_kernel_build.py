"""The build of the guests' own kernel, with programs that stand for apt and the compiler."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from uspace_drv.errors import HostError
from uspace_drv.testing.guest import kernel_build, own_kernel, programs
from uspace_drv.testing.guest.kernel_build import options_lost

WANTED = files("uspace_drv.testing.guest").joinpath("kernel.config").read_text()
FAKES = {
    "apt-get": """case "$*" in
        indextargets*) echo mirror: ;;
        *download*) : >linux-source-7.9_7.9.1-1_all.deb ;;
        esac""",
    "apt-cache": "echo linux-source; echo '  Depends: linux-source-7.9'",
    "dpkg-deb": """case $1 in
        -x) busybox mkdir -p "$3/usr/src"; : >"$3/usr/src/linux-source-7.9.tar.xz" ;;
        *) echo 7.9.1-1 ;;
        esac""",
    "tar": "",
    "strip": ': >"$3"',
    "make": """echo "$*" >>"$0.calls"
        case "$*" in
        *tinyconfig*) echo '# CONFIG_SMP is not set' >"$2/.config" ;;
        *modules_install*) busybox mkdir -p "${4#*=}/lib/modules/7.9.1-uspace" ;;
        *vmlinux*) for step in 1 2 3; do echo "  CC step$step.o"; done ;;
        esac""",
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty cache; PATH holds programs that only pretend to fetch and to build."""
    (tmp_path / "cache/uspace_drv").mkdir(parents=True)
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("setpriv", "busybox", "sh"):
        (folder / name).symlink_to(programs.find_program(name))
    for name in ("gcc", "ld", "flex", "bison", "bc", "xz"):
        program(tmp_path, name, "exit 9")
    for name, text in FAKES.items():
        program(tmp_path, name, text)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(kernel_build, "_ELF_HEADER", Path("/bin/sh"))  # one that is there
    return tmp_path / "cache/uspace_drv"


def program(folder: Path, name: str, text: str) -> None:
    path = folder / "programs" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_build_is_done_once_and_leaves_only_the_kernel(cache: Path) -> None:
    (cache / "build-killed/whole").mkdir(parents=True)
    told: list[str] = []
    kernel = own_kernel(told.append)
    assert kernel.name == "own 7.9.1-1"
    assert kernel.image.name == "vmlinux"
    assert kernel.modules is not None
    assert kernel.modules.name == "7.9.1-uspace"
    assert {path.name for path in kernel.image.parent.iterdir()} == {"vmlinux", "config", "lib"}
    names = {path.name for path in cache.iterdir()}
    assert names == {kernel.image.parent.name, "own-kernel.lock", "own-kernel.log"}
    assert told[0].startswith("fetching its source")
    assert own_kernel(told.append) == kernel
    assert len([line for line in told if "fetching" in line]) == 1


def test_the_configuration_that_is_built_has_all_that_is_wanted(cache: Path) -> None:
    folder = own_kernel(lambda _: None).image.parent
    assert options_lost(WANTED, (folder / "config").read_text()) == []


def test_another_configuration_is_another_kernel(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = own_kernel(lambda _: None)
    (tmp_path / "kernel.config").write_text(f"{WANTED}CONFIG_MORE=y\n")
    monkeypatch.setattr(kernel_build, "files", lambda _: tmp_path)
    assert own_kernel(lambda _: None).image != first.image


def test_a_build_that_fails_shows_its_end_and_leaves_no_kernel(cache: Path) -> None:
    words = 'case "$*" in *vmlinux*) for n in 1 2 3 4 5 6 7 8 9; do echo "error $n"; done; exit 2'
    program(cache.parents[1], "make", f'{words};; *tinyconfig*) : >"$2/.config";; esac')
    with pytest.raises(HostError, match=r"exit code 2.*own-kernel.log:\nerror 2\n") as caught:
        own_kernel(lambda _: None)
    assert str(caught.value).endswith("error 9")
    assert {path.name for path in cache.iterdir()} == {"own-kernel.lock", "own-kernel.log"}
    assert (cache / "own-kernel.log").read_text().startswith("error 1\n")


def test_an_option_that_the_source_drops(cache: Path) -> None:
    words = 'case "$*" in *olddef*) echo "# CONFIG_VFIO is not set" >"$2/.config" ;; esac'
    program(cache.parents[1], "make", words)
    with pytest.raises(HostError, match=r"does not take .*CONFIG_VFIO=y.*Kconfig"):
        own_kernel(lambda _: None)


def test_a_second_builder_waits_for_the_first(cache: Path) -> None:
    told: list[str] = []
    results: list[object] = []
    waits = threading.Event()

    def tell(line: str) -> None:
        told.append(line)
        waits.set()

    kept = cache / f"own-kernel-7.8-{kernel_build._key(WANTED)}"
    with (cache / "own-kernel.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = threading.Thread(target=lambda: results.append(own_kernel(tell)))
        second.start()
        assert waits.wait(10)
        (kept / "lib/modules/7.8").mkdir(parents=True)
        (kept / "vmlinux").touch()
    second.join(10)
    assert told == ["another process builds it; waiting for that one"]
    assert results == [own_kernel(lambda _: None)]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda root: (root / "programs/flex").unlink(), r"flex: not found.*install flex$"),
        (lambda root: program(root, "apt-cache", ""), r"backports has no such package"),
        (lambda root: program(root, "apt-get", ""), r"knows no Debian mirror.*own kernel"),
    ],
)
def test_what_the_build_lacks(cache: Path, spoil: Callable[[Path], None], says: str) -> None:
    spoil(cache.parents[1])
    with pytest.raises(HostError, match=says):
        own_kernel(lambda _: None)
    assert list(cache.glob("own-kernel-*")) == []


def test_a_missing_header(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_build, "_ELF_HEADER", Path("/nowhere/gelf.h"))
    with pytest.raises(HostError, match=r"gelf.h: not found.*install libelf-dev$"):
        own_kernel(lambda _: None)


def test_a_full_disk(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_build, "_SPACE", 1 << 60)
    with pytest.raises(HostError, match=r"MB free.*XDG_CACHE_HOME"):
        own_kernel(lambda _: None)


def test_options_lost() -> None:
    wanted = "# a comment\nCONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\n# CONFIG_D is not set\n"
    assert options_lost(wanted, "CONFIG_A=y\nCONFIG_B=m\n# CONFIG_D is not set\n") == []
    assert options_lost(wanted, "CONFIG_A=m\nCONFIG_C=y\nCONFIG_D=m\n") == [
        "CONFIG_A=y", "CONFIG_B=m", "# CONFIG_C is not set", "# CONFIG_D is not set",
    ]  # fmt: skip


def test_each_option_is_wanted_once() -> None:
    options = [line for line in WANTED.splitlines() if "CONFIG_" in line]
    assert len(options) == len(set(options)) > 150

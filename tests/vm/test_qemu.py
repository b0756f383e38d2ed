"""Which QEMU a guest runs in, its command line for vfio-user, and what is told of its end."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from uspace_drv.errors import HostError
from uspace_drv.testing.guest import Guest, GuestFailed, Kernel, programs, qemu

OLD = "echo 'name \"edu\", bus PCI'"
NEW = "echo 'name \"vfio-user-pci\", bus PCI'"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty cache beside a folder of programs that stands for PATH."""
    for folder in ("cache/uspace_drv", "programs"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("env", "setpriv", "busybox", "sh"):
        (tmp_path / "programs" / name).symlink_to(programs.find_program(name))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    return tmp_path / "cache/uspace_drv"


def program(cache: Path, name: str, text: str) -> Path:
    path = cache.parents[1] / "programs" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_an_installed_one_that_is_new_enough(cache: Path) -> None:
    installed = program(cache, "qemu-system-x86_64", NEW)
    assert qemu.qemu_command(newest=True) == [str(installed)]


def test_the_cached_one_beside_an_older_one(cache: Path) -> None:
    installed = program(cache, "qemu-system-x86_64", OLD)
    for number, name in enumerate(("qemu-11.9", "qemu-12.0", "qemu-11.1", "kernel-6")):
        (cache / name).mkdir()
        os.utime(cache / name, (number % 3, number % 3))
    assert qemu.qemu_command() == [str(installed)]
    command = qemu.qemu_command(newest=True)
    root = cache / "qemu-11.1"
    assert str(root / "usr/bin/qemu-system-x86_64") in command
    assert f"QEMU_MODULE_DIR={root}/usr/lib/x86_64-linux-gnu/qemu" in command
    assert str(installed) not in command


def test_no_mirror_to_fetch_one_from(cache: Path) -> None:
    program(cache, "apt-get", "true")
    with pytest.raises(HostError, match=r"knows no Debian mirror.*install QEMU 10\.1 or newer"):
        qemu.qemu_command(newest=True)
    assert list(cache.iterdir()) == []


def test_a_fetch_that_fails_leaves_nothing(cache: Path) -> None:
    program(cache, "qemu-system-x86_64", OLD)
    program(
        cache, "apt-get", "[ $1 = indextargets ] && echo mirror: || { echo no key >&2; exit 9; }"
    )
    with pytest.raises(HostError, match=r"no key; .*keyring"):
        qemu.qemu_command(newest=True)
    assert list(cache.iterdir()) == []


def test_a_fetch_keeps_what_the_packages_hold(cache: Path) -> None:
    program(cache, "apt-get", """
        case "$*" in
        indextargets*) echo mirror: ;;
        *install*) : >"${3%/*}/cache/archives/qemu-system-x86_11_amd64.deb" ;;
        esac
    """)  # fmt: skip
    program(cache, "dpkg-deb", 'case $1 in -x) busybox mkdir "$3" ;; *) echo 1:11.1+x ;; esac')
    assert str(cache / "qemu-11.1+x/usr/bin/qemu-system-x86_64") in qemu.qemu_command(newest=True)
    assert [folder.name for folder in cache.iterdir()] == ["qemu-11.1+x"]


def test_version(cache: Path) -> None:
    path = program(cache, "qemu-system-x86_64", "echo QEMU emulator version 11.1.3 '(Debian 1:11)'")
    assert qemu.qemu_version([str(path)]) == "QEMU 11.1.3"


def test_devices_behind_sockets_share_the_memory(tmp_path: Path) -> None:
    sockets = [tmp_path / 'a, "b"', tmp_path / "c"]
    guest = Guest(vfio_user=sockets, memory="64M")
    words = guest.command(["qemu"], tmp_path, Kernel(Path("/bin/sh")), 5)
    assert words[words.index("-M") + 1].endswith(",memory-backend=memory")
    assert "memory-backend-memfd,id=memory,size=64M,share=on" in words
    devices = [json.loads(word) for word in words if "vfio-user" in word]
    assert [device["socket"]["path"] for device in devices] == [str(path) for path in sockets]
    assert [device["addr"] for device in devices] == ["10", "11"]
    assert "memory-backend" not in " ".join(Guest().command(["q"], tmp_path, Kernel(tmp_path), 5))


def test_a_device_that_nobody_serves(tmp_path: Path) -> None:
    guest = Guest(kernel=Kernel(Path("/bin/sh")), vfio_user=[tmp_path / "none"])
    with pytest.raises(HostError, match=r"none: no such socket.*run: uspace serve MODEL"):
        guest.run(["true"])


def test_a_dump_of_registers_is_cut(cache: Path) -> None:
    dump = "".join(f"echo R{number}=0000 >&2; " for number in range(40))
    program(cache, "qemu-system-x86_64", f"echo fatal: bad address >&2; {dump} exit 1")
    guest = Guest(kernel=Kernel(Path("/bin/sh")))
    with pytest.raises(GuestFailed, match=r"exit code 1.*said: fatal: bad address") as caught:
        guest.run(["true"], timeout=20.0)
    assert "R1=0000" in str(caught.value)
    assert "R2=0000" not in str(caught.value)
    assert "(38 more lines)" in str(caught.value)

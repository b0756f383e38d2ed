"""Reading and writing the host's small files, and what errors say."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from uspace_drv.errors import HostError
from uspace_drv.pci.host import Host


def failing(number: int) -> Callable[..., int]:
    def fail(*_arguments: object, **_options: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail


def test_what_is_not_there_reads_as_none(tmp_path: Path) -> None:
    host = Host(tmp_path)
    assert host.read("/sys/absent") is None
    assert host.read_int("/sys/absent") is None
    assert host.names("/sys/absent") == []
    assert host.link("/sys/absent") is None
    (tmp_path / "word").write_text("none\n")
    assert host.read("/word") == "none"
    assert host.read_int("/word") is None


def test_write_is_one_write_of_an_existing_file(tmp_path: Path) -> None:
    host = Host(tmp_path)
    (tmp_path / "enable").write_text("0")
    host.write("/enable", "1")
    assert host.read_int("/enable") == 1
    assert host.may_write("/enable")
    with pytest.raises(HostError, match="cannot write '1' to /absent: No such file") as caught:
        host.write("/absent", "1\n")
    assert caught.value.errno == errno.ENOENT
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize(
    ("number", "cure"), [(errno.EACCES, "run it with sudo"), (errno.EROFS, "run it on the host")]
)
def test_no_right_names_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, cure: str
) -> None:
    monkeypatch.setattr(os, "open", failing(number))
    with pytest.raises(HostError, match=cure):
        Host(tmp_path).write("/enable", "1")


def test_unreadable_is_not_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing(errno.EACCES))
        with pytest.raises(HostError, match="cannot read /class: Permission denied"):
            Host(tmp_path).read("/class")
    (tmp_path / "file").touch()
    monkeypatch.setattr(Path, "iterdir", failing(errno.EACCES))
    with pytest.raises(HostError, match="cannot list /: Permission denied"):
        Host(tmp_path).names("/")


def test_a_node_that_opens_once_is_open_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(tmp_path)
    (tmp_path / "14").touch()
    assert host.opener("/14") is None
    monkeypatch.setattr(os, "open", failing(errno.EBUSY))
    assert host.opener("/14") == "another process"


def test_who_has_a_node_open_is_named(tmp_path: Path) -> None:
    host = Host(tmp_path)
    (tmp_path / "proc/4711/fd").mkdir(parents=True)
    (tmp_path / "proc/4711/fd/3").symlink_to("/dev/vfio/14")
    (tmp_path / "proc/4711/comm").write_text("qemu\n")
    (tmp_path / "proc/4712").mkdir()  # not ours to look into
    assert host.opener("/dev/vfio/14") == "process 4711 (qemu)"
    assert host.opener("/dev/vfio/15") is None


def test_a_file_is_put_whole_and_removed_with_its_draft(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.write_file("/var/lib/new/a.json", "one")
    host.write_file("/var/lib/new/a.json", "two")
    assert (tmp_path / "var/lib/new/a.json").read_text() == "two"
    assert host.names("/var/lib/new") == ["a.json"]
    (tmp_path / "var/lib/new/a.json.new").write_text("of a process that was killed")
    host.remove_file("/var/lib/new/a.json")
    host.remove_file("/var/lib/new/a.json")
    assert host.names("/var/lib/new") == []
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="cannot write /file/a: File exists"):
        host.write_file("/file/a", "")
    with pytest.raises(HostError, match="cannot remove /file/a: Not a directory"):
        host.remove_file("/file/a")


def test_bytes_and_owners(tmp_path: Path) -> None:
    host = Host(tmp_path)
    (tmp_path / "config").write_bytes(bytes(8))
    host.write_bytes("/config", 4, b"\x06\x01")
    assert host.read_bytes("/config", 3, 4) == b"\0\x06\x01\0"
    assert host.owner("/config") == os.getuid()
    host.set_owner("/config", os.getuid())
    assert host.owner("/none") is None
    with pytest.raises(HostError, match="cannot give user 0 /none: No such file"):
        host.set_owner("/none", 0)
    with pytest.raises(HostError, match="cannot write 78 at 0x0 of /none: No such file"):
        host.write_bytes("/none", 0, b"x")
    with pytest.raises(HostError, match="cannot read /none: No such file"):
        host.read_bytes("/none", 0, 1)

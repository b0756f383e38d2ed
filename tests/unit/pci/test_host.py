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
    monkeypatch.setattr(Path, "read_text", failing(errno.EACCES))
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
    assert not host.is_open_elsewhere("/14")
    monkeypatch.setattr(os, "open", failing(errno.EBUSY))
    assert host.is_open_elsewhere("/14")

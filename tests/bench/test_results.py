"""The results file: strict when it is read, whole when it is written, whatever the disk does."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec
import pytest

from uspace_drv.bench.results import (
    ComparisonResult,
    Interval,
    Machine,
    Ratio,
    Results,
    Round,
    Skipped,
    SuiteResult,
    WayResult,
    as_json,
    read_results,
    write_results,
    write_whole,
)
from uspace_drv.errors import HostError, LayoutError


def results() -> Results:
    comparison = ComparisonResult(
        name="reads",
        operation="read",
        figure="rate",
        baseline="kernel",
        axes={"depth": 32, "pattern": "random"},
        ways=[WayResult(name="kernel", rounds=[Round(operations=3, seconds=0.5, busy=0.25)])],
        ratios=[Ratio(way="user", figure=Interval(middle=2.0, low=1.5, high=2.5))],
    )
    suite = SuiteResult(
        name="nvme",
        summary="reads",
        comparisons=[comparison],
        skipped=[Skipped(what="writes", why="a disk in use")],
    )
    return Results(
        started="2026-01-02T03:04:05+00:00",
        command=["uspace", "bench"],
        machines=[Machine(facts={"processor": "one"})],
        suites=[suite],
    )


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(results(), path)
    assert read_results(path) == results()
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path], "no draft is left"


def test_lists_of_one_are_not_those_of_another() -> None:
    Results(started="", command=[]).suites.append(SuiteResult(name="a", summary=""))
    assert Results(started="", command=[]).suites == []


def test_plain_json_has_the_same_members() -> None:
    plain = as_json(results())
    assert plain["format"] == "uspace-bench"
    assert plain["suites"][0]["comparisons"][0]["axes"] == {"depth": 32, "pattern": "random"}


def changed(tmp_path: Path, **members: object) -> Path:
    path = tmp_path / "results.json"
    path.write_bytes(msgspec.json.encode({**as_json(results()), **members}))
    return path


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"format": "fio"}, "no results of uspace bench: it does not say 'uspace-bench'"),
        ({"version": 2}, "written by another version: format 2, this one reads 1; read it with"),
        ({"version": "one"}, "or a damaged file: .*`int`.*version"),
        ({"suites": [{"name": "x"}]}, "missing required field `summary`"),
        ({"extra": 1}, "unknown field `extra`"),
        ({"suites": None}, "suites"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, members: dict[str, object], message: str) -> None:
    path = changed(tmp_path, **members)
    with pytest.raises(LayoutError, match=message) as caught:
        read_results(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"\xff\xfe", b"[" * 5000])
def test_what_is_no_document_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(text)
    with pytest.raises(LayoutError, match="no results of uspace bench"):
        read_results(path)


@pytest.mark.parametrize("part", range(1, 10))
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, part: int) -> None:
    path = changed(tmp_path)
    text = path.read_bytes()
    path.write_bytes(text[: len(text) * part // 10])
    with pytest.raises(LayoutError, match="or a damaged file"):
        read_results(path)


def test_a_file_that_is_not_there_is_a_host_error(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot be read: No such file") as caught:
        read_results(tmp_path / "none.json")
    assert caught.value.errno == errno.ENOENT


def test_a_folder_that_is_not_there_is_a_host_error(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot be written: No such file"):
        write_results(results(), tmp_path / "none" / "results.json")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_what_stood_there_stays_if_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "results.json"
    path.write_text("before")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    where: object = os if call == "fsync" else Path
    monkeypatch.setattr(where, call, full)
    with pytest.raises(HostError, match="cannot be written: No space left") as caught:
        write_whole(path, b"after")
    assert caught.value.errno == errno.ENOSPC
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_ctrl_c_leaves_no_half_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "results.json", b"half")
    assert list(tmp_path.iterdir()) == []

"""A medium in a file that the host's file system cannot keep: the driver hears of it by a status.

A process that maps such a file would end by SIGBUS, and with it a server of many drivers.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.drivers.nvme.data_path_host import (
    DATA,
    FLUSH,
    PAGE,
    READ,
    WRITE,
    WRITE_ZEROES,
    Host,
    code,
    command,
)
from uspace_drivers.nvme.spec.status import Status

SIZE = 1 << 20
BLOCK = 512
KEPT = PAGE
"""Bytes that are left of the file, or that it may have."""

INSIDE, OUTSIDE = 0, SIZE // BLOCK // 2
"""Blocks."""

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "medium"


@pytest.fixture(params=["python", "native"])
def rings(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@contextmanager
def a_host(rings: str, path: Path) -> Iterator[Host]:
    with Host(rings, size="1M", medium=str(path)) as made:
        yield made
        assert not made.model.complaints
        assert made.status & 1


def do(host: Host, opcode: int, block: int, **fields: int) -> int:
    """Eight blocks: the status."""
    host.io.submit(command(opcode, nsid=1, prp1=DATA, lba=block, **{"cdw12": 7, **fields}))
    return code(host.io.take()[0])


@contextmanager
def no_room_for_more_than(size: int) -> Iterator[None]:
    """As on a disk that is full: the kernel refuses to let files grow."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_is_written_is_read(rings: str, path: Path) -> None:
    with a_host(rings, path) as host:
        host.write(DATA, bytes(range(256)) * 16)
        assert do(host, WRITE, OUTSIDE) == 0
        host.write(DATA, bytes(PAGE))
        assert do(host, READ, OUTSIDE) == 0
        assert host.read(DATA, PAGE) == bytes(range(256)) * 16
        assert path.read_bytes()[SIZE // 2 :][:PAGE] == bytes(range(256)) * 16
        assert do(host, WRITE_ZEROES, OUTSIDE) == 0
        assert not any(path.read_bytes())


def test_a_disk_that_is_full(rings: str, path: Path) -> None:
    with a_host(rings, path) as host:
        with no_room_for_more_than(KEPT):
            found = [do(host, WRITE, OUTSIDE), do(host, READ, OUTSIDE), do(host, WRITE, INSIDE)]
        assert found == [Status.WRITE_FAULT, 0, 0]
        assert do(host, WRITE, OUTSIDE) == 0


@pytest.mark.parametrize(
    ("opcode", "fields", "expected"),
    [
        (READ, {}, Status.UNRECOVERED_READ_ERROR),
        (WRITE, {}, Status.WRITE_FAULT),
        (WRITE, {"cdw12": 7 | 1 << 30}, Status.WRITE_FAULT),
        (WRITE_ZEROES, {}, Status.WRITE_FAULT),
        (FLUSH, {"cdw12": 0}, 0),
    ],
)
def test_a_file_that_was_cut(
    rings: str, path: Path, opcode: int, fields: dict[str, int], expected: int
) -> None:
    """And it stays so: writing behind its end would turn what is lost into zeroes."""
    with a_host(rings, path) as host:
        os.truncate(path, KEPT)
        assert do(host, opcode, OUTSIDE, **fields) == expected
        assert do(host, READ, INSIDE) == 0
        assert do(host, READ, OUTSIDE) == Status.UNRECOVERED_READ_ERROR
        assert path.stat().st_size == KEPT


def test_the_end_of_a_file_that_was_cut_within_a_command(rings: str, path: Path) -> None:
    with a_host(rings, path) as host:
        os.truncate(path, KEPT + BLOCK)
        assert do(host, READ, 1) == 0
        assert do(host, READ, 2) == Status.UNRECOVERED_READ_ERROR


def test_descriptors_go_with_the_medium(rings: str, path: Path) -> None:
    with a_host(rings, path) as host:
        medium = host.model.namespaces.attached[0].medium
        before = medium.file
        medium.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(before)
        assert os.path.samestat(os.fstat(medium.file), path.stat())

"""Migration from one server to another, and the log of dirty pages."""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vfiouser.raw_client import PAGE, Copier, RawClient
from uspace_drivers.edu import EduModel
from uspace_drv.native import Message
from uspace_drv.vfio_numbers import FeatureFlag, MigrationState
from uspace_drv.vfiouser.numbers import Command, Feature
from uspace_drv.vfiouser.server import Server
from uspace_drv.vfiouser.wire import (
    DeviceState,
    DmaLogging,
    DmaRange,
    DmaReport,
    FeatureHead,
    MigrationData,
    pack,
)

GET, SET, PROBE = FeatureFlag.GET, FeatureFlag.SET, FeatureFlag.PROBE
STOP, RUNNING, STOP_COPY, RESUMING = (
    MigrationState.STOP,
    MigrationState.RUNNING,
    MigrationState.STOP_COPY,
    MigrationState.RESUMING,
)


def ask(client: RawClient, what: int, data: bytes = b"", argsz: int = 4096) -> Message:
    return client.command(Command.DEVICE_FEATURE, pack(FeatureHead(argsz, what), data))


def go(client: RawClient, state: int) -> int:
    return ask(client, Feature.MIG_DEVICE_STATE | SET, pack(DeviceState(state, 0))).error


def state_of(client: RawClient) -> int:
    reply = ask(client, Feature.MIG_DEVICE_STATE | GET)
    return int.from_bytes(reply.payload[8:12], "little")


def pull(client: RawClient, size: int = 100) -> bytes:
    data = b""
    while True:
        reply = client.command(Command.MIG_DATA_READ, pack(MigrationData(8 + size, size)))
        assert not reply.error
        data += reply.payload[8:]
        if len(reply.payload) < 8 + size:
            return data


def push(client: RawClient, data: bytes, size: int = 77) -> None:
    for start in range(0, len(data), size):
        piece = data[start : start + size]
        body = pack(MigrationData(8 + len(piece), len(piece)), piece)
        assert not client.command(Command.MIG_DATA_WRITE, body).error


@pytest.fixture
def other(tmp_path: Path, nothing_left: None) -> Iterator[RawClient]:
    model = Copier()
    with Server(model, tmp_path / "other") as server, RawClient(server.path) as client:
        client.greet()
        yield client
    model.close()


@pytest.mark.parametrize(
    ("what", "possible"),
    [
        (Feature.MIGRATION | GET, True),
        (Feature.MIGRATION | SET, False),
        (Feature.MIG_DEVICE_STATE | GET | SET, True),
        (Feature.DMA_LOGGING_START | SET, True),
        (Feature.DMA_LOGGING_START | GET | SET, False),
        (Feature.DMA_LOGGING_REPORT | GET, True),
        (Feature.MIG_DEVICE_STATE, True),
        (3 | GET, False),
        (0xFFFF, False),
    ],
)
def test_probe(client: RawClient, what: int, possible: bool) -> None:
    reply = ask(client, what | PROBE)
    assert reply.error == (0 if possible else errno.ENOTSUP)
    assert not possible or reply.payload == pack(FeatureHead(4096, what | PROBE))


def test_flags_that_make_no_sense(client: RawClient) -> None:
    for what in (Feature.MIGRATION, Feature.MIG_DEVICE_STATE | GET | SET, 1 | GET | 1 << 25):
        assert ask(client, int(what)).error == errno.EINVAL


def test_a_reply_that_does_not_fit_says_what_it_needs(client: RawClient) -> None:
    reply = ask(client, Feature.MIGRATION | GET, argsz=8)
    assert reply.payload == pack(FeatureHead(16, Feature.MIGRATION | GET))
    assert ask(client, Feature.MIGRATION | GET, argsz=16).payload[8:] == struct.pack("<Q", 1)


def test_a_device_moves_to_another_server(client: RawClient, other: RawClient) -> None:
    client.write(0, 0xCAFE)
    client.write(8, 1 << 63 | 5, 8)
    client.write(0x2010, 0x77, 1, region=2)
    client.write(0x3008, 0x88, 1, region=4)
    client.be_bus_master()
    assert go(client, STOP_COPY) == 0
    assert state_of(client) == STOP_COPY
    data = pull(client)
    assert go(client, RUNNING) == 0
    assert go(other, RESUMING) == 0
    push(other, data)
    assert go(other, RUNNING) == 0
    assert (other.read(0), other.read(8, 8)) == (0xCAFE, 1 << 63 | 5)
    assert (other.read(0x2010, 1, 2), other.read(0x3008, 1, 4)) == (0x77, 0x88)
    assert other.read(4, 2, region=7) == 0x0006


def test_nothing_happens_while_stopped(client: RawClient, model: Copier) -> None:
    memory = os.memfd_create("guest")
    os.ftruncate(memory, PAGE)
    os.pwrite(memory, b"moved", 0)
    client.map(0, PAGE, memory)
    client.be_bus_master()
    model.clock.freeze()
    client.copy(0, 0x100, 5, how=2)
    assert go(client, STOP) == 0
    time_passes = threading.Thread(target=model.clock.advance, args=(1.0,))
    time_passes.start()
    time_passes.join(0.05)
    assert time_passes.is_alive()
    assert os.pread(memory, 5, 0x100) == bytes(5)
    assert go(client, RUNNING) == 0
    time_passes.join(10.0)
    assert os.pread(memory, 5, 0x100) == b"moved"
    os.close(memory)


@pytest.mark.parametrize("to", [0, 5, 6, 7, 8, 0xFFFF_FFFF])
def test_states_that_cannot_be(client: RawClient, to: int) -> None:
    assert go(client, to) == errno.EINVAL
    assert state_of(client) == RUNNING


def test_data_in_the_wrong_state(client: RawClient) -> None:
    assert client.command(Command.MIG_DATA_READ, pack(MigrationData(16, 8))).error == errno.EINVAL
    body = pack(MigrationData(16, 8), bytes(8))
    assert client.command(Command.MIG_DATA_WRITE, body).error == errno.EINVAL
    go(client, STOP_COPY)
    huge = pack(MigrationData(0xFFFF_FFFF, 0xFFFF_FFF0))
    assert client.command(Command.MIG_DATA_READ, huge).error == errno.EINVAL


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data.replace(b"4660", b"4661"),
        lambda data: data.replace(b'"config": [', b'"config": [99999999999, '),
        lambda data: b'{"ids": 1, "config": 2, "registers": 3, "memory": 4}',
        lambda data: b'{"ids": [], "config": [], "registers": {}, "memory": {}}',
        lambda data: b"[" * 20000,
        lambda data: data.replace(b'"0 0x0', b'"0 0x1'),
    ],
)
def test_a_state_that_is_none_needs_a_reset(
    client: RawClient, other: RawClient, damage: object
) -> None:
    go(client, STOP_COPY)
    data = pull(client)
    go(other, RESUMING)
    push(other, damage(data), 1000)  # type: ignore[operator]
    assert go(other, RUNNING) == errno.EINVAL
    assert state_of(other) == MigrationState.ERROR
    assert go(other, RUNNING) == errno.EINVAL
    assert not other.command(Command.DEVICE_RESET).error
    assert state_of(other) == RUNNING
    assert other.read(0) == 0


def test_a_state_that_is_too_large_is_not_kept(client: RawClient) -> None:
    go(client, RESUMING)
    body = pack(MigrationData(8 + 30000, 30000), bytes(30000))
    answers = [client.command(Command.MIG_DATA_WRITE, body).error for _ in range(3)]
    assert answers == [0, errno.ENOSPC, errno.ENOSPC]


def test_a_client_that_leaves_a_stopped_device(server: Server) -> None:
    with RawClient(server.path) as client:
        client.greet()
        go(client, STOP)
    with RawClient(server.path) as client:
        client.greet()
        assert state_of(client) == RUNNING
        client.write(0, 1)


def test_state_of_another_model_is_refused(client: RawClient, tmp_path: Path) -> None:
    edu = EduModel()
    with Server(edu, tmp_path / "edu") as server, RawClient(server.path) as source:
        source.greet()
        go(source, STOP_COPY)
        data = pull(source, 4096)
    edu.close()
    go(client, RESUMING)
    push(client, data)
    assert go(client, STOP) == errno.EINVAL


def test_dirty_pages_stay_until_the_reply_has_room(client: RawClient) -> None:
    memory = os.memfd_create("guest")
    os.ftruncate(memory, 16 * PAGE)
    client.map(0, 16 * PAGE, memory)
    os.close(memory)
    client.be_bus_master()
    ask(client, Feature.DMA_LOGGING_START | SET, pack(DmaLogging(PAGE, 0, 0)))
    client.copy(0, 3 * PAGE, 8)
    report = pack(DmaReport(0, 16 * PAGE, PAGE))
    first = ask(client, Feature.DMA_LOGGING_REPORT | GET, report, argsz=8)
    needed = int.from_bytes(first.payload[:4], "little")
    assert len(first.payload) == 8 < needed
    second = ask(client, Feature.DMA_LOGGING_REPORT | GET, report, argsz=needed)
    assert second.payload[8 + 24 :] == b"\x08" + bytes(7)


def test_dirty_pages(client: RawClient) -> None:
    memory = os.memfd_create("guest")
    os.ftruncate(memory, 64 * PAGE)
    client.map(0x100000, 64 * PAGE, memory)
    client.be_bus_master()
    ranges = pack(DmaRange(0x100000, 48 * PAGE))
    request = Feature.DMA_LOGGING_REPORT | GET
    report = pack(DmaReport(0x100000, 64 * PAGE, PAGE))
    assert ask(client, request, report).error == errno.EINVAL
    start = pack(DmaLogging(512, 1, 0), ranges)
    begun = ask(client, Feature.DMA_LOGGING_START | SET, start)
    assert begun.payload[8:] == pack(DmaLogging(PAGE, 1, 0), ranges)
    client.copy(0x100000, 0x100000 + 5 * PAGE - 1, 2)
    client.copy(0x100000, 0x100000 + 40 * PAGE, 1)
    client.copy(0x100000, 0x100000 + 50 * PAGE, 1)  # not watched
    dirty = ask(client, request, report).payload[8 + 24 :]
    assert int.from_bytes(dirty, "little") == 1 << 4 | 1 << 5 | 1 << 40
    assert len(dirty) == 8
    assert not any(ask(client, request, report).payload[8 + 24 :])
    client.copy(0x100000, 0x100000 + 9 * PAGE, 1)
    coarse = pack(DmaReport(0x100000, 64 * PAGE, 8 * PAGE))
    assert ask(client, request, coarse).payload[8 + 24 :] == b"\2" + bytes(7)
    client.copy(0x100000, 0x100000 + PAGE, 1)
    fine = pack(DmaReport(0x100000, 2 * PAGE, PAGE // 2))
    assert ask(client, request, fine).payload[8 + 24 :] == b"\x0c" + bytes(7)
    assert not ask(client, Feature.DMA_LOGGING_STOP | SET).error
    assert ask(client, Feature.DMA_LOGGING_STOP | SET).error == errno.EINVAL
    os.close(memory)


@pytest.mark.parametrize(
    ("iova", "length", "page"),
    [
        (0, 0, PAGE),
        (0, PAGE, 0),
        (0, PAGE, 3),
        (1, PAGE, PAGE),
        ((1 << 64) - PAGE, 2 * PAGE, PAGE),
        (0, (1 << 64) - 1, 1),
    ],
)
def test_reports_that_cannot_be(client: RawClient, iova: int, length: int, page: int) -> None:
    ask(client, Feature.DMA_LOGGING_START | SET, pack(DmaLogging(PAGE, 0, 0)))
    report = pack(DmaReport(iova, length, page))
    assert ask(client, Feature.DMA_LOGGING_REPORT | GET, report).error == errno.EINVAL

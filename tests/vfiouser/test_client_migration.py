"""Migration and dirty pages as the client asks for them, against a scripted server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.vfiouser.scripted_server import Reply, ScriptedServer
from uspace_drv.errors import PeerError, RegisterValueError, UnsupportedError
from uspace_drv.native import Message
from uspace_drv.vfio_numbers import FeatureFlag, MigrationFlag, MigrationState
from uspace_drv.vfiouser import wire
from uspace_drv.vfiouser.client import Session
from uspace_drv.vfiouser.migration import Migration
from uspace_drv.vfiouser.numbers import Command, Feature
from uspace_drv.vfiouser.version import Capabilities

pytestmark = pytest.mark.usefixtures("nothing_left")

STATE = bytes(range(256)) * 10
PIECE = 1000


class MigratingServer:
    """What a server with one state and one bitmap answers."""

    def __init__(self, server: ScriptedServer) -> None:
        self.state = int(MigrationState.RUNNING)
        self.stream = bytearray(STATE)
        self.received = b""
        self.bitmap = (1 << 3 | 1 << 64).to_bytes(16, "little")
        self.logging: tuple[int, int] | None = None
        server.device.capabilities = Capabilities(max_data_xfer_size=PIECE)
        server.handlers[Command.DEVICE_FEATURE] = self.feature
        server.handlers[Command.MIG_DATA_READ] = self.read
        server.handlers[Command.MIG_DATA_WRITE] = self.write

    def feature(self, message: Message) -> Reply:
        head, data = wire.split(wire.FeatureHead, message.payload)
        feature, is_set = Feature(head.flags & 0xFFFF), bool(head.flags & FeatureFlag.SET)
        answer = data
        if feature is Feature.MIGRATION:
            answer = wire.pack(wire.MigrationSupport(1))
        elif feature is Feature.MIG_DEVICE_STATE:
            if is_set:
                self.state = wire.unpack(wire.DeviceState, data).state
            answer = wire.pack(wire.DeviceState(self.state, 0))
        elif feature is Feature.DMA_LOGGING_START:
            logging, ranges = wire.split_logging(data)
            self.logging = (logging.page_size, len(ranges))
            answer = wire.pack(wire.DmaLogging(8192, len(ranges), 0)) + data[16:]
        elif feature is Feature.DMA_LOGGING_STOP:
            self.logging = None
        else:
            answer = data + self.bitmap
        assert len(answer) + 8 <= head.argsz
        return Reply(wire.pack(wire.FeatureHead(8 + len(answer), head.flags), answer))

    def read(self, message: Message) -> Reply:
        size = wire.unpack(wire.MigrationData, message.payload).size
        data = bytes(self.stream[:size])
        del self.stream[:size]
        return Reply(wire.pack(wire.MigrationData(8 + len(data), len(data)), data))

    def write(self, message: Message) -> Reply:
        self.received += wire.split_counted(wire.MigrationData, message.payload, "size")[1]
        return Reply()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ScriptedServer]:
    with ScriptedServer(tmp_path / "s") as server:
        yield server


@pytest.fixture
def device(server: ScriptedServer) -> MigratingServer:
    return MigratingServer(server)


@pytest.fixture
def migration(server: ScriptedServer, device: MigratingServer) -> Iterator[Migration]:
    with closing(Session("device", str(server.path))) as session:
        yield Migration(session)


def test_state(migration: Migration, device: MigratingServer) -> None:
    assert migration.support == MigrationFlag.STOP_COPY
    states = [migration.state]
    migration.set_state(MigrationState.STOP)
    assert [*states, migration.state] == [MigrationState.RUNNING, MigrationState.STOP]
    device.state = 99
    with pytest.raises(PeerError, match="99, expected 0 to 7"):
        assert migration.state


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, len(STATE)])
def test_saves_and_restores(migration: Migration, device: MigratingServer, size: int) -> None:
    del device.stream[size:]
    saved = migration.save()
    assert saved == STATE[:size]
    migration.restore(saved)
    assert device.received == saved


def test_more_data_than_was_asked_for(migration: Migration, server: ScriptedServer) -> None:
    reply = Reply(wire.pack(wire.MigrationData(8 + PIECE + 1, PIECE + 1), bytes(PIECE + 1)))
    server.handlers[Command.MIG_DATA_READ] = lambda _: reply
    with pytest.raises(PeerError, match="1001 bytes, expected at most 1000"):
        migration.save()


def test_state_without_an_end(
    migration: Migration, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uspace_drv.vfiouser.migration.LARGEST_STATE", 5000)
    reply = Reply(wire.pack(wire.MigrationData(8 + PIECE, PIECE), bytes(PIECE)))
    server.handlers[Command.MIG_DATA_READ] = lambda _: reply
    with pytest.raises(PeerError, match="over 0x1388 bytes of state"):
        migration.save()


def test_dirty_pages(migration: Migration, device: MigratingServer) -> None:
    assert migration.start_logging([(0x10000, 0x50000)], 4096) == 8192
    assert device.logging == (4096, 1)
    pages = migration.dirty_pages(0x10000, 65 * 4096)
    assert pages == [0x10000 + 3 * 4096, 0x10000 + 64 * 4096]
    device.bitmap = (1 << 65).to_bytes(16, "little")
    with pytest.raises(PeerError, match="with no bit from 65 on"):
        migration.dirty_pages(0x10000, 65 * 4096)
    with pytest.raises(PeerError, match="16 bytes of bitmap"):
        migration.dirty_pages(0x10000, 200 * 4096)
    with pytest.raises(RegisterValueError, match="ask for a part"):
        migration.dirty_pages(0, 1 << 40)
    migration.stop_logging()
    assert device.logging is None


def test_answer_about_another_feature(migration: Migration, server: ScriptedServer) -> None:
    server.handlers[Command.DEVICE_FEATURE] = lambda _: Reply(wire.pack(wire.FeatureHead(8, 2)))
    with pytest.raises(PeerError, match="expected an answer about MIGRATION"):
        assert migration.support


def test_server_without_migration(migration: Migration, server: ScriptedServer) -> None:
    del server.handlers[Command.DEVICE_FEATURE]
    with pytest.raises(UnsupportedError, match="refused DEVICE_FEATURE"):
        assert migration.support

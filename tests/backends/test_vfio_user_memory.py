"""DMA memory of the vfio-user backend: shared by descriptor, or read and written by requests."""

from __future__ import annotations

import errno
import fcntl
import gc
import mmap
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.vfiouser.scripted_server import Reply, ScriptedServer
from uspace_drv.backends.vfio_user import VfioUserDevice
from uspace_drv.device import Device
from uspace_drv.errors import DeviceError, HostError, PeerError
from uspace_drv.native import Message
from uspace_drv.port import Direction
from uspace_drv.testing.belongings import belongings
from uspace_drv.vfio_numbers import DmaFlag
from uspace_drv.vfiouser.numbers import Command
from uspace_drv.vfiouser.refusals import close_all
from uspace_drv.vfiouser.version import Capabilities
from uspace_drv.vfiouser.wire import DmaAccess, DmaMap, DmaUnmap, pack, split_counted, unpack

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ScriptedServer]:
    with ScriptedServer(tmp_path / "s") as server:
        yield server


@pytest.fixture
def backend(server: ScriptedServer) -> Iterator[VfioUserDevice]:
    with closing(VfioUserDevice(str(server.path))) as backend:
        yield backend


@pytest.fixture
def device(backend: VfioUserDevice) -> Iterator[Device]:
    with closing(Device(backend)) as device:
        yield device


def last(server: ScriptedServer, command: Command) -> Message:
    return [message for message in server.log if message.command == command][-1]


def ask(server: ScriptedServer, device: Device, command: Command, payload: bytes) -> Message:
    """Let the server ask while the client waits for a reply."""
    replies: list[Message] = []

    def ask_back(message: Message) -> Reply:
        assert server.channel is not None
        replies.append(server.ask(server.channel, command, payload))
        return Reply()

    server.handlers[Command.DEVICE_RESET] = ask_back
    device.reset()
    return replies[0]


def test_memory_is_shared(server: ScriptedServer, device: Device) -> None:
    shared: list[int] = []

    def keep(message: Message) -> Reply:
        shared.extend(message.fds)
        return Reply()

    server.handlers[Command.DMA_MAP] = keep
    with device.dma.alloc("u1", 5000, Direction.FROM_DEVICE) as buffer:
        body = unpack(DmaMap, last(server, Command.DMA_MAP).payload)
        assert body == DmaMap(32, DmaFlag.WRITE, 0, buffer.iova, 8192)
        os.pwrite(shared[0], b"hello", body.offset + 1)
        assert buffer.array[1:6].tobytes() == b"hello"
        with pytest.raises(OSError, match=os.strerror(errno.EPERM)):
            os.ftruncate(shared[0], 0)
        assert fcntl.fcntl(shared[0], fcntl.F_GET_SEALS) & fcntl.F_SEAL_SEAL
    unmapped = unpack(DmaUnmap, last(server, Command.DMA_UNMAP).payload)
    assert (unmapped.address, unmapped.size) == (body.address, 8192)
    os.close(shared[0])


def test_array_outlives_its_buffer_and_is_mapped_again(
    server: ScriptedServer, device: Device
) -> None:
    with device.dma.alloc("u1", mmap.PAGESIZE * 2) as buffer:
        array = buffer.array
    array[5] = 7
    with device.dma.map(array[mmap.PAGESIZE :]):
        body = unpack(DmaMap, last(server, Command.DMA_MAP).payload)
        assert (body.offset, body.size) == (mmap.PAGESIZE, mmap.PAGESIZE)
        assert len(last(server, Command.DMA_MAP).fds) == 1


def test_memory_that_is_not_in_a_file_is_asked_for(server: ScriptedServer, device: Device) -> None:
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    array = np.ndarray((mmap.PAGESIZE,), np.uint8, memory)
    array[:3] = 1, 2, 3
    with device.dma.map(array) as buffer:
        assert last(server, Command.DMA_MAP).fds == ()
        where = DmaAccess(buffer.iova, 3)
        assert ask(server, device, Command.DMA_READ, pack(where)).payload == pack(where, b"\1\2\3")
        written = ask(server, device, Command.DMA_WRITE, pack(where, b"abc"))
        assert (written.error, written.payload) == (0, pack(where))
        assert array[:3].tobytes() == b"abc"


def test_server_that_takes_no_descriptors(server: ScriptedServer) -> None:
    server.device.capabilities = Capabilities(max_msg_fds=0)
    with (
        closing(VfioUserDevice(str(server.path))) as backend,
        closing(Device(backend)) as device,
        device.dma.alloc("u1", 10),
    ):
        assert last(server, Command.DMA_MAP).fds == ()


def test_requests_for_what_is_not_shown_are_refused(server: ScriptedServer, device: Device) -> None:
    to_device = device.dma.alloc("u1", mmap.PAGESIZE, Direction.TO_DEVICE)
    from_device = device.dma.alloc("u1", mmap.PAGESIZE, Direction.FROM_DEVICE)
    refused = [
        (Command.DMA_READ, pack(DmaAccess(0, 1)), errno.EFAULT),
        (Command.DMA_READ, pack(DmaAccess(from_device.iova, 1)), errno.EFAULT),
        (Command.DMA_READ, pack(DmaAccess(to_device.iova + mmap.PAGESIZE - 1, 2)), errno.EFAULT),
        (Command.DMA_READ, pack(DmaAccess((1 << 64) - 1, 2)), errno.EFAULT),
        (Command.DMA_READ, pack(DmaAccess(to_device.iova, 1 << 63)), errno.EINVAL),
        (Command.DMA_READ, pack(DmaAccess(to_device.iova, 1)) + b"x", errno.EINVAL),
        (Command.DMA_READ, b"", errno.EINVAL),
        (Command.DMA_WRITE, pack(DmaAccess(to_device.iova, 1), b"x"), errno.EFAULT),
        (Command.DMA_WRITE, pack(DmaAccess(from_device.iova, 2), b"x"), errno.EINVAL),
        (Command.DMA_WRITE, b"", errno.EINVAL),
        (Command.DEVICE_RESET, b"", errno.EOPNOTSUPP),
        (Command(18), b"", errno.EOPNOTSUPP),
    ]
    for command, payload, error in refused:
        reply = ask(server, device, command, payload)
        assert (reply.error, reply.payload) == (error, b""), (command, payload)
    old = to_device.iova
    to_device.close()
    assert ask(server, device, Command.DMA_READ, pack(DmaAccess(old, 1))).error == errno.EFAULT


def test_mapping_that_the_server_refuses(server: ScriptedServer, device: Device) -> None:
    def refuse(message: Message) -> Reply:
        close_all(message.fds)
        return Reply(error=errno.EEXIST)

    server.handlers[Command.DMA_MAP] = refuse
    with pytest.raises(DeviceError, match="refused DMA_MAP: File exists"):
        device.dma.alloc("u1", 10)
    del server.handlers[Command.DMA_MAP]
    device.dma.alloc("u1", 10).close()


def test_unmapping_that_goes_wrong_takes_the_memory_away_here(
    server: ScriptedServer, device: Device
) -> None:
    buffer = device.dma.alloc("u1", 10)
    where = pack(DmaAccess(buffer.iova, 1))
    server.handlers[Command.DMA_UNMAP] = lambda _: Reply(pack(DmaUnmap(24, 0, 0, 4096)))
    with pytest.raises(PeerError, match="unmapped 0x1000 bytes at 0x0, expected"):
        buffer.close()
    assert ask(server, device, Command.DMA_READ, where).error == errno.EFAULT


def test_limits_are_the_server_s(server: ScriptedServer) -> None:
    server.device.capabilities = Capabilities(max_dma_maps=1, pgsizes=1 << 12 | 1 << 21)
    with (
        closing(VfioUserDevice(str(server.path))) as backend,
        closing(Device(backend)) as device,
        device.dma.alloc("u1", 10),
        pytest.raises(HostError, match="1 DMA mappings"),
    ):
        device.dma.alloc("u1", 10)


def test_memory_goes_with_its_last_array(backend: VfioUserDevice) -> None:
    space, before = backend.dma, belongings()
    memory = space.memory(mmap.PAGESIZE, (1 << 64) - 1)
    assert belongings() > before
    del memory
    gc.collect()
    assert belongings() == before


def test_no_server_no_unmapping(server: ScriptedServer, device: Device) -> None:
    buffer = device.dma.alloc("u1", 10)
    server.hang_up()
    buffer.close()


def test_written_data_lands_where_the_server_says(server: ScriptedServer, device: Device) -> None:
    with device.dma.alloc("u1", 100) as buffer:
        access, data = split_counted(DmaAccess, pack(DmaAccess(buffer.at(50), 4), b"wxyz"))
        ask(server, device, Command.DMA_WRITE, pack(access, data))
        assert buffer.array[50:54].tobytes() == b"wxyz"

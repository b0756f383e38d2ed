"""DMA of the served model: through what the client mapped, and through nothing else."""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.huge_pages import huge_pages
from tests.native.child import in_child
from tests.vfiouser.raw_client import ERROR, PAGE, Copier, RawClient
from uspace_drv.huge_pages import HUGE_PAGE
from uspace_drv.native import faults
from uspace_drv.vfio_numbers import DmaFlag
from uspace_drv.vfiouser.numbers import Command, UnmapFlag
from uspace_drv.vfiouser.server import Server
from uspace_drv.vfiouser.version import Capabilities, Version


@pytest.fixture
def file() -> Iterator[int]:
    """Eight pages, each filled with its number."""
    made = os.memfd_create("guest")
    for number in range(8):
        os.pwrite(made, bytes([number]) * PAGE, number * PAGE)
    yield made
    os.close(made)


@pytest.fixture
def master(client: RawClient) -> RawClient:
    client.be_bus_master()
    return client


def test_shared_memory(master: RawClient, file: int) -> None:
    assert not master.map(0x10000, 4 * PAGE, file, 2 * PAGE).error
    assert not master.copy(0x10000 + PAGE - 8, 0x10000 + 3 * PAGE, 16).error
    assert os.pread(file, 17, 5 * PAGE) == b"\2" * 8 + b"\3" * 8 + b"\5"


def test_a_buffer_may_lie_in_mappings_side_by_side(master: RawClient, file: int) -> None:
    master.map(0, PAGE, file, 5 * PAGE)
    master.map(PAGE, PAGE, file, 0)
    assert not master.copy(PAGE - 2, 16, 4).error
    assert os.pread(file, 4, 5 * PAGE + 16) == b"\5\5\0\0"


def test_access_that_was_not_mapped(master: RawClient, file: int, server: Server) -> None:
    master.map(0x10000, PAGE, file, 0, DmaFlag.READ)
    master.map(0x20000, PAGE, file, PAGE, DmaFlag.WRITE)
    before = os.pread(file, 8 * PAGE, 0)
    for source, destination, words in (
        (0x10000, 0x11000, "never mapped"),
        (0x10000, 0x10000, "mapped TO_DEVICE only"),
        (0x20000, 0x20000, "mapped FROM_DEVICE only"),
        (0x10FFC, 0x20000, "runs past the end"),
        (0x10000, 0x20FFC, "runs past the end"),
        ((1 << 64) - 4, 0x20000, "never mapped"),
    ):
        assert master.copy(source, destination, 8).error == errno.EIO
        assert words in str(server.complaints[-1])
    assert os.pread(file, 8 * PAGE, 0) == before


def test_use_after_unmap_is_found_and_named(master: RawClient, file: int, server: Server) -> None:
    master.map(0x10000, PAGE, file)
    reply = master.unmap(0x10000, PAGE)
    assert len(reply.payload) == 24
    assert master.copy(0x10000, 0x10000, 4).error == errno.EIO
    said = str(server.complaints[-1])
    assert "source" in said
    assert "was unmapped before" in said


def test_unmap_of_whole_ranges(master: RawClient, file: int, model: Copier) -> None:
    for number in range(8):
        master.map(0x10000 + number * PAGE, PAGE, file, number * PAGE)
    assert not master.unmap(0x10000 + PAGE, 4 * PAGE).error
    assert [one.iova for one in model.memory.mappings] == [0x10000, 0x15000, 0x16000, 0x17000]
    assert not master.unmap(0x80000, 1 << 40).error  # a range that holds nothing
    assert not master.unmap(0, (1 << 64) - PAGE).error
    assert not model.memory.mappings


def test_unmap_of_everything(master: RawClient, file: int, model: Copier) -> None:
    master.map(0x10000, PAGE, file)
    assert not master.unmap(0, 0, UnmapFlag.ALL).error
    assert not model.memory.mappings


@pytest.mark.parametrize(
    ("address", "size", "flags", "expected"),
    [
        (0x10800, 0x1000, 0, errno.EINVAL),  # cuts a mapping at its start
        (0x10000, 0x1000, 0, errno.EINVAL),  # and at its end
        (0, 0, 0, errno.EINVAL),
        ((1 << 64) - PAGE, 2 * PAGE, 0, errno.EINVAL),
        (0x10000, 0x2000, UnmapFlag.GET_DIRTY_BITMAP, errno.ENOTSUP),
        (0x10000, 0x2000, 0x80, errno.EINVAL),
    ],
)
def test_unmap_that_cannot_be(
    master: RawClient, file: int, model: Copier, address: int, size: int, flags: int, expected: int
) -> None:
    master.map(0x10000, 2 * PAGE, file)
    assert master.unmap(address, size, flags).error == expected
    assert len(model.memory.mappings) == 1


@pytest.mark.parametrize(
    ("address", "size", "offset", "flags", "expected"),
    [
        (0x20000, 0, 0, 3, errno.EINVAL),
        (0x20000, PAGE // 2, 0, 3, errno.EINVAL),
        (0x20010, PAGE, 0, 3, errno.EINVAL),
        (0x20000, PAGE, 16, 3, errno.EINVAL),
        ((1 << 64) - PAGE, 2 * PAGE, 0, 3, errno.EINVAL),
        (0x20000, 9 * PAGE, 0, 3, errno.EINVAL),  # more than the file has
        (0x20000, PAGE, 8 * PAGE, 3, errno.EINVAL),
        (0x20000, PAGE, (1 << 64) - PAGE, 3, errno.EINVAL),
        (0x20000, 1 << 62, 1 << 62, 3, errno.EINVAL),
        (0x20000, PAGE, 0, 0xFF, errno.EINVAL),
        (0x10000, PAGE, 0, 3, errno.EEXIST),
        (0xF000, 2 * PAGE, 0, 3, errno.EEXIST),
        (0x11000, PAGE, 0, 3, errno.EEXIST),
    ],
)
def test_map_that_cannot_be(
    client: RawClient,
    file: int,
    model: Copier,
    address: int,
    size: int,
    offset: int,
    flags: int,
    expected: int,
) -> None:
    client.map(0x10000, 2 * PAGE, file)
    reply = client.map(address, size, file, offset, flags)
    assert (reply.flags, reply.error) == (ERROR, expected)
    assert len(model.memory.mappings) == 1


def test_descriptors_that_are_no_memory(client: RawClient, model: Copier, file: int) -> None:
    left, right = os.pipe()
    folder = os.open("/", os.O_RDONLY)
    node = os.open("/dev/zero", os.O_RDWR)
    end, other = socket.socketpair()
    for fd in (left, right, folder, node, end.fileno()):
        assert client.map(0, PAGE, fd).error == errno.EINVAL
    read_only = os.open(f"/proc/self/fd/{file}", os.O_RDONLY)
    assert client.map(0, PAGE, read_only).error == errno.EACCES
    assert not client.map(0, PAGE, read_only, flags=DmaFlag.READ).error
    for fd in (left, right, folder, node, read_only):
        os.close(fd)
    end.close()
    other.close()
    assert len(model.memory.mappings) == 1


def test_memory_that_is_cut_off_is_an_error(master: RawClient, file: int, server: Server) -> None:
    master.map(0x10000, 4 * PAGE, file)
    assert not master.copy(0x10000, 0x12000, 8).error
    os.ftruncate(file, PAGE)
    assert master.copy(0x10000, 0x12000, 8).error == errno.EIO
    assert master.copy(0x13000, 0x10000, 8).error == errno.EIO
    assert master.read(0) == 0
    assert len(server.complaints) == 2


def cut_huge_pages(socket_path: Path) -> None:
    """A client that cuts its huge pages off, and takes them back."""
    with Server(Copier(), socket_path) as server, RawClient(server.path) as client:
        client.greet()
        client.be_bus_master()
        file = os.memfd_create("guest", os.MFD_HUGETLB | os.MFD_HUGE_2MB)
        os.ftruncate(file, 2 * HUGE_PAGE)
        assert not client.map(0, 2 * HUGE_PAGE, file).error
        assert not client.copy(HUGE_PAGE, 0x2000, 8).error
        os.ftruncate(file, HUGE_PAGE)
        for source, destination in ((HUGE_PAGE, 0x2000), (0x2000, HUGE_PAGE), (0, 0x2000)):
            assert client.copy(source, destination, 8).error == errno.EIO
            print(server.complaints[-1])
        assert client.read(0) == 0
        assert not client.unmap(0, 2 * HUGE_PAGE).error
        assert "memfd:guest" not in Path("/proc/self/maps").read_text()


def test_huge_pages_that_are_cut_off_are_an_error(tmp_path: Path) -> None:
    """As memory-backend-file of QEMU on hugetlbfs, which nothing seals against shrinking."""
    with huge_pages(2):
        done = in_child(
            f"""
from pathlib import Path
from {__name__} import cut_huge_pages
cut_huge_pages(Path(sys.argv[1]))
""",
            str(tmp_path / "socket"),
        )
    said = "client's memory: bus error at offset 0x200000: the device vanished"
    assert done.stdout.count(said) == 3, done.stderr
    assert done.returncode == 0, done.stderr


def met() -> int:
    """Bus errors so far."""
    return int.from_bytes(faults(), sys.byteorder)


def test_memory_that_was_cut_off_is_not_touched_again(master: RawClient, file: int) -> None:
    """Otherwise each page of it would become one of ours, as often as the client likes."""
    master.map(0x10000, 8 * PAGE, file)
    os.ftruncate(file, 0)
    before = met()
    for page in range(8):
        assert master.copy(0x10000 + page * PAGE, 0x10000 + page * PAGE, 8).error == errno.EIO
    assert met() == before + 1


def test_one_mapping_of_a_file_serves_all(client: RawClient, file: int, model: Copier) -> None:
    for number in range(8):
        client.map(number * PAGE, PAGE, file, (7 - number) * PAGE)
    assert Path("/proc/self/maps").read_text().count("memfd:guest") == 1
    client.unmap(0, 8 * PAGE)
    assert "memfd:guest" not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("minor", [0, 1])
def test_memory_by_messages(server: Server, minor: int) -> None:
    """Minor version 0 is QEMU, whose DMA messages have a layout of their own."""
    memory = bytearray(range(256)) * 64
    with RawClient(server.path, memory) as client:
        client.greet(minor)
        client.be_bus_master()
        client.map(0, len(memory))
        assert not client.copy(0x10, 0x2003, 50).error
    assert memory[0x2003:0x2035] == bytes(range(0x10, 0x42))
    assert memory[0x2002] == 2
    assert memory[0x2035] == 0x35


def test_memory_by_messages_of_the_size_that_the_client_takes(server: Server) -> None:
    memory = bytearray(os.urandom(4 * PAGE))
    expected = bytes(memory[:1000])
    with RawClient(server.path, memory) as client:
        client.greet(version=Version(0, 1, Capabilities(max_data_xfer_size=100)))
        client.be_bus_master()
        client.map(0, len(memory))
        assert not client.copy(0, PAGE, 1000).error
    assert memory[PAGE : PAGE + 1000] == expected


def test_commands_that_cross_a_request_are_answered_after_it(server: Server) -> None:
    memory = bytearray(PAGE)
    with RawClient(server.path, memory) as client:
        client.greet()
        client.be_bus_master()
        client.map(0, PAGE)
        client.write(0x20, 8)
        start = client.send(
            Command.REGION_WRITE, b"\x24".ljust(12, b"\0") + b"\4\0\0\0" + b"\1\0\0\0"
        )
        reads = [client.send(Command.DEVICE_RESET) for _ in range(3)]
        seen: list[int] = []
        while len(seen) < 4:
            said = client.channel.receive(10.0)
            assert said is not None
            if said.command in {Command.DMA_READ, Command.DMA_WRITE}:
                client.answer(client.channel, said)
            else:
                seen.append(said.id)
        assert seen == [start, *reads]


def test_requests_in_the_background_while_the_session_waits(server: Server) -> None:
    memory = bytearray(b"abcdefgh").ljust(PAGE, b"\0")
    with RawClient(server.path, memory) as client:
        client.greet()
        client.be_bus_master()
        client.map(0, PAGE)
        client.copy(0, 0x100, 8, how=2)
        for _ in range(2):
            request = client.channel.receive(10.0)
            assert request is not None
            client.answer(client.channel, request)
        assert client.read(0) == 0
    assert memory[0x100:0x108] == b"abcdefgh"


def test_twin_socket(server: Server) -> None:
    memory = bytearray(b"abcdefgh").ljust(PAGE, b"\0")
    with RawClient(server.path, memory) as client:
        answered = client.greet(twin=True).capabilities
        assert (answered.twin_socket.supported, answered.twin_socket.fd_index) == (True, 0)
        client.be_bus_master()
        client.map(0, PAGE)
        helper = threading.Thread(target=client.answer_twin, args=(2,))
        helper.start()
        assert not client.copy(0, 0x100, 8).error
        helper.join(10.0)
    assert memory[0x100:0x108] == b"abcdefgh"


def test_a_client_that_refuses_a_request(server: Server) -> None:
    with RawClient(server.path, bytearray()) as client:
        client.greet()
        client.be_bus_master()
        client.map(0, PAGE)
        client.write(0x20, 8)
        client.send(Command.REGION_WRITE, b"\x24".ljust(12, b"\0") + b"\4\0\0\0" + b"\1\0\0\0")
        request = client.channel.receive(10.0)
        assert request is not None
        client.channel.send(request.id, request.command, ERROR, errno.EFAULT, b"")
        reply = client.channel.receive(10.0)
        assert reply is not None
        assert reply.error == errno.EIO
    assert "Bad address" in str(server.complaints[0])


@pytest.mark.parametrize("payload", [b"", bytes(16), bytes(24), bytes(25), b"\1" * 24])
def test_a_wrong_answer_to_a_request_ends_the_session(server: Server, payload: bytes) -> None:
    with RawClient(server.path, bytearray()) as client:
        client.greet()
        client.be_bus_master()
        client.map(0, PAGE)
        client.write(0x20, 9)
        client.send(Command.REGION_WRITE, b"\x24".ljust(12, b"\0") + b"\4\0\0\0" + b"\1\0\0\0")
        request = client.channel.receive(10.0)
        assert request is not None
        client.channel.send(request.id, request.command, 1, 0, payload)
        assert client.is_dropped()
    with RawClient(server.path) as after:
        after.greet()

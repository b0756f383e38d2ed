"""What the server answers to each command, and how it refuses what does not fit."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator

import pytest

from tests.vfiouser.raw_client import ERROR, PAGE, Copier, RawClient
from uspace_drv.eventfd import EventFd
from uspace_drv.regions import Area
from uspace_drv.vfio_numbers import IrqAction, RegionFlag
from uspace_drv.vfiouser.numbers import Command, Flag
from uspace_drv.vfiouser.regions import (
    IO_FDS_SIZE,
    REGION_INFO_SIZE,
    pack_io_fds_request,
    pack_region_request,
    unpack_io_fds,
    unpack_region_info,
)
from uspace_drv.vfiouser.server import Server
from uspace_drv.vfiouser.version import Capabilities, Version
from uspace_drv.vfiouser.wire import (
    DeviceInfo,
    IrqInfo,
    RegionAccess,
    Write,
    pack,
    pack_writes,
    unpack,
)

INTX, MSI, MSIX, ERR = 0, 1, 2, 3
NONE, BOOL, EVENTFD = IrqAction.DATA_NONE, IrqAction.DATA_BOOL, IrqAction.DATA_EVENTFD
MASK, UNMASK, TRIGGER = IrqAction.MASK, IrqAction.UNMASK, IrqAction.TRIGGER


@pytest.fixture
def events() -> Iterator[list[EventFd]]:
    made = [EventFd() for _ in range(8)]
    yield made
    for event in made:
        event.close()


@pytest.mark.parametrize(("theirs", "answered"), [(0, 0), (1, 1), (2, 2), (9, 2)])
def test_version_is_never_newer_than_the_clients(
    server: Server, theirs: int, answered: int
) -> None:
    with RawClient(server.path) as client:
        version = client.greet(theirs)
        assert (version.major, version.minor) == (0, answered)


def test_what_was_not_offered_is_not_answered(server: Server) -> None:
    with RawClient(server.path) as client:
        answered = client.greet(version=Version(0, 1, Capabilities())).capabilities
    assert not answered.write_multiple
    assert not answered.twin_socket.supported
    assert answered.max_msg_fds == 16


@pytest.mark.parametrize(
    ("command", "payload"),
    [
        (Command.VERSION, struct.pack("<HH", 1, 0)),
        (Command.VERSION, b""),
        (Command.VERSION, b"\0\0\0\0{\0"),
        (Command.DEVICE_GET_INFO, bytes(16)),
        (77, b""),
    ],
)
def test_a_wrong_greeting_is_told_once_and_dropped(
    server: Server, command: int, payload: bytes
) -> None:
    with RawClient(server.path) as client:
        reply = client.command(command, payload)
        assert (reply.flags, reply.error, reply.payload) == (ERROR, errno.EINVAL, b"")
        assert client.is_dropped()
    with RawClient(server.path) as after:
        after.greet()
    assert len(server.complaints) == 1


def test_device_info(client: RawClient) -> None:
    info = unpack(DeviceInfo, client.command(Command.DEVICE_GET_INFO, bytes(16)).payload)
    assert info == DeviceInfo(16, 3, 9, 5)


def test_an_unknown_command_is_refused_and_the_session_goes_on(client: RawClient) -> None:
    for command in (0, 14, 19, 0xFFFF, Command.DMA_READ):
        assert client.command(command).error == errno.ENOSYS
    assert client.read(0) == 0


def test_registers_by_message(client: RawClient) -> None:
    assert client.write(0, 0xDEADBEEF).payload == struct.pack("<QII", 0, 0, 4)
    assert client.read(0) == 0xDEADBEEF
    client.write(8, 0x1122334455667788, 8)
    assert client.read(8, 8) == 0x1122334455667788
    assert client.read(8) == 0x55667788
    assert client.read(0) == 0xDEADBEEF


def test_writes_that_want_no_reply_are_done_before_the_next_reply(client: RawClient) -> None:
    for value in range(100):
        body = pack(RegionAccess(0, 0, 4), value.to_bytes(4, "little"))
        client.send(Command.REGION_WRITE, body, flags=Flag.NO_REPLY)
    assert client.read(0) == 99


def test_many_writes_in_one_message(client: RawClient) -> None:
    writes = [Write(0, 0, b"\1\2\3\4"), Write(8, 0, bytes(range(8))), Write(0x3C, 7, b"\x0b")]
    assert client.command(Command.REGION_WRITE_MULTI, pack_writes(writes)).payload == b"\3" + bytes(
        7
    )
    assert client.read(0) == 0x04030201
    assert client.read(8, 8) == int.from_bytes(bytes(range(8)), "little")
    assert client.read(0x3C, 1, region=7) == 0x0B


def test_configuration_space_at_once_and_in_pieces(client: RawClient) -> None:
    whole = client.command(Command.REGION_READ, pack(RegionAccess(0, 7, 256))).payload[16:]
    assert whole[:4] == struct.pack("<HH", 0x1234, 1)
    odd = client.command(Command.REGION_READ, pack(RegionAccess(1, 7, 6))).payload[16:]
    assert odd == whole[1:7]
    client.write(0x10, 0xFFFF_FFFF, region=7)
    assert client.read(0x10, region=7) == 0xFFFF_F000


def test_memory_by_message_of_any_size(client: RawClient) -> None:
    data = bytes(n & 0xFF for n in range(1003))
    body = pack(RegionAccess(5, 2, len(data)), data)
    assert not client.command(Command.REGION_WRITE, body).error
    reply = client.command(Command.REGION_READ, pack(RegionAccess(5, 2, len(data))))
    assert reply.payload[16:] == data


@pytest.mark.parametrize(
    ("offset", "region", "count"),
    [
        (0x1000, 0, 1),
        (0xFFE, 0, 4),
        (0, 3, 4),
        (0, 6, 1),
        (0, 8, 0),
        (0, 9, 4),
        (0, 0xFFFF_FFFF, 4),
        (1 << 63, 0, 4),
        ((1 << 64) - 4, 0, 4),
        (0, 0, 0xFFFF_FFFF),
        (256, 7, 1),
    ],
)
def test_nothing_outside_of_a_region_is_reached(
    client: RawClient, offset: int, region: int, count: int
) -> None:
    reply = client.command(Command.REGION_READ, pack(RegionAccess(offset, region, count)))
    assert (reply.flags, reply.error) == (ERROR, errno.EINVAL)
    if count <= 8:
        body = pack(RegionAccess(offset, region, count), bytes(count))
        assert client.command(Command.REGION_WRITE, body).error == errno.EINVAL
    assert client.read(0) == 0


def test_a_failure_of_the_model_is_an_error_and_named(client: RawClient, server: Server) -> None:
    assert client.copy(0x1000, 0x2000, 16).error == errno.EIO
    assert "source" in str(server.complaints[-1])
    assert client.write(0x24, 3).error == errno.EIO
    assert "on purpose" in str(server.complaints[-1])
    assert client.read(0) == 0


def test_complaints_of_one_client_are_bounded(client: RawClient, server: Server) -> None:
    for _ in range(50):
        assert client.command(99).error == errno.ENOSYS
    assert len(server.complaints) == 20


def test_region_info_in_two_calls(client: RawClient, model: Copier) -> None:
    for number, size in ((0, 0x1000), (3, 0), (6, 0), (7, 256), (8, 0)):
        request = pack_region_request(number, REGION_INFO_SIZE)
        reply = client.command(Command.DEVICE_GET_REGION_INFO, request)
        info = unpack_region_info(reply.payload)
        assert (info.size, info.areas, reply.fds) == (size, (), ())
    request = pack_region_request(4, REGION_INFO_SIZE)
    first = client.command(Command.DEVICE_GET_REGION_INFO, request)
    needed = int.from_bytes(first.payload[:4], "little")
    assert needed > REGION_INFO_SIZE == len(first.payload)
    second = client.command(Command.DEVICE_GET_REGION_INFO, pack_region_request(4, needed))
    info = unpack_region_info(second.payload)
    assert info.flags == RegionFlag.READ | RegionFlag.WRITE | RegionFlag.MMAP
    assert info.areas == (Area(0x1000, 0x1000), Area(0x3000, 0x1000))
    os.pwrite(second.fds[0], b"\x2a", 0x1008)
    assert client.read(0x1008, 1, region=4) == 0x2A
    for fd in (*first.fds, *second.fds):
        os.close(fd)
    assert client.command(Command.DEVICE_GET_REGION_INFO, pack_region_request(9, 32)).error


def test_a_client_that_takes_no_descriptors_gets_none(server: Server) -> None:
    with RawClient(server.path) as client:
        client.greet(version=Version(0, 1, Capabilities(max_msg_fds=0)))
        reply = client.command(Command.DEVICE_GET_REGION_INFO, pack_region_request(2, 32))
        assert not unpack_region_info(reply.payload).flags & RegionFlag.MMAP
        assert reply.fds == ()


@pytest.mark.parametrize(("index", "flags", "count"), [(0, 7, 1), (1, 1, 4), (2, 1, 8), (3, 0, 0)])
def test_irq_info(client: RawClient, index: int, flags: int, count: int) -> None:
    body = pack(IrqInfo(16, 0, index, 0))
    reply = client.command(Command.DEVICE_GET_IRQ_INFO, body)
    assert unpack(IrqInfo, reply.payload) == IrqInfo(16, flags, index, count)
    assert client.command(Command.DEVICE_GET_IRQ_INFO, pack(IrqInfo(16, 0, 5, 0))).error


def test_eventfds_in_several_messages(
    client: RawClient, model: Copier, events: list[EventFd]
) -> None:
    client.be_bus_master()
    for start in (0, 4):
        fds = [event.fileno() for event in events[start : start + 4]]
        assert not client.set_irqs(EVENTFD | TRIGGER, MSIX, start, 4, fds).error
    for vector in (0, 3, 4, 7):
        model.interrupts.send(vector)
    assert [event.take() for event in events] == [1, 0, 0, 1, 1, 0, 0, 1]
    assert not client.set_irqs(EVENTFD | TRIGGER, MSIX, 4, 1).error  # without any: take it away
    model.interrupts.send(4)
    assert not client.set_irqs(NONE | TRIGGER, MSIX, 0, 0).error
    model.interrupts.send(0)
    assert [event.take() for event in events] == [0] * 8
    assert not client.set_irqs(EVENTFD | TRIGGER, MSI, 0, 1, [events[0].fileno()]).error


def test_the_client_fires_an_interrupt_itself(client: RawClient, events: list[EventFd]) -> None:
    fds = [event.fileno() for event in events[:4]]
    client.set_irqs(EVENTFD | TRIGGER, MSI, 0, 4, fds)
    client.set_irqs(BOOL | TRIGGER, MSI, 0, 4, data=b"\1\0\0\1")
    assert [event.take() for event in events[:4]] == [1, 0, 0, 1]
    client.set_irqs(NONE | TRIGGER, MSI, 1, 2)
    assert [event.take() for event in events[:4]] == [0, 1, 1, 0]


def test_intx_is_masked_when_it_fires(
    client: RawClient, model: Copier, events: list[EventFd]
) -> None:
    client.set_irqs(EVENTFD | TRIGGER, INTX, 0, 1, [events[0].fileno()])
    model.interrupts.set_level(True)
    model.interrupts.set_level(True)
    assert events[0].take() == 1
    assert not client.set_irqs(NONE | UNMASK, INTX).error
    assert events[0].take() == 1
    client.set_irqs(NONE | MASK, INTX)
    model.interrupts.set_level(False)
    model.interrupts.set_level(True)
    assert events[0].take() == 0


def test_a_message_cannot_be_masked(client: RawClient, events: list[EventFd]) -> None:
    client.set_irqs(EVENTFD | TRIGGER, MSIX, 2, 1, [events[0].fileno()])
    for action in (MASK, UNMASK):
        assert client.set_irqs(NONE | action, MSIX, 2).error == errno.ENOTSUP


def test_interrupts_that_cannot_be(client: RawClient, events: list[EventFd]) -> None:
    event = events[0].fileno()
    file = os.memfd_create("no eventfd")
    left, right = os.pipe()
    for flags, index, start, count, fds, expected in (
        (EVENTFD | TRIGGER, INTX, 0, 2, [event, event], errno.EINVAL),
        (EVENTFD | TRIGGER, MSIX, 8, 1, [event], errno.EINVAL),
        (EVENTFD | TRIGGER, MSIX, 0xFFFF_FFFF, 1, [event], errno.EINVAL),
        (EVENTFD | TRIGGER, ERR, 0, 1, [event], errno.EINVAL),
        (EVENTFD | TRIGGER, 99, 0, 1, [event], errno.EINVAL),
        (EVENTFD | TRIGGER, MSIX, 0, 2, [event], errno.EINVAL),
        (EVENTFD | TRIGGER, MSI, 0, 1, [file], errno.EINVAL),
        (EVENTFD | TRIGGER, MSI, 0, 1, [right], errno.EINVAL),
        (EVENTFD | UNMASK, INTX, 0, 1, [event], errno.ENOTSUP),
        (NONE | MASK, MSI, 0, 0, [], errno.EINVAL),
        (NONE | TRIGGER, 99, 0, 0, [], errno.EINVAL),
        (NONE | TRIGGER, MSI, 0, 0xFFFF_FFFF, [], errno.EINVAL),
    ):
        assert client.set_irqs(flags, index, start, count, fds).error == expected
    for fd in (file, left, right):
        os.close(fd)
    client.set_irqs(EVENTFD | TRIGGER, INTX, 0, 1, [event])
    assert client.set_irqs(EVENTFD | TRIGGER, MSI, 0, 1, [event]).error == errno.EBUSY


def test_a_full_eventfd_does_not_stop_the_server(client: RawClient) -> None:
    full = os.eventfd(0, os.EFD_CLOEXEC)
    os.eventfd_write(full, (1 << 64) - 2)
    client.set_irqs(EVENTFD | TRIGGER, INTX, 0, 1, [full])
    client.set_irqs(NONE | TRIGGER, INTX)
    assert client.read(0) == 0
    os.close(full)


def test_reset(client: RawClient, events: list[EventFd]) -> None:
    client.write(0, 5)
    client.set_irqs(EVENTFD | TRIGGER, MSI, 0, 1, [events[0].fileno()])
    reply = client.command(Command.DEVICE_RESET)
    assert (reply.flags, reply.payload) == (Flag.REPLY, b"")
    assert client.read(0) == 0
    client.set_irqs(NONE | TRIGGER, MSI)
    assert events[0].take() == 1  # its lines stay, as through VFIO


def test_doorbells_ring_without_a_message(client: RawClient) -> None:
    request = pack_io_fds_request(0, IO_FDS_SIZE)
    reply = client.command(Command.DEVICE_GET_REGION_IO_FDS, request)
    for fd in reply.fds:
        os.close(fd)
    needed = int.from_bytes(reply.payload[:4], "little")
    reply = client.command(Command.DEVICE_GET_REGION_IO_FDS, pack_io_fds_request(0, needed))
    bell, gong = unpack_io_fds(reply.payload, len(reply.fds), 0x1000)
    assert (bell.offset, bell.size, bell.type) == (0x30, 4, 2)
    assert (gong.offset, gong.size, gong.type, gong.flags, gong.extra) == (0x34, 4, 0, 1, 5)
    os.pwrite(reply.fds[bell.padding], (1234).to_bytes(4, "little"), bell.extra)
    os.eventfd_write(reply.fds[bell.fd_index], 1)
    assert (client.read(0x28), client.read(0x2C)) == (1234, 1)
    os.eventfd_write(reply.fds[gong.fd_index], 3)
    assert (client.read(0x28), client.read(0x2C)) == (5, 2)
    with pytest.raises(PermissionError):
        os.ftruncate(reply.fds[bell.padding], 0)
    for fd in reply.fds:
        os.close(fd)
    other = client.command(Command.DEVICE_GET_REGION_IO_FDS, pack_io_fds_request(2, 64))
    assert other.payload == struct.pack("<IIII", 16, 0, 2, 0)
    assert client.command(Command.DEVICE_GET_REGION_IO_FDS, pack_io_fds_request(9, 64)).error


def test_a_page_of_shared_memory_needs_no_message(client: RawClient, model: Copier) -> None:
    reply = client.command(Command.DEVICE_GET_REGION_INFO, pack_region_request(2, 32))
    os.pwrite(reply.fds[0], b"seen", PAGE)
    os.close(reply.fds[0])
    assert bytes(model.bar_memory(2)[PAGE : PAGE + 4]) == b"seen"

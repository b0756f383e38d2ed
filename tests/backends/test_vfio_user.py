"""The vfio-user backend against a scripted server: windows, interrupts, reset, the server's end."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.backends.vfio_user_device import PAGE, memory_file, sharing_device
from tests.vfiouser.scripted_server import READ_WRITE, Reply, ScriptedServer
from uspace_drv.backends.vfio_user import VfioUserDevice
from uspace_drv.device import Device
from uspace_drv.errors import (
    BusyError,
    DeviceGone,
    DeviceTimeout,
    NoDevice,
    PeerError,
    RegisterValueError,
    UnsupportedError,
)
from uspace_drv.irq import Irq
from uspace_drv.opening import open_backend
from uspace_drv.port import IrqKind
from uspace_drv.registers import RegisterBlock, rw
from uspace_drv.vfio_numbers import IrqAction, IrqFlag, Region, RegionFlag
from uspace_drv.vfiouser.numbers import Command, Flag
from uspace_drv.vfiouser.regions import IoFd, RegionInfo, pack_io_fds
from uspace_drv.vfiouser.wire import split_irq_set

pytestmark = pytest.mark.usefixtures("nothing_left")

WAIT = 10.0


class State(RegisterBlock, size=0x10):
    state = rw(0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ScriptedServer]:
    with ScriptedServer(tmp_path / "s") as server:
        yield server


def open_device(server: ScriptedServer) -> closing[VfioUserDevice]:
    return closing(VfioUserDevice(str(server.path)))


def test_opens_by_address(server: ScriptedServer) -> None:
    address = f"vfio-user:{server.path}?spin=0.001"
    with closing(open_backend(address)) as device:
        assert (device.via, device.address) == ("vfio-user", f"vfio-user:{server.path}")
        assert device.bar_sizes == {0: 256}
        assert device.irq_counts == {IrqKind.INTX: 1, IrqKind.MSI: 4}
        assert device.can_reset


@pytest.mark.parametrize("option", ["spin=", "spin=x", "spin=-1", "spin=1e9", "spin=nan", "a=1"])
def test_refuses_an_option(option: str) -> None:
    with pytest.raises(NoDevice, match="spin="):
        open_backend(f"vfio-user:/none?{option}")


def test_is_not_opened_another_way(server: ScriptedServer) -> None:
    with pytest.raises(UnsupportedError, match="not opened via vfio"):
        open_backend(f"vfio-user:{server.path}", via="vfio")


def test_configuration_space_by_message(server: ScriptedServer) -> None:
    with open_device(server) as device:
        device.config.write16(4, 0x0006)
        assert device.config.read16(4) == 6
        assert (device.config.size, server.memory[Region.CONFIG][4]) == (256, 6)
    writes = [m.flags for m in server.log if m.command == Command.REGION_WRITE]
    assert writes == [0]


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_registers_by_message(server: ScriptedServer, width: int) -> None:
    value = 0x1122334455667788 & (1 << 8 * width) - 1
    with open_device(server) as device, closing(device.bar(0)) as bar:
        getattr(bar, f"write{8 * width}")(16, value)
        assert getattr(bar, f"read{8 * width}")(16) == value
    assert server.commands() == [Command.REGION_WRITE, Command.REGION_READ]
    write = server.log[-2]
    assert (write.flags, len(write.payload)) == (Flag.NO_REPLY, 16 + width)


def test_whole_bar_is_mapped(server: ScriptedServer) -> None:
    with memory_file(5 * PAGE) as fd:
        server.device = sharing_device(fd, offset=PAGE)
        with open_device(server) as device, closing(device.bar(2)) as bar:
            bar.write32(2 * PAGE, 7)
            assert bar.memory()[2 * PAGE] == 7
            assert os.pread(fd, 1, 3 * PAGE) == b"\7"
        assert server.commands() == []


@pytest.mark.parametrize("areas", [[], [(0, PAGE)]])
def test_waiting_for_a_register_in_shared_memory(
    server: ScriptedServer, areas: list[tuple[int, int]]
) -> None:
    with memory_file(4 * PAGE) as fd:
        server.device = sharing_device(fd, areas)
        with open_device(server) as device, closing(device.bar(2)) as bar:
            state = State(bar).state
            with pytest.raises(DeviceTimeout, match="0x00000001 not seen") as caught:
                state.wait(1, timeout=0.01)
            assert "another process" in str(caught.value.__notes__)
            server.hang_up()
            with pytest.raises(DeviceGone, match="closed the connection"):
                state.wait(1, timeout=5 * WAIT)


def test_areas_are_mapped_and_the_rest_goes_by_message(server: ScriptedServer) -> None:
    with memory_file(4 * PAGE) as fd:
        server.device = sharing_device(fd, [(3 * PAGE, PAGE), (PAGE, PAGE)])
        with open_device(server) as device, closing(device.bar(2)) as bar:
            bar.write32(PAGE + 4, 7)
            bar.write64(3 * PAGE, 9)
            assert (os.pread(fd, 1, PAGE + 4), os.pread(fd, 1, 3 * PAGE)) == (b"\7", b"\11")
            assert server.commands() == []
            bar.write32(2 * PAGE, 5)
            assert (bar.read32(2 * PAGE), bar.read32(0)) == (5, 0)
            with pytest.raises(UnsupportedError, match="cannot be seen as memory"):
                bar.memory()
    # Memory is shared, so that a write has to have arrived before the next store to it.
    assert [m.flags for m in server.log if m.command == Command.REGION_WRITE] == [0]


def test_writes_wait_on_a_device_that_shares_another_bar(server: ScriptedServer) -> None:
    with memory_file(4 * PAGE) as fd:
        server.device = sharing_device(fd)
        with open_device(server) as device, closing(device.bar(0)) as bar:
            bar.write8(0, 1)
    assert server.log[-1].flags == 0


def test_read_only_bar(server: ScriptedServer) -> None:
    with memory_file(4 * PAGE) as fd:
        server.device = sharing_device(fd, flags=RegionFlag.READ)
        with (
            open_device(server) as device,
            closing(device.bar(2)) as bar,
            pytest.raises(UnsupportedError, match="read-only"),
        ):
            bar.write8(0, 1)


def test_bar_smaller_than_a_page_goes_by_message(server: ScriptedServer) -> None:
    with memory_file(256) as fd:
        server.device = sharing_device(fd, size=256)
        with open_device(server) as device, closing(device.bar(2)) as bar:
            assert bar.read8(0) == 0
    assert server.commands() == [Command.REGION_READ]


def test_shared_memory_that_is_cut_off(server: ScriptedServer) -> None:
    with memory_file(4 * PAGE) as fd:
        server.device = sharing_device(fd, [(PAGE, PAGE)])
        with open_device(server) as device, closing(device.bar(2)) as bar:
            os.ftruncate(fd, 0)
            with pytest.raises(DeviceGone, match="bus error"):
                bar.read8(PAGE)


@pytest.mark.parametrize(
    ("areas", "words"),
    [
        ([(0, 5 * PAGE)], "not inside"),
        ([(5 * PAGE, PAGE)], "not inside"),
        ([((1 << 64) - PAGE, PAGE)], "not inside"),
        ([(0, 2 * PAGE), (PAGE, PAGE)], "overlaps"),
        ([(0, PAGE), (0, PAGE)], "overlaps"),
        ([(PAGE, 0)], "empty"),
        ([(8, PAGE)], "whole pages"),
        ([(0, 100)], "whole pages"),
    ],
)
def test_areas_that_make_no_sense(
    server: ScriptedServer, areas: list[tuple[int, int]], words: str
) -> None:
    with memory_file(4 * PAGE) as fd:
        server.device = sharing_device(fd, areas)
        with pytest.raises(PeerError, match=rf"^vfio-user:.*{words}"):
            open_device(server)


@pytest.mark.parametrize(
    ("size", "offset", "words"),
    [
        (5 * PAGE, 0, "has 0x4000 bytes, expected 0x5000"),
        (4 * PAGE, PAGE, "has 0x4000 bytes, expected 0x5000"),
        (4 * PAGE, (1 << 64) - PAGE, "the file behind it"),
        (4 * PAGE, 8, "whole pages"),
        ((1 << 63) + PAGE, 0, "region 2: 0x8000000000001000 bytes"),
    ],
)
def test_regions_that_make_no_sense(
    server: ScriptedServer, size: int, offset: int, words: str
) -> None:
    with memory_file(4 * PAGE) as fd:
        server.device = sharing_device(fd, size=size, offset=offset)
        with pytest.raises(PeerError, match=rf"^vfio-user:.*{words}"):
            open_device(server)


def test_mappable_region_without_a_descriptor(server: ScriptedServer) -> None:
    server.device = sharing_device(0)
    server.device.region_fds = {}
    with pytest.raises(PeerError, match="no descriptor came with it"):
        open_device(server)


def test_devices_that_make_no_sense(server: ScriptedServer) -> None:
    server.device.region_count = 7
    with pytest.raises(PeerError, match="a PCI device with 7 regions"):
        open_device(server)
    server.device.region_count = 0xFFFF_FFFF
    server.device.regions[Region.CONFIG] = RegionInfo(Region.CONFIG, READ_WRITE, 100, 0)
    with pytest.raises(PeerError, match="configuration space of 0x64 bytes"):
        open_device(server)
    server.device.regions[Region.CONFIG] = RegionInfo(Region.CONFIG, READ_WRITE, 4096, 0)
    server.device.irqs[0] = (2, IrqFlag.EVENTFD)
    with pytest.raises(PeerError, match="expected at most 1"):
        open_device(server)
    server.device.flags = 1
    with pytest.raises(UnsupportedError, match="not a PCI device"):
        open_device(server)


@pytest.mark.parametrize("payload", [b"", bytes(16), bytes(19), bytes(21), bytes(20)])
def test_read_whose_reply_makes_no_sense(server: ScriptedServer, payload: bytes) -> None:
    server.handlers[Command.REGION_READ] = lambda _: Reply(payload)
    with open_device(server) as device, closing(device.bar(0)) as bar:
        with pytest.raises(PeerError, match="read of 4 bytes at 0x8, region 0: the reply is"):
            bar.read32(8)
        with pytest.raises(RegisterValueError):
            bar.read32(256)


def test_write_whose_reply_makes_no_sense(server: ScriptedServer) -> None:
    server.handlers[Command.REGION_WRITE] = lambda _: Reply(bytes(15))
    with open_device(server) as device, pytest.raises(PeerError, match="write of 2 bytes at 0x4"):
        device.config.write16(4, 1)


def test_reset(server: ScriptedServer) -> None:
    with open_device(server) as device:
        device.reset()
    assert server.commands() == [Command.DEVICE_RESET]


def test_interrupt(server: ScriptedServer) -> None:
    with open_device(server) as backend, closing(Device(backend)) as device:
        irq = device.irq(2)
        assert irq.kind is IrqKind.MSI
        assert irq.poll() == 0
        server.signal(1, 2)
        assert irq.wait(WAIT) == 1
        threading.Timer(0.02, server.signal, (1, 2)).start()
        assert irq.wait(WAIT, spin=0.001) == 1
        with pytest.raises(DeviceTimeout):
            irq.wait(0.01)
        with pytest.raises(UnsupportedError, match="msi cannot be masked"):
            irq.mask()


def test_one_kind_at_a_time(server: ScriptedServer) -> None:
    with open_device(server) as device, closing(device.irq_line(IrqKind.MSI, 1)) as line:
        with pytest.raises(BusyError, match="msi 1 is on already"):
            device.irq_line(IrqKind.MSI, 1)
        with pytest.raises(BusyError, match="close it first"):
            device.irq_line(IrqKind.INTX, 0)
        line.close()
        device.irq_line(IrqKind.INTX, 0).close()


def test_what_switches_interrupts_on_and_off(server: ScriptedServer) -> None:
    with open_device(server) as device:
        first, second = (device.irq_line(IrqKind.MSI, index) for index in (3, 1))
        first.close()
        second.close()
    assert irq_sets(server) == [
        (IrqAction.DATA_EVENTFD | IrqAction.TRIGGER, 1, 3, 1, 1),
        (IrqAction.DATA_EVENTFD | IrqAction.TRIGGER, 1, 1, 1, 1),
        (IrqAction.DATA_EVENTFD | IrqAction.TRIGGER, 1, 3, 1, 0),
        (IrqAction.DATA_NONE | IrqAction.TRIGGER, 1, 0, 0, 0),
    ]


def test_fixed_set_of_interrupts_is_switched_on_anew(server: ScriptedServer) -> None:
    server.device.irqs[1] = (4, IrqFlag.EVENTFD | IrqFlag.NORESIZE)
    with open_device(server) as device:
        lines = [device.irq_line(IrqKind.MSI, index) for index in (0, 2)]
        server.signal(1, 0)
        assert [line.take() for line in lines] == [1, 0]
        for line in lines:
            line.close()
    starts = [(start, count) for _, _, start, count, _ in irq_sets(server)]
    assert starts == [(0, 1), (0, 0), (2, 1), (0, 1), (0, 1), (0, 0)]


def test_level_interrupt_is_masked_and_unmasked(server: ScriptedServer) -> None:
    with (
        open_device(server) as backend,
        closing(Device(backend, irq_kind=IrqKind.INTX)) as device,
    ):
        irq = device.irq()
        server.signal(0)
        irq.wait(WAIT)
        irq.rearm()
        irq.mask()
    assert [flags for flags, *_ in irq_sets(server)][1:3] == [
        IrqAction.DATA_NONE | IrqAction.UNMASK,
        IrqAction.DATA_NONE | IrqAction.MASK,
    ]


def irq_sets(server: ScriptedServer) -> list[tuple[int, int, int, int, int]]:
    asked = [m for m in server.log if m.command == Command.DEVICE_SET_IRQS]
    sets = [(split_irq_set(m.payload)[0], len(m.fds)) for m in asked]
    return [(one.flags, one.index, one.start, one.count, fds) for one, fds in sets]


def test_interrupts_need_descriptors(server: ScriptedServer) -> None:
    server.device.capabilities = type(server.device.capabilities)(max_msg_fds=0)
    with (
        open_device(server) as device,
        pytest.raises(UnsupportedError, match="takes no descriptors"),
    ):
        device.irq_line(IrqKind.MSI, 0)


def wait_blocking(irq: Irq) -> None:
    irq.wait(WAIT)


def wait_spinning(irq: Irq) -> None:
    irq.wait(WAIT, spin=WAIT)


def wait_in_asyncio(irq: Irq) -> None:
    async def wait() -> None:
        async with asyncio.timeout(WAIT):
            await irq

    asyncio.run(wait())


@pytest.mark.parametrize("wait", [wait_blocking, wait_spinning, wait_in_asyncio])
def test_waiter_is_told_when_the_server_dies(
    server: ScriptedServer, wait: Callable[[Irq], None]
) -> None:
    with open_device(server) as backend, closing(Device(backend)) as device:
        irq = device.irq()
        device.dma.alloc("u1", 10)
        killer = threading.Timer(0.05, server.hang_up)
        killer.start()
        with pytest.raises(DeviceGone, match="closed the connection"):
            wait(irq)
        killer.join()
        with pytest.raises(DeviceGone):
            irq.poll()
        with pytest.raises(DeviceGone):
            device.bar(0).read8(0)
        with pytest.raises(DeviceGone):
            device.bar(0).write8(0, 0)
        with pytest.raises(DeviceGone):
            device.reset()
        with pytest.raises(DeviceGone):
            device.dma.alloc("u1", 10)


def test_timeout_says_where_to_look(server: ScriptedServer) -> None:
    server.device.regions[7] = RegionInfo(7, READ_WRITE, 256, 0)
    with open_device(server) as backend, closing(Device(backend)) as device:
        with pytest.raises(DeviceTimeout, match="no interrupt within") as caught:
            device.irq().wait(0.01)
        assert "in its output" in str(caught.value.__notes__)


def test_interrupts_that_came_before_the_end_are_delivered(server: ScriptedServer) -> None:
    with open_device(server) as backend, closing(Device(backend)) as device:
        irq = device.irq()
        server.signal(1)
        server.hang_up()
        assert irq.wait(WAIT) == 1
        with pytest.raises(DeviceGone):
            irq.wait(WAIT)


def test_descriptors_for_writes(server: ScriptedServer) -> None:
    event = os.eventfd(0)
    spans = [IoFd(8, 4, 0, 0, 0, 0, 0), IoFd(16, 4, 0, 0, 1, 0, 7)]

    def answer(message: object) -> Reply:
        return Reply(pack_io_fds(0, spans, 4096), (event,))

    server.handlers[Command.DEVICE_GET_REGION_IO_FDS] = answer
    with open_device(server) as device:
        found = device.io_fds(0)
        assert [(one.offset, one.size, one.extra) for one in found] == [(8, 4, 0), (16, 4, 7)]
        os.eventfd_write(found[1].fd, 3)
        assert os.eventfd_read(event) == 3
        for one in found:
            os.close(one.fd)
        spans[1] = spans[1]._replace(type=9)
        with pytest.raises(PeerError, match="type 9, expected one of"):
            device.io_fds(0)
        spans[1] = spans[1]._replace(type=0, fd_index=1)
        with pytest.raises(PeerError, match="one of 1 descriptors"):
            device.io_fds(0)
        with pytest.raises(RegisterValueError, match="no BAR 3"):
            device.io_fds(3)
    os.close(event)

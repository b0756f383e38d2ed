"""Our client against our server: memory that is not shared, a server that is killed, migration."""

from __future__ import annotations

import asyncio
import mmap
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from uspace_drivers.edu import Edu, EduModel
from uspace_drivers.edu.registers import BUFFER_OFFSET, Command
from uspace_drv import Direction, IrqKind, attach
from uspace_drv.backends.vfio_user import VfioUserDevice
from uspace_drv.device import Device
from uspace_drv.errors import DeviceError, DeviceGone
from uspace_drv.models import Area, Bar, DeviceModel, PciIdentity, on_write
from uspace_drv.registers import RegisterBlock, rw
from uspace_drv.vfio_numbers import MigrationState
from uspace_drv.vfiouser.server import Server

pytestmark = pytest.mark.usefixtures("nothing_left")

WAIT = 10.0
PAGE = mmap.PAGESIZE


class DoorbellRegisters(RegisterBlock, size=0x100):
    """What the model says of the doorbell page, and an interrupt."""

    doorbell_seen = rw(0x00)
    vector = rw(0x04)


class DoorbellModel(DeviceModel):
    """A page of registers, and a page of doorbells in shared memory behind it."""

    identity = PciIdentity(0x1234, 0x0001)
    bars = {0: Bar(DoorbellRegisters, size=2 * PAGE, memory=(Area(PAGE, PAGE),))}
    irqs = {IrqKind.MSIX: 4}

    @on_write(DoorbellRegisters.doorbell_seen)
    def look(self, offset: int) -> None:
        self.set(DoorbellRegisters.doorbell_seen, self.bar_list[0].window.read32(PAGE + offset))

    @on_write(DoorbellRegisters.vector)
    def ring(self, vector: int) -> None:
        self.interrupts.send(vector)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@contextmanager
def serving(model: DeviceModel, path: Path) -> Iterator[Server]:
    with Server(model, path) as server:
        yield server
    model.close()


@contextmanager
def serving_process(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "uspace_drv", "serve", "edu", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"serving")
            yield process
        finally:
            process.kill()


def test_doorbell_page_in_shared_memory(path: Path) -> None:
    with (
        serving(DoorbellModel(), path),
        closing(VfioUserDevice(str(path))) as backend,
        closing(Device(backend)) as device,
    ):
        registers = DoorbellRegisters(device.bar(0))
        for value in range(1, 50):
            device.bar(0).write32(PAGE + 8, value)
            registers.doorbell_seen.write(8)
            assert registers.doorbell_seen.read() == value


def test_every_vector(path: Path) -> None:
    with (
        serving(DoorbellModel(), path),
        closing(VfioUserDevice(str(path))) as backend,
        closing(Device(backend)) as device,
    ):
        device.set_bus_master(True)
        irqs = [device.irq(index) for index in (2, 0, 3, 1)]
        assert irqs[0].kind is IrqKind.MSIX
        registers = DoorbellRegisters(device.bar(0))
        for index, irq in zip((2, 0, 3, 1), irqs, strict=True):
            registers.vector.write(index)
            assert irq.wait(WAIT) == 1
            assert [other.poll() for other in irqs] == [0] * 4
            irq.trigger()
            assert [other.wait(WAIT) if other is irq else other.poll() for other in irqs] == [
                int(other is irq) for other in irqs
            ]


@pytest.mark.parametrize("direction", [Direction.TO_DEVICE, Direction.FROM_DEVICE])
def test_memory_that_is_not_shared(path: Path, direction: Direction) -> None:
    array = np.ndarray((PAGE,), np.uint8, mmap.mmap(-1, PAGE))
    array[:] = np.arange(PAGE) * 7
    with (
        serving(EduModel(), path),
        attach(f"vfio-user:{path}", Edu) as edu,
        edu.device.dma.map(array, direction) as buffer,
    ):
        if direction is Direction.TO_DEVICE:
            edu._transfer(buffer.iova, BUFFER_OFFSET, 4095, Command(run=True), WAIT)
            assert edu.load(4095) == array[:4095].tobytes()
        else:
            edu.store(b"x" * 100)
            command = Command(run=True, to_memory=True)
            edu._transfer(BUFFER_OFFSET, buffer.iova, 100, command, WAIT)
            assert array[:100].tobytes() == b"x" * 100


def test_error_of_the_model_is_the_driver_s(path: Path) -> None:
    class Moody(DoorbellModel):
        @on_write(DoorbellRegisters.vector)
        def ring(self, vector: int) -> None:
            raise DeviceError("not in the mood")

    with (
        serving(Moody(), path),
        closing(VfioUserDevice(str(path))) as backend,
        closing(backend.bar(0)) as bar,
        pytest.raises(DeviceError, match="the server refused REGION_WRITE"),
    ):
        bar.write32(4, 1)


def wait_for_an_interrupt(edu: Edu) -> None:
    edu.done.wait(WAIT)


def wait_in_asyncio(edu: Edu) -> None:
    async def wait() -> None:
        async with asyncio.timeout(WAIT):
            await edu.done

    asyncio.run(wait())


def read_registers(edu: Edu) -> None:
    while True:
        edu.is_alive()


def write_registers(edu: Edu) -> None:
    while True:
        edu.registers.liveness.write(1)


def use_memory(edu: Edu) -> None:
    while True:
        edu.device.dma.alloc("u1", 100).close()


@pytest.mark.parametrize(
    "work",
    [wait_for_an_interrupt, wait_in_asyncio, read_registers, write_registers, use_memory],
)
def test_server_that_is_killed(path: Path, work: Callable[[Edu], None]) -> None:
    with serving_process(path) as process:
        attachment = attach(f"vfio-user:{path}", Edu)
        killed: list[float] = []

        def kill() -> None:
            killed.append(time.monotonic())
            process.kill()

        killer = threading.Timer(0.1, kill)
        killer.start()
        with pytest.raises(DeviceGone, match="closed the connection"):
            work(attachment.driver)
        assert time.monotonic() - killed[0] < 1.0
        killer.join()
        with pytest.raises(DeviceGone):
            attachment.close()


def test_state_moves_to_another_server(path: Path, tmp_path: Path) -> None:
    with serving(EduModel(), path), closing(VfioUserDevice(str(path))) as source:
        with closing(source.bar(0)) as bar:
            bar.write32(4, 0x1234)
        source.migration.set_state(MigrationState.STOP_COPY)
        state = source.migration.save()
    other = tmp_path / "t"
    with serving(EduModel(), other), closing(VfioUserDevice(str(other))) as target:
        target.migration.set_state(MigrationState.RESUMING)
        target.migration.restore(state)
        target.migration.set_state(MigrationState.RUNNING)
        with closing(target.bar(0)) as bar:
            assert bar.read32(4) == 0x1234 ^ 0xFFFF_FFFF


def test_pages_that_the_device_wrote(path: Path) -> None:
    with serving(EduModel(), path), attach(f"vfio-user:{path}", Edu) as edu:
        backend = edu.device._backend
        assert isinstance(backend, VfioUserDevice)
        with edu.device.dma.alloc("u1", 4 * PAGE) as buffer:
            backend.migration.start_logging([(buffer.iova, 4 * PAGE)])
            command = Command(run=True, to_memory=True)
            edu._transfer(BUFFER_OFFSET, buffer.at(2 * PAGE), 8, command, WAIT)
            dirty = backend.migration.dirty_pages(buffer.iova, 4 * PAGE)
            assert dirty == [buffer.at(2 * PAGE)]
            backend.migration.stop_logging()

"""Mediated devices of a real kernel: its samples mtty, mdpy and mbochs. Runs in the guest.

Linux samples/vfio-mdev. mtty is a 16550 that can be migrated; the others show a picture.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from uspace_drv import Driver, Register, RegisterBlock, attach, bit, ro, rw, wo
from uspace_drv.backends.vfio import VfioDevice
from uspace_drv.backends.vfio.mediated import (
    create_mediated,
    mediated_devices,
    mediated_types,
    open_mediated,
    remove_mediated,
)
from uspace_drv.backends.vfio.uapi.features import Feature
from uspace_drv.backends.vfio.uapi.gfx import PlaneFlag
from uspace_drv.errors import DeviceError, HostError, NoDevice, UnsupportedError
from uspace_drv.port import Iova, IovaRange, IrqKind
from uspace_drv.vfio_numbers import MigrationFlag, MigrationState

pytestmark = pytest.mark.via("vfio")


class Status(Register, width=8):
    """Line status."""

    idle = bit(6, "nothing is being sent")
    empty = bit(5, "there is nothing to send")
    ready = bit(0, "there is something to read")


class Enable(Register, width=8):
    """Interrupt enable."""

    when_empty = bit(1, "when there is nothing to send")


class Uart(RegisterBlock, size=8):
    """A 16550 (National Semiconductor PC16550D, section 8), which loops back what is sent."""

    data = rw(0, width=8)
    enable = rw(1, Enable)
    fifo = wo(2, "bit 0: on; bits 1, 2: clear", width=8)
    status = ro(5, Status)
    scratch = rw(7, width=8)


class Serial(Driver):
    """Sends and hears itself."""

    def probe(self) -> None:
        self.uart = Uart(self.device.bar(0))
        self.fired = self.device.irq(0)

    def send(self, data: bytes) -> bytes:
        """Send bytes and return what comes back, after the interrupt that says so."""
        for each in data:
            self.uart.data.write(each)
        heard = bytes(self.uart.data.read() for _ in data)
        self.uart.enable.write(when_empty=True)
        self.fired.wait(1.0)
        return heard


@pytest.fixture
def make() -> Iterator[Callable[[str], uuid.UUID]]:
    """Make mediated devices of a type; they are gone after the test."""
    identities = []

    def make(name: str) -> uuid.UUID:
        if not any(kind.name == name for kind in mediated_types()):
            pytest.skip(f"the kernel's sample driver of {name} is not loaded")
        identities.append(create_mediated(name))
        return identities[-1]

    yield make
    for identity in identities:
        remove_mediated(identity)
    assert not set(identities) & set(mediated_devices())


Maker = Callable[[str], uuid.UUID]


@pytest.fixture
def serial(make: Maker) -> Iterator[VfioDevice]:
    with closing(open_mediated(make("mtty-1"))) as device:
        yield device


@pytest.fixture
def other(make: Maker) -> Iterator[VfioDevice]:
    with closing(open_mediated(make("mtty-1"))) as device:
        yield device


class TestMediated:
    @pytest.mark.parametrize("via", ["vfio-type1", "vfio-compat"])
    def test_registers(self, make: Maker, via: str) -> None:
        if via == "vfio-compat" and not Path("/dev/iommu").exists():
            pytest.skip("this kernel has no iommufd")
        with closing(open_mediated(make("mtty-1"), via=via)) as device:
            assert (device.via, device.bar_sizes) == (via, {0: 8})
            assert device.irq_counts == {IrqKind.INTX: 1, IrqKind.MSI: 1}
            with closing(device.bar(0)) as bar:
                uart = Uart(bar)
                for letter in b"hello":
                    uart.data.write(letter)
                assert uart.status.read().ready
                assert bytes(uart.data.read() for _ in range(5)) == b"hello"
                assert uart.status.read() == Status(idle=True, empty=True)

    @pytest.mark.parametrize("kind", [IrqKind.INTX, IrqKind.MSI])
    def test_interrupt(self, serial: VfioDevice, kind: IrqKind) -> None:
        with closing(serial.irq_line(kind, 0)) as line, closing(serial.bar(0)) as bar:
            Uart(bar).enable.write(when_empty=True)
            assert line.take() == 1

    def test_driver(self, make: Maker) -> None:
        """A driver that knows nothing of PCI's hardware, attached by the address."""
        with attach(f"mdev:{make('mtty-1')}", Serial) as serial:
            assert serial.send(b"x") == b"x"

    def test_one_that_is_not_there(self, make: Maker) -> None:
        mtty = make("mtty-1")
        with pytest.raises(NoDevice, match=f"there are {mtty}"):
            open_mediated(uuid.uuid4())

    def test_is_no_pci_function(self, serial: VfioDevice) -> None:
        with pytest.raises(UnsupportedError, match="is no PCI function"):
            serial.features.hot_reset.affected()
        with pytest.raises(UnsupportedError, match="bound to vfio-pci"):
            serial.features.power.enter()


class TestMigration:
    def test_what_mtty_can(self, serial: VfioDevice) -> None:
        migration = serial.features.migration
        assert migration.support == (
            MigrationFlag.STOP_COPY | MigrationFlag.P2P | MigrationFlag.PRE_COPY
        )
        assert migration.state is MigrationState.RUNNING
        assert migration.data_size > 0

    @pytest.mark.parametrize("while_running", [False, True])
    def test_one_becomes_the_other(
        self, serial: VfioDevice, other: VfioDevice, while_running: bool
    ) -> None:
        with closing(serial.bar(0)) as bar:
            uart = Uart(bar)
            uart.scratch.write(0x5A)
            for letter in b"abc":
                uart.data.write(letter)
        state = list(serial.features.migration.save(while_running=while_running))
        assert len(state) == 1 + while_running
        assert sum(map(len, state)) == serial.features.migration.data_size
        assert serial.features.migration.state is MigrationState.STOP
        other.features.migration.load(state)
        other.features.migration.set_state(MigrationState.RUNNING)
        with closing(other.bar(0)) as bar:
            uart = Uart(bar)
            assert uart.scratch.read() == 0x5A
            assert bytes(uart.data.read() for _ in range(3)) == b"abc"

    def test_precopy_says_what_is_left(self, serial: VfioDevice) -> None:
        migration = serial.features.migration
        if Feature.MIG_PRECOPY_INFO_V2 in serial.features.supported():
            migration.tell_restarts()
        stream = migration.set_state(MigrationState.PRE_COPY)
        assert stream is not None
        with stream:
            left = stream.precopy()
            assert left.initial == sum(map(len, stream.pieces()))
            assert stream.precopy().initial == 0
        migration.set_state(MigrationState.RUNNING)

    def test_state_of_something_else(self, serial: VfioDevice) -> None:
        migration = serial.features.migration
        with pytest.raises(DeviceError, match="does not take this state: Bad address"):
            migration.load([bytes(24)])
        seen = [migration.state]
        migration.recover()
        assert [*seen, migration.state] == [MigrationState.RESUMING, MigrationState.RUNNING]

    def test_state_that_cannot_be_reached(self, serial: VfioDevice) -> None:
        with pytest.raises(DeviceError, match=r"state ERROR not reached: .*; it is in RUNNING"):
            serial.features.migration.set_state(MigrationState.ERROR)


def test_dma_logging(serial: VfioDevice) -> None:
    """mtty does no DMA, so its log is empty; the calls are the kernel's own."""
    logging = serial.features.dma_logging
    with pytest.raises(HostError, match="DMA_LOGGING_START: Invalid argument"):
        logging.start([IovaRange(0, 0xFFFF), IovaRange(0x8000, 0x1_7FFF)])
    assert logging.start([IovaRange(0, 0xFFFF)], 4096) == 4096
    assert logging.dirty_pages(Iova(0), 0x10000, 4096) == bytes(8)
    logging.stop()


def test_picture_in_a_region(make: Maker) -> None:
    with closing(open_mediated(make("mdpy-vga"))) as display:
        gfx = display.features.gfx
        assert gfx.way() is PlaneFlag.REGION
        plane = gfx.plane()
        assert (plane.width, plane.height, plane.format_name) == (640, 480, "XR24")
        assert (plane.stride, plane.size) == (640 * 4, 2 << 20)


def test_picture_in_a_dmabuf(make: Maker) -> None:
    """Its 16-bit registers are from 0x500 of BAR 2 on (QEMU docs/specs/standard-vga.rst)."""
    with closing(open_mediated(make("mbochs-small"))) as display:
        gfx = display.features.gfx
        assert gfx.way() is PlaneFlag.DMABUF
        assert gfx.plane().size == 0  # switched off
        with closing(display.bar(2)) as bar:
            for index, value in {1: 640, 2: 480, 3: 32, 6: 640, 4: 1}.items():
                bar.write16(0x500 + 2 * index, value)
        with pytest.raises(HostError, match="Cannot allocate memory"):
            gfx.plane()  # mbochs makes the picture, and shows it from the second time on
        plane = gfx.plane()
        assert (plane.width, plane.height, plane.stride) == (640, 480, 2560)
        fd = gfx.open_dmabuf(plane)
        assert os.lseek(fd, 0, os.SEEK_END) == plane.size
        os.close(fd)

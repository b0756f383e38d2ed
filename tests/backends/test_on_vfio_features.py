"""What only a real kernel shows of VFIO's features. Runs in the guest, on QEMU's devices.

On edu at --device and on virtio-rng alone behind a root port; where they are there, on two edus as
functions of one device behind a root port, and on igb (SR-IOV).
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from uspace_drivers.edu.registers import BUFFER_OFFSET, EduRegisters
from uspace_drv.backends.vfio import VfioDevice
from uspace_drv.backends.vfio.uapi.features import Feature
from uspace_drv.deadline import Deadline
from uspace_drv.errors import BusyError, DeviceGone, HostError, UnsupportedError
from uspace_drv.opening import open_backend
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.binding import VFIO, bind, restore
from uspace_drv.pci.capabilities import capabilities
from uspace_drv.pci.config import ConfigHeader
from uspace_drv.pci.reset import choose_reset_methods, reset_methods
from uspace_drv.pci.sriov import set_virtual_functions
from uspace_drv.pci.sysfs import PciBus
from uspace_drv.port import Direction, Iova, Window

pytestmark = pytest.mark.via("vfio")

EDU, RNG, IGB = (0x1234, 0x11E8), (0x1AF4, 0x1044), (0x8086, 0x10C9)
EDU_MAGIC = 0x010000ED
LOW_POWER = {
    Feature.LOW_POWER_ENTRY,
    Feature.LOW_POWER_ENTRY_WITH_WAKEUP,
    Feature.LOW_POWER_EXIT,
}
Opener = Callable[..., VfioDevice]


@pytest.fixture
def open_device(request: pytest.FixtureRequest) -> Iterator[Opener]:
    """Open a device the way that the run is about, and close it after the test."""
    with ExitStack() as stack:

        def open_device(address: PciAddress | str, token: uuid.UUID | None = None) -> VfioDevice:
            where = f"{address}?vf_token={token}" if token else str(address)
            backend = open_backend(where, via=request.config.getoption("--via"))
            assert isinstance(backend, VfioDevice)
            stack.callback(backend.close)
            return backend

        yield open_device


@pytest.fixture
def address(request: pytest.FixtureRequest) -> PciAddress:
    return PciAddress.parse(request.config.getoption("--device"))


@pytest.fixture
def edu(address: PciAddress, open_device: Opener) -> VfioDevice:
    return open_device(address)


def addresses(ids: tuple[int, int], *, behind_a_port: bool) -> list[PciAddress]:
    """Where the functions of that kind are."""
    return [
        each.address
        for each in PciBus().functions()
        if (each.ids.vendor, each.ids.device) == ids and bool(each.address.bus) == behind_a_port
    ]


@contextmanager
def bound(*functions: PciAddress) -> Iterator[None]:
    """Bind them to vfio-pci for a while."""
    with ExitStack() as stack:
        for function in functions:
            bind(function, VFIO)
            stack.callback(restore, function)
        yield


@pytest.fixture
def rng_address() -> Iterator[PciAddress]:
    (function,) = addresses(RNG, behind_a_port=True)
    with bound(function):
        yield function


@pytest.fixture
def twins() -> Iterator[tuple[PciAddress, PciAddress]]:
    """Two functions of one device behind a root port, so of one bus and one group."""
    functions = addresses(EDU, behind_a_port=True)
    second = next((each for each in functions if each.function == 1), None)
    if second is None:
        pytest.skip("no device with two functions behind a root port")
    first = replace(second, function=0)
    with bound(first, second):
        yield first, second


def wait_until_suspended(address: PciAddress) -> None:
    """The kernel suspends a function some time after it was allowed to."""
    status = Path(f"/sys/bus/pci/devices/{address}/power/runtime_status")
    deadline = Deadline(10.0)
    while status.read_text().strip() != "suspended":
        assert not deadline.passed
        time.sleep(0.005)


def test_features_of_a_pci_function(edu: VfioDevice) -> None:
    supported = edu.features.supported()
    assert supported >= LOW_POWER
    assert supported <= LOW_POWER | {Feature.DMA_BUF}


@pytest.mark.parametrize(
    ("use", "text"),
    [
        (lambda each: each.set_bus_master(on=True), "a PCI function has the bit in its conf"),
        (lambda each: each.set_vf_token(uuid.uuid4()), "a function with SR-IOV"),
        (lambda each: each.dma_logging.stop(), "a device that logs its DMA"),
        (lambda each: list(each.migration.save()), "a driver of the kernel that migrates"),
        (lambda each: each.gfx.plane(), "shows no picture"),
        (lambda each: each.hot_reset.affected(), "neither a bus nor a slot"),
    ],
)
def test_what_edu_has_not(edu: VfioDevice, use: Callable[[object], object], text: str) -> None:
    with pytest.raises(UnsupportedError, match=f"^{edu.address}: .*{text}"):
        use(edu.features)


class TestPower:
    def test_configuration_space_wakes_it(self, edu: VfioDevice, address: PciAddress) -> None:
        with edu.features.power.low():
            wait_until_suspended(address)
            assert edu.config.read32(0) == 0x11E81234
            wait_until_suspended(address)  # it sleeps again
        with closing(edu.bar(0)) as bar:
            assert bar.read32(0) == EDU_MAGIC

    def test_wake_up(self, edu: VfioDevice, address: PciAddress) -> None:
        power = edu.features.power
        with closing(power.enter_until_woken()) as woken:
            wait_until_suspended(address)
            assert woken.take() == 0
            edu.config.read32(0)
            assert woken.take() == 1
        power.enter()  # it had ended by itself
        power.exit()

    def test_mapped_bar_of_a_sleeping_device(self, edu: VfioDevice) -> None:
        with closing(edu.bar(0)) as bar:
            with edu.features.power.low(), pytest.raises(DeviceGone):
                bar.read32(0)
            with pytest.raises(DeviceGone):  # that window does not come back
                bar.read32(0)

    def test_twice(self, edu: VfioDevice) -> None:
        with edu.features.power.low(), pytest.raises(BusyError, match="is allowed already"):
            edu.features.power.enter()


def virtio_status(config: Window) -> tuple[int, int]:
    """BAR and offset of device_status (Virtio 1.2, sections 4.1.4 and 4.1.4.3)."""
    places = [each.offset for each in capabilities(config) if each.id == 9]  # vendor-specific
    place = next(place for place in places if config.read8(place + 3) == 1)
    return config.read8(place + 4), config.read32(place + 8) + 20


class TestReset:
    def test_hot_reset(self, rng_address: PciAddress, open_device: Opener) -> None:
        rng = open_device(rng_address)
        number, status = virtio_status(rng.config)
        with closing(rng.bar(number)) as bar:
            bar.write8(status, 1)
            assert bar.read8(status) == 1
            affected = rng.features.hot_reset.reset()
            assert [each.address for each in affected] == [rng_address]
        with closing(rng.bar(number)) as bar:
            assert bar.read8(status) == 0

    def test_takes_the_sibling_along(
        self, twins: tuple[PciAddress, PciAddress], open_device: Opener
    ) -> None:
        first = open_device(twins[0])
        with closing(first.bar(0)) as bar:
            bar.write32(4, 0)
            assert bar.read32(4) == 0xFFFF_FFFF  # liveness is inverted
        affected = first.features.hot_reset.reset()
        assert tuple(each.address for each in affected) == twins
        with closing(first.bar(0)) as bar:
            assert bar.read32(0) == EDU_MAGIC

    def test_sibling_that_is_not_bound(
        self, twins: tuple[PciAddress, PciAddress], open_device: Opener
    ) -> None:
        first, second = twins
        restore(second)
        device = open_device(first)
        with pytest.raises((HostError, BusyError), match=f"^{first}: .*{second}.* vfio-pci"):
            device.features.hot_reset.reset()
        device.close()
        bind(second, VFIO)

    def test_choice_of_the_method(self, rng_address: PciAddress, open_device: Opener) -> None:
        before = reset_methods(rng_address)
        assert before[0] == "flr"
        try:
            assert choose_reset_methods(rng_address, ["bus"]) == ("bus",)
            open_device(rng_address).reset()
            with pytest.raises(UnsupportedError, match="has not all of acpi; it has bus"):
                choose_reset_methods(rng_address, ["acpi"])
            assert choose_reset_methods(rng_address, []) == ()
        finally:
            assert choose_reset_methods(rng_address, ["default"]) == before


class TestDmaBuf:
    @pytest.fixture
    def exporter(self, edu: VfioDevice) -> VfioDevice:
        if Feature.DMA_BUF not in edu.features.supported():
            with pytest.raises(UnsupportedError, match=r"Linux 6\.19 or newer"):
                edu.features.export_bar(0, [(0, 4096)])
            pytest.skip("this kernel makes no dma-buf of a BAR")
        return edu

    def test_of_a_whole_bar_and_of_pieces(self, exporter: VfioDevice) -> None:
        size = exporter.bar_sizes[0]
        for pieces in ([(0, size)], [(0, 4096), (8192, 4096)]):
            fd = exporter.features.export_bar(0, pieces)
            try:
                assert os.lseek(fd, 0, os.SEEK_END) == sum(length for _, length in pieces)
            finally:
                os.close(fd)

    def test_bar_that_is_not_there(self, exporter: VfioDevice) -> None:
        with pytest.raises(UnsupportedError, match=r"bar 1: .* takes a memory BAR"):
            exporter.features.export_bar(1, [(0, 4096)])

    @pytest.mark.via("vfio-cdev")
    def test_one_device_reaches_another(
        self, exporter: VfioDevice, twins: tuple[PciAddress, PciAddress], open_device: Opener
    ) -> None:
        """One edu reads and writes registers of another, and no memory is between them."""
        size = exporter.bar_sizes[0]
        fd = exporter.features.export_bar(0, [(0, size)])
        with (
            closing(open_device(twins[0])) as reader,
            closing(reader.bar(0)) as bar,
            closing(exporter.bar(0)) as other,
        ):
            there = reader.dma.map_file(fd, 0, size, Iova(1 << 24), Direction.BOTH)
            os.close(fd)  # the mapping stays
            ConfigHeader(reader.config).command.update(bus_master_enable=True)
            transfer(EduRegisters(bar), there, BUFFER_OFFSET, to_memory=False)
            transfer(EduRegisters(bar), BUFFER_OFFSET, there + 4, to_memory=True)
            assert EduRegisters(other).liveness.read() == ~EDU_MAGIC & 0xFFFF_FFFF
            reader.dma.unmap(there, size)


def transfer(edu: EduRegisters, source: int, destination: int, *, to_memory: bool) -> None:
    """Move one register's worth of bytes."""
    edu.dma_source.write(source)
    edu.dma_destination.write(destination)
    edu.dma_count.write(4)
    edu.dma_command.write(run=True, to_memory=to_memory)
    edu.dma_command.wait(run=False, timeout=5.0)


@pytest.fixture
def igb() -> Iterator[PciAddress]:
    """QEMU's network card with SR-IOV, one virtual function made of it."""
    functions = addresses(IGB, behind_a_port=True)
    if not functions:
        pytest.skip("no igb: QEMU has one from version 8 on")
    Path("/sys/module/vfio_pci/parameters/enable_sriov").write_text("Y")
    with bound(functions[0]):
        yield functions[0]


def test_vf_token(igb: PciAddress, open_device: Opener) -> None:
    token = uuid.uuid4()
    (function,) = set_virtual_functions(igb, 1)
    try:
        physical = open_device(igb)
        assert Feature.PCI_VF_TOKEN in physical.features.supported()
        physical.features.set_vf_token(token)
        with bound(function):
            with pytest.raises(HostError, match=f"{function}: opening it takes the VF token"):
                open_device(function)
            with pytest.raises(HostError, match="is not the one"):
                open_device(function, uuid.uuid4())
            virtual = open_device(function, token)
            assert virtual.bar_sizes
            virtual.close()
    finally:
        physical.close()
        set_virtual_functions(igb, 0)

"""The device as a driver holds it: what it hands out, what it refuses, what closing ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from tests.unit.specimens import WAIT, BellModel, BellRegisters
from uspace_drv import Driver, IrqKind, attach, native
from uspace_drv.backends.virtual import VirtualDevice
from uspace_drv.device import Device
from uspace_drv.errors import (
    BusyError,
    ClosedError,
    DeviceGone,
    DeviceTimeout,
    HostError,
    NoDevice,
    RegisterValueError,
    UnsupportedError,
)
from uspace_drv.models import Bar, DeviceModel, PciIdentity
from uspace_drv.pci.config import ConfigHeader
from uspace_drv.port import Window
from uspace_drv.testing import FaultyBackend

pytestmark = pytest.mark.usefixtures("nothing_left")


class Mute(DeviceModel):
    """A device without interrupts."""

    identity = PciIdentity(0x1234, 1)
    bars = {2: Bar(BellRegisters, size=64)}


@pytest.fixture
def backend() -> Iterator[VirtualDevice]:
    backend = VirtualDevice(BellModel("bell"))
    yield backend
    backend.close()


@pytest.fixture
def device(backend: VirtualDevice) -> Iterator[Device]:
    device = Device(backend, dma_bits=28)
    yield device
    device.close()


def test_says_who_it_is(device: Device) -> None:
    assert (device.address, device.via, device.can_reset) == ("bell", "virtual", True)
    assert device.bar_sizes == {0: 4096}
    assert ConfigHeader(device.config).device_id.read() == 0xBE11


def test_hands_out_the_same_parts_each_time(device: Device) -> None:
    assert device.bar(0) is device.bar(0)
    assert device.irq(3) is device.irq(3)
    assert device.dma is device.dma


def test_no_such_bar(device: Device) -> None:
    with pytest.raises(NoDevice, match="bell: no BAR 1; it has 0"):
        device.bar(1)


@pytest.mark.parametrize("index", [-1, 4])
def test_no_such_interrupt(device: Device, index: int) -> None:
    with pytest.raises(RegisterValueError, match=f"bell: no interrupt {index}; msi has 4"):
        device.irq(index)


def test_takes_the_best_kind_of_interrupt(backend: VirtualDevice) -> None:
    assert (Device(backend).irq_kind, Device(backend).irq_count) == (IrqKind.MSI, 4)
    forced = Device(backend, irq_kind=IrqKind.INTX)
    assert (forced.irq_kind, forced.irq_count) == (IrqKind.INTX, 1)


def test_kind_that_it_does_not_have(backend: VirtualDevice) -> None:
    device = Device(backend, irq_kind=IrqKind.MSIX)
    expected = "bell: no msix interrupts through virtual; it offers intx, msi"
    with pytest.raises(UnsupportedError, match=expected):
        device.irq(0)


def test_device_without_interrupts() -> None:
    with attach(Mute("mute"), Driver) as driver:
        assert driver.device.irq_count == 0
        with pytest.raises(UnsupportedError, match="mute: no interrupts through virtual: poll"):
            driver.device.irq(0)
        with pytest.raises(NoDevice, match="no BAR 0; it has 2"):
            driver.device.bar(0)


def test_reach_goes_to_dma(device: Device) -> None:
    with pytest.raises(HostError, match="up to 0xfffffff;"):
        device.dma.alloc(np.uint8, (1 << 28) - 4096 + 1)


def test_bus_master(device: Device) -> None:
    command = ConfigHeader(device.config).command
    device.set_bus_master(True)
    assert command.read().bus_master_enable
    device.set_bus_master(False)
    assert not command.read().bus_master_enable


def test_no_reset(backend: VirtualDevice) -> None:
    faulty = FaultyBackend(backend)
    faulty.can_reset = False
    with pytest.raises(UnsupportedError, match="bell: no reset through virtual"):
        Device(faulty).reset()


def test_all_ones_is_gone(backend: VirtualDevice) -> None:
    faulty = FaultyBackend(backend)
    device = Device(faulty)
    device.check_present()
    faulty.reads_all_ones = True
    with pytest.raises(DeviceGone, match="bell: configuration space reads all ones"):
        device.check_present()


def test_a_wait_that_ran_out_asks_whether_the_device_is_there(backend: VirtualDevice) -> None:
    """Some hosts read zeros where a device was, and no access says that it is gone."""
    faulty = FaultyBackend(backend)
    device = Device(faulty)
    window = native.Window.over_buffer("bell bar 0", bytearray(0x1000))
    faulty.bar = lambda number: window  # type: ignore[method-assign]
    pending = BellRegisters(device.bar(0)).pending
    with pytest.raises(DeviceTimeout):
        pending.wait(1, timeout=0.0)
    faulty.reads_all_ones = True
    with pytest.raises(DeviceGone, match="bell: configuration space reads all ones"):
        pending.wait(1, timeout=0.0)


def test_close_ends_everything_that_it_handed_out(device: Device) -> None:
    registers, irq, dma = BellRegisters(device.bar(0)), device.irq(0), device.dma
    buffer = dma.alloc(np.uint8)
    device.close()
    device.close()
    assert irq.closed
    assert buffer.closed
    for use in (
        registers.magic.read,
        irq.poll,
        lambda: dma.alloc(np.uint8),
        lambda: device.bar(0),
        lambda: device.irq(0),
        lambda: device.dma,
    ):
        with pytest.raises(ClosedError):
            use()


class Combining(FaultyBackend):
    """Has what only some ways have."""

    def rom(self) -> Window:
        return self._backend.bar(0)

    def write_combined(self, number: int) -> Window:
        return self._backend.bar(number)

    @property
    def features(self) -> str:
        return "features"


def test_what_only_some_ways_have(backend: VirtualDevice) -> None:
    device = Device(Combining(backend))
    assert device.features == "features"
    assert device.rom() is device.rom()
    assert device.bar(0, combining=True) is device.bar(0, combining=True)
    with pytest.raises(BusyError, match="bell bar 0: is open with write-combining"):
        device.bar(0)
    device.close()
    with pytest.raises(ClosedError):
        device.features  # noqa: B018


def test_what_this_way_does_not_have(device: Device) -> None:
    with pytest.raises(UnsupportedError, match="bell: no ROM through virtual; VFIO shows it"):
        device.rom()
    with pytest.raises(UnsupportedError, match="bell bar 0: no write-combining through virtual"):
        device.bar(0, combining=True)
    with pytest.raises(UnsupportedError, match="bell: no features of the kernel through virtual"):
        device.features  # noqa: B018
    device.bar(0)
    with pytest.raises(BusyError, match="bell bar 0: is open without write-combining"):
        device.bar(0, combining=True)


def test_interrupt_that_software_fires(device: Device) -> None:
    device.irq(1).trigger()
    assert device.irq(1).poll() == 1
    with pytest.raises(UnsupportedError, match="bell msi 1: no eventfd can unmask it this way"):
        device.irq(1).unmask_fd()


def test_what_is_being_opened_when_it_is_closed_is_closed_too(
    device: Device, backend: VirtualDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host may take the device back, in its own thread, at any time."""
    closing = threading.Thread(target=device.close)
    open_bar = backend.bar

    def slow_bar(number: int) -> Window:
        closing.start()
        closing.join(0.05)
        return open_bar(number)

    monkeypatch.setattr(backend, "bar", slow_bar)
    window = device.bar(0)
    closing.join(WAIT)
    with pytest.raises(ClosedError):
        window.read32(0)

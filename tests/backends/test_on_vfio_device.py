"""What an open VFIO device can do on a real kernel, on QEMU's devices in the guest.

edu (INTx, MSI), and behind root ports an e1000e (PCIe, MSI-X, ROM) and a virtio-rng (64-bit
prefetchable BAR, function-level reset); pci-testdev has a BAR of I/O ports.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from uspace_drivers.edu import Edu
from uspace_drivers.edu.registers import Cause
from uspace_drv import (
    DeviceError,
    DeviceGone,
    Driver,
    IrqKind,
    NoDevice,
    UnsupportedError,
    attach,
)
from uspace_drv.backends.vfio import VfioDevice
from uspace_drv.device import Device
from uspace_drv.opening import open_backend
from uspace_drv.pci.binding import VFIO, bind, restore
from uspace_drv.pci.sysfs import PciBus, PciFunction
from uspace_drv.port import Notice
from uspace_drv.vfio_numbers import Region

pytestmark = pytest.mark.via("vfio")

WAIT = 20.0
EDU = (0x1234, 0x11E8)
E1000E = (0x8086, 0x10D3)
RNG = (0x1AF4, 0x1044)
TESTDEV = (0x1B36, 0x0005)


@pytest.fixture
def via(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--via"))


def bound(ids: tuple[int, int]) -> Iterator[str]:
    function = find_function(ids)
    bind(function.address, VFIO)
    yield str(function.address)
    restore(function.address)


def find_function(ids: tuple[int, int]) -> PciFunction:
    functions = PciBus().functions()
    return next(f for f in functions if (f.ids.vendor, f.ids.device) == ids)


@pytest.fixture
def e1000e() -> Iterator[str]:
    yield from bound(E1000E)


@pytest.fixture
def rng() -> Iterator[str]:
    yield from bound(RNG)


@pytest.fixture
def testdev() -> Iterator[str]:
    yield from bound(TESTDEV)


@pytest.fixture
def address(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--device"))


def open_device(address: str, via: str) -> VfioDevice:
    backend = open_backend(address, via=via, unsafe_dma_without_iommu=True)
    assert isinstance(backend, VfioDevice)
    return backend


def test_io_ports_are_read_and_written(testdev: str, via: str) -> None:
    """QEMU docs/specs/pci-testdev.rst: BAR 1 is I/O; at 0 the number of a test is written."""
    with closing(open_device(testdev, via)) as backend:
        assert backend.regions.info(1).areas == ()
        with closing(backend.bar(1)) as ports, closing(backend.bar(0)) as memory:
            ports.write8(0, 0)
            assert ports.read8(1) in {1, 2, 4}  # the width that this test takes
            assert memory.size == backend.bar_sizes[0]


def test_rom(e1000e: str, address: str, via: str) -> None:
    with closing(open_device(e1000e, via)) as backend:
        device = Device(backend)
        assert device.rom().read16(0) == 0xAA55
        device.close()
    with closing(open_device(address, via)) as backend, pytest.raises(NoDevice, match="no rom"):
        backend.rom()


def test_no_vga_and_nothing_special(address: str, via: str) -> None:
    with closing(open_device(address, via)) as backend:
        with pytest.raises(NoDevice, match="no vga"):
            backend.regions.vga()
        assert list(backend.regions.specials()) == []


def test_msix_table_lies_in_a_bar_that_can_be_mapped(e1000e: str, via: str) -> None:
    with closing(open_device(e1000e, via)) as backend:
        assert backend.regions.info(3).has_mappable_msix
        with closing(backend.bar(3)) as table:
            assert table.read32(12) & 1  # masked, as after every reset


def test_wide_prefetchable_bar(rng: str, via: str) -> None:
    resource = next(r for r in find_function(RNG).resources if r.number == 4)
    assert "64-bit, prefetchable" in str(resource)
    with closing(open_device(rng, via)) as backend:
        assert backend.bar_sizes[4] == resource.size
        with closing(Device(backend)) as device:
            with pytest.raises(UnsupportedError, match="VFIO maps it without write-combining"):
                device.bar(4, combining=True)
            assert len(device.bar(4).memory()) == resource.size


def test_level_is_armed_again_by_an_eventfd(address: str, via: str) -> None:
    with attach(address, Edu, via=via, irq_kind=IrqKind.INTX, unsafe_dma_without_iommu=True) as edu:
        rearm = edu.done.unmask_fd()
        for _ in range(3):
            edu.registers.irq_raise.write(Cause(factorial_done=True))
            # What a program without `Irq` does: take, quiet the device, signal.
            assert wait_for(edu.done._line.take) == 1
            edu.registers.irq_acknowledge.write(Cause(factorial_done=True))
            assert edu.done._line.take() == 0
            os.eventfd_write(rearm, 1)


def wait_for(look: Callable[[], int]) -> int:
    end = time.monotonic() + WAIT
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.001)
    return found


@pytest.mark.parametrize("kind", [IrqKind.INTX, IrqKind.MSI])
def test_software_fires_an_interrupt(address: str, via: str, kind: IrqKind) -> None:
    with attach(address, Edu, via=via, irq_kind=kind, unsafe_dma_without_iommu=True) as edu:
        edu.done.trigger()
        assert edu.done.wait(WAIT) == 1
        assert edu.factorial(5) == 120  # and real ones go on


def test_software_fires_several_at_once(e1000e: str, via: str) -> None:
    with closing(open_device(e1000e, via)) as backend, closing(Device(backend)) as device:
        irqs = [device.irq(index) for index in (3, 2, 1, 0)]
        backend.trigger(IrqKind.MSIX, [0, 3])
        assert [irq.poll() for irq in irqs] == [1, 0, 0, 1]


class Nic(Driver):
    """An Intel 82574 that sends the message of receive queue 0 when told to.

    Intel 82574 datasheet, section 10.2.4: ICR (0xC0), ICS (0xC8), IMS (0xD0), IVAR (0xE4).
    """

    def probe(self) -> None:
        self.registers = self.device.bar(0)
        self.removed = False
        self.message = self.device.irq(2)
        self.found = self.registers.read32(0xE4)
        self.registers.write32(0xC0, 0xFFFF_FFFF)  # forget what was raised before
        self.registers.write32(0xE4, 8 | 2)  # valid, message 2
        self.registers.write32(0xD0, 1 << 20)

    def remove(self) -> None:
        self.removed = True

    def fire(self) -> int:
        """QEMU 11 sends a second message for the same cause now and then."""
        self.registers.write32(0xC8, 1 << 20)
        return self.message.wait(WAIT)


@pytest.mark.parametrize("method", ["pm", "bus"])
def test_messages_come_again_after_a_reset(e1000e: str, via: str, method: str) -> None:
    """QEMU's device keeps its registers through power states, and loses them with its bus."""
    Path(f"/sys/bus/pci/devices/{e1000e}/reset_method").write_text(method)
    with closing(attach(e1000e, Nic, via=via, unsafe_dma_without_iommu=True)) as attached:
        assert attached.driver.fire()
        attached.reset()
        assert attached.driver.found == (0 if method == "bus" else 0xA)
        assert attached.driver.fire()


def test_doorbell_rings_by_the_kernel(address: str, via: str) -> None:
    with closing(open_device(address, via)) as backend, closing(backend.bar(0)) as bar:
        backend.config.write16(4, backend.config.read16(4) | 2)  # memory space on
        bar.write32(4, 0)
        doorbell = backend.doorbells.open(0, 4, 0x1234_5678)
        doorbell.ring()
        assert wait_for(lambda: bar.read32(4) == 0x1234_5678 ^ 0xFFFF_FFFF)
        doorbell.close()
        again = backend.doorbells.open(0, 4, 0x1234_5678)  # the kernel has forgotten the first
        assert again.fileno() >= 0


def test_error_of_the_bus_ends_waits_until_a_reset(e1000e: str, via: str) -> None:
    backend = open_device(e1000e, via)
    ends: list[DeviceError] = []

    def wait() -> None:
        try:
            nic.message.wait(WAIT)
        except DeviceError as error:
            ends.append(error)

    with closing(attach(backend, Nic)) as attached:
        nic = attached.driver
        waiter = threading.Thread(target=wait)
        waiter.start()
        backend.notices.trigger(Notice.ERROR)
        waiter.join(WAIT)
        assert [type(end) for end in ends] == [DeviceError]
        with pytest.raises(DeviceError, match="the bus reported an error"):
            nic.message.poll()
        attached.reset()
        assert nic.fire()


def test_every_device_has_the_request_and_express_ones_the_error(
    address: str, e1000e: str, via: str
) -> None:
    """Older kernels have no error for a conventional device, as edu is."""
    with closing(open_device(address, via)) as backend:
        assert Notice.REQUEST in backend.notices.available
    with closing(open_device(e1000e, via)) as backend:
        assert backend.notices.available == [Notice.ERROR, Notice.REQUEST]


@pytest.fixture
def unbinding(e1000e: str) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts a process that takes the device from its driver; it is bound again afterwards."""
    node = f"/sys/bus/pci/devices/{e1000e}/driver/unbind"

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sh", "-c", f"echo {e1000e} >{node}"])

    yield start
    assert find_function(E1000E).driver is None
    subprocess.run(["sh", "-c", f"echo {e1000e} >/sys/bus/pci/drivers/vfio-pci/bind"], check=True)


def test_unbinding_ends_a_wait_and_completes(
    e1000e: str, via: str, unbinding: Callable[[], subprocess.Popen[bytes]]
) -> None:
    attached = attach(e1000e, Nic, via=via, unsafe_dma_without_iommu=True)
    process = unbinding()
    with pytest.raises(DeviceGone, match="asked for the device back"):
        attached.driver.message.wait(WAIT)
    assert process.wait(WAIT) == 0
    assert attached.driver.removed
    attached.close()


def test_unbinding_completes_while_the_program_does_nothing(
    e1000e: str, via: str, unbinding: Callable[[], subprocess.Popen[bytes]]
) -> None:
    with attach(e1000e, Nic, via=via, unsafe_dma_without_iommu=True) as nic:
        process = unbinding()
        assert process.wait(WAIT) == 0
        assert nic.removed
        for use in (
            nic.fire,
            lambda: nic.device.bar(0),
            lambda: nic.device.config.read32(0),
            nic.device.reset,
        ):
            with pytest.raises(DeviceGone, match="asked for the device back"):
                use()


def test_unbinding_completes_while_the_program_hangs_in_remove(
    e1000e: str,
    via: str,
    unbinding: Callable[[], subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("uspace_drv.attachment.REMOVE_TIMEOUT", 0.5)
    hung = threading.Event()

    class Hanging(Nic):
        def remove(self) -> None:
            hung.wait(WAIT)

    attached = attach(e1000e, Hanging, via=via, unsafe_dma_without_iommu=True)
    process = unbinding()
    assert process.wait(WAIT) == 0
    hung.set()
    with pytest.raises(DeviceError, match="remove did not return"):
        attached.close()


def test_regions_of_a_function(e1000e: str, via: str) -> None:
    """Every one of the nine can be asked for, and what there is agrees with sysfs."""
    with closing(open_device(e1000e, via)) as backend:
        sizes = {number: backend.regions.info(number).size for number in range(9)}
        for resource in find_function(E1000E).resources:
            assert sizes[resource.number] == resource.size
        assert sizes[Region.CONFIG] == 4096

"""The open VFIO device over a fake kernel: regions in parts, interrupts, notices, doorbells."""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.backends.fake_vfio_device import (
    MAPPED,
    PAGE,
    READ_WRITE,
    STRIDE,
    FakeKernel,
    FakeOpening,
    FakeRegion,
    open_fake,
    sparse,
    typed,
)
from tests.unit.specimens import WAIT
from uspace_drv import Driver, attach
from uspace_drv.backends.vfio import VfioDevice
from uspace_drv.backends.vfio.regions import RegionKind
from uspace_drv.backends.vfio.uapi import Request
from uspace_drv.backends.vfio.uapi.ioeventfd import IoEventFd, IoEventFdFlag
from uspace_drv.device import Device
from uspace_drv.errors import (
    BusyError,
    DeviceError,
    DeviceGone,
    HostError,
    NoDevice,
    RegisterValueError,
    UnsupportedError,
)
from uspace_drv.port import IrqKind, Notice
from uspace_drv.regions import Area
from uspace_drv.vfio_numbers import IrqAction, IrqIndex, Region, RegionCapability, RegionFlag

pytestmark = pytest.mark.usefixtures("nothing_left")

ON = IrqAction.DATA_EVENTFD | IrqAction.TRIGGER
OFF = IrqAction.DATA_NONE | IrqAction.TRIGGER


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKernel]:
    kernel = FakeKernel(monkeypatch)
    os.pwrite(kernel.file, b"\x34\x12\xe8\x11", Region.CONFIG * STRIDE)
    yield kernel
    kernel.close()


@pytest.fixture
def backend(kernel: FakeKernel) -> Iterator[VfioDevice]:
    backend = open_fake(kernel)
    yield backend
    backend.close()


@pytest.fixture
def device(backend: VfioDevice) -> Iterator[Device]:
    device = Device(backend)
    yield device
    device.close()


def mappings() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:device")


def test_what_fails_on_the_way_in_closes_the_opening(kernel: FakeKernel) -> None:
    kernel.fails[Request.DEVICE_GET_IRQ_INFO] = errno.EIO
    opening = FakeOpening(kernel)
    with pytest.raises(DeviceGone):
        VfioDevice.from_opening("0000:00:04.0", opening)
    assert opening.is_closed


def test_region_with_a_hole_is_mapped_around_it(kernel: FakeKernel, device: Device) -> None:
    """As kernels before 4.16 show a BAR with an MSI-X table."""
    kernel.regions[2] = FakeRegion(4 * PAGE, chain=[sparse((2 * PAGE, 2 * PAGE), (0, PAGE))])
    window = device.bar(2)
    for offset, width in ((0, 8), (PAGE - 4, 4), (PAGE, 8), (2 * PAGE - 1, 1), (3 * PAGE, 2)):
        value = 0x1122334455667788 >> 64 - 8 * width
        getattr(window, f"write{8 * width}")(offset, value)
        assert getattr(window, f"read{8 * width}")(offset) == value
        assert os.pread(kernel.file, width, 2 * STRIDE + offset) == value.to_bytes(width, "little")
    with pytest.raises(RegisterValueError):
        window.read32(4 * PAGE)
    assert mappings() == 2


@pytest.mark.parametrize(
    ("region", "mapped"),
    [
        (FakeRegion(PAGE), 1),
        (FakeRegion(256), 1),
        (FakeRegion(PAGE, chain=[(RegionCapability.MSIX_MAPPABLE, b"")]), 1),
        (FakeRegion(4 * PAGE, chain=[sparse((0, 4 * PAGE))]), 1),
        (FakeRegion(4 * PAGE, chain=[sparse()]), 0),
        (FakeRegion(4 * PAGE, chain=[sparse((0, 100))]), 0),
        (FakeRegion(PAGE, READ_WRITE), 0),
    ],
)
def test_what_is_mapped(
    kernel: FakeKernel, device: Device, region: FakeRegion, mapped: int
) -> None:
    kernel.regions[1] = region
    device.bar(1).write16(0x10, 0xBEEF)
    assert os.pread(kernel.file, 2, STRIDE + 0x10) == b"\xef\xbe"
    assert mappings() == mapped


def test_msix_table_that_may_be_mapped_is_told(kernel: FakeKernel, backend: VfioDevice) -> None:
    kernel.regions[1] = FakeRegion(PAGE, chain=[(RegionCapability.MSIX_MAPPABLE, b"")])
    assert backend.regions.info(1).has_mappable_msix
    assert not backend.regions.info(0).has_mappable_msix
    assert backend.regions.info(0).areas == (Area(0, 2 * PAGE),)


def patch(layout: str, offset: int, *numbers: int) -> Callable[[bytearray], None]:
    return lambda reply: struct.pack_into(layout, reply, offset, *numbers)


@pytest.mark.parametrize(
    ("chain", "mangle", "text"),
    [
        ([sparse((0, PAGE))], patch("=I", 36, 32), "a capability at 0x20, seen before"),
        ([sparse((0, PAGE))], patch("=I", 36, 5000), "a capability at 0x1388"),
        ([sparse((0, PAGE))], patch("=I", 12, 8), "a capability at 0x8"),
        ([sparse((0, PAGE))], patch("=I", 40, 99), "99 areas in 24 bytes"),
        ([sparse((PAGE, 2 * PAGE))], lambda _: None, "is not inside of its 0x2000 bytes"),
        ([sparse((0, PAGE), (0, PAGE))], lambda _: None, "is empty or overlaps"),
        ([(RegionCapability.TYPE, b"abc")], lambda _: None, "a type of 3 bytes, expected 8"),
    ],
)
def test_nonsense_from_the_kernel(
    kernel: FakeKernel,
    backend: VfioDevice,
    chain: list[tuple[int, bytes]],
    mangle: Callable[[bytearray], None],
    text: str,
) -> None:
    kernel.regions[0] = FakeRegion(2 * PAGE, chain=chain)
    kernel.mangle = mangle
    with pytest.raises(HostError, match=rf"0000:00:04\.0: what the kernel says .*{text}"):
        backend.bar(0)


def test_rom(kernel: FakeKernel, device: Device) -> None:
    with pytest.raises(NoDevice, match="no rom: region 6 has no bytes"):
        device.rom()


def test_rom_that_there_is(kernel: FakeKernel, device: Device) -> None:
    kernel.regions[Region.ROM] = FakeRegion(PAGE, RegionFlag.READ)
    os.pwrite(kernel.file, b"\x55\xaa", Region.ROM * STRIDE)
    assert device.rom().read16(0) == 0xAA55
    assert device.rom() is device.rom()


def test_vga_is_not_there_on_a_kernel_without_it(backend: VfioDevice) -> None:
    with pytest.raises(NoDevice, match="no vga"):
        backend.regions.vga()


def test_special_regions_are_found_by_what_they_are(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.region_count = 11
    kernel.regions[9] = FakeRegion(PAGE, READ_WRITE, [typed(1, 2)])
    kernel.regions[10] = FakeRegion(2 * PAGE, READ_WRITE, [sparse(), typed(0x80008086, 1)])
    backend = open_fake(kernel)
    assert backend.regions.special(RegionKind(0x80008086, 1)).size == 2 * PAGE
    assert [info.number for info in backend.regions.specials()] == [9, 10]
    with pytest.raises(NoDevice, match=r"it has RegionKind\(type=1, subtype=2\), RegionKind"):
        backend.regions.special(RegionKind(7, 7))
    backend.close()


def test_no_write_combining(device: Device) -> None:
    with pytest.raises(UnsupportedError, match="bar 0: VFIO maps it without write-combining"):
        device.bar(0, combining=True)


def test_trigger_fires_one_and_several(kernel: FakeKernel, device: Device) -> None:
    irqs = [device.irq(index) for index in (3, 1, 0)]
    irqs[1].trigger()
    assert [irq.poll() for irq in irqs] == [0, 1, 0]
    device._backend.trigger(IrqKind.MSIX, [0, 3])  # type: ignore[attr-defined]
    assert [irq.poll() for irq in irqs] == [1, 0, 1]
    kinds = [entry for entry in kernel.sets if IrqAction.DATA_BOOL in entry[1]]
    assert [entry[2:] for entry in kinds] == [(1, 1), (0, 4)]


def test_level_that_an_eventfd_unmasks(kernel: FakeKernel, backend: VfioDevice) -> None:
    device = Device(backend, irq_kind=IrqKind.INTX)
    irq = device.irq(0)
    fd = irq.unmask_fd()
    assert (kernel.unmasking, irq.unmask_fd()) == ([fd], fd)
    device.reset()
    assert kernel.unmasking == [fd, fd]
    device.close()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_message_that_nothing_unmasks(device: Device) -> None:
    with pytest.raises(UnsupportedError, match="VFIO has nothing to unmask in msix; INTx has"):
        device.irq(0).unmask_fd()


def test_unmasking_that_the_kernel_refuses(
    kernel: FakeKernel, backend: VfioDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = backend.irq_line(IrqKind.INTX, 0)
    kernel.fails[Request.DEVICE_SET_IRQS] = errno.EINVAL
    with pytest.raises(HostError):
        line.unmask_fd()
    kernel.fails.clear()
    line.close()


def test_interrupts_are_on_again_after_a_reset(kernel: FakeKernel, device: Device) -> None:
    device.irq(0)
    device.irq(2)
    kernel.sets.clear()
    device.reset()
    msix = IrqIndex.MSIX
    assert kernel.sets == [(msix, OFF, 0, 0), (msix, ON, 0, 3)]
    assert [fd >= 0 for fd in kernel.signalled.values()] == [True, False, True]
    os.eventfd_write(kernel.signalled[msix, 2], 1)
    assert device.irq(2).poll() == 1


class Idle(Driver):
    """Does nothing, and says when it leaves."""

    left = False

    def remove(self) -> None:
        self.left = True


def test_error_and_request_reach_the_driver(kernel: FakeKernel, backend: VfioDevice) -> None:
    attached = attach(backend, Idle)
    irq = attached.driver.device.irq(0)
    ends: list[DeviceError] = []

    def wait() -> None:
        try:
            irq.wait(WAIT)
        except DeviceError as error:
            ends.append(error)

    for notice, kind in ((Notice.ERROR, DeviceError), (Notice.REQUEST, DeviceGone)):
        waiter = threading.Thread(target=wait)
        waiter.start()
        backend.notices.trigger(notice)
        waiter.join(WAIT)
        assert type(ends.pop()) is kind
        if notice is Notice.ERROR:
            attached.reset()
    for thread in threading.enumerate():
        if thread.name.endswith("notices"):
            thread.join(WAIT)
    assert attached.driver.left
    with pytest.raises(DeviceGone, match="asked for the device back"):
        attached.driver.device.bar(0)
    attached.close()


def test_notices_are_switched_off_when_it_is_left(kernel: FakeKernel, backend: VfioDevice) -> None:
    with attach(backend, Idle):
        assert kernel.signalled[IrqIndex.ERR, 0] >= 0
        assert kernel.signalled[IrqIndex.REQ, 0] >= 0
    assert kernel.signalled == {(IrqIndex.ERR, 0): -1, (IrqIndex.REQ, 0): -1}


def test_kernel_that_refuses_a_notice(kernel: FakeKernel, backend: VfioDevice) -> None:
    kernel.fails[Request.DEVICE_SET_IRQS] = errno.EINVAL
    with pytest.raises(HostError, match="VFIO_DEVICE_SET_IRQS"):
        attach(backend, Idle)


def test_device_without_notices_has_no_thread(kernel: FakeKernel) -> None:
    kernel.irq_count = 3
    backend = open_fake(kernel)
    before = threading.active_count()
    with attach(backend, Idle):
        assert backend.notices.available == []
        assert threading.active_count() == before


def test_conventional_device_has_no_error_notice(kernel: FakeKernel) -> None:
    del kernel.irqs[IrqIndex.ERR]
    backend = open_fake(kernel)
    assert backend.notices.available == [Notice.REQUEST]
    backend.close()


def test_doorbell_is_rung_by_the_kernel(kernel: FakeKernel, backend: VfioDevice) -> None:
    doorbell = backend.doorbells.open(0, 0x20, 7, width=2)
    place = (0x20, 7)
    assert kernel.doorbells == {place: (IoEventFdFlag.WIDTH_16, doorbell.fileno())}
    doorbell.ring()
    assert os.eventfd_read(kernel.doorbells[place][1]) == 1
    with pytest.raises(BusyError, match="0x20 has a doorbell for 0x7"):
        backend.doorbells.open(0, 0x20, 7)
    doorbell.close()
    doorbell.close()
    assert kernel.doorbells == {}
    backend.doorbells.open(0, 0x20, 8)  # and left open: closing the device closes it


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ((0, 0, 0, 3), "a store of 3 bytes"),
        ((0, 2, 0, 4), "offset 0x2 for 4 bytes"),
        ((0, 2 * PAGE, 0, 1), "offset 0x2000 for 1 bytes"),
        ((7, 0, 0, 1), "inside of 0x0 bytes"),
        ((0, 0, 256, 1), "value 0x100 does not fit 8 bits"),
    ],
)
def test_doorbell_that_does_not_fit(
    backend: VfioDevice, place: tuple[int, int, int, int], text: str
) -> None:
    with pytest.raises(RegisterValueError, match=text):
        backend.doorbells.open(*place)


@pytest.mark.parametrize(
    ("number", "error", "text"),
    [
        (errno.ENOTTY, UnsupportedError, "no doorbells here .* Linux 4.17"),
        (errno.ENOSPC, HostError, "VFIO_DEVICE_IOEVENTFD: No space left"),
    ],
)
def test_doorbell_that_the_kernel_refuses(
    kernel: FakeKernel, backend: VfioDevice, number: int, error: type[Exception], text: str
) -> None:
    kernel.fails[Request.DEVICE_IOEVENTFD] = number
    with pytest.raises(error, match=text):
        backend.doorbells.open(0, 0, 1)


def test_doorbell_of_a_device_that_is_gone(kernel: FakeKernel, backend: VfioDevice) -> None:
    doorbell = backend.doorbells.open(0, 0, 1)
    kernel.fails[Request.DEVICE_IOEVENTFD] = errno.ENODEV
    doorbell.close()
    assert doorbell.fileno() == -1


def test_size_of_a_doorbell() -> None:
    """Linux include/uapi/linux/vfio.h: 32 bytes, fd at 24."""
    assert (IoEventFd.fd.offset, IoEventFd.reserved.offset) == (24, 28)
    assert bytes(IoEventFd(32, 4, 1, 2, -1)) == struct.pack("=IIQQiI", 32, 4, 1, 2, -1, 0)


def test_mapped_flags_are_those_of_the_kernel() -> None:
    assert int(MAPPED) == 7

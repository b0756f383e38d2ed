"""The virtio entropy device: a device that wears a driver out, and a driver that does so to it."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from uspace_drivers.virtio_rng import RngRegisters, VirtioRng, VirtioRngModel
from uspace_drivers.virtio_rng.model import MOST_BYTES
from uspace_drivers.virtio_rng.registers import (
    DescriptorFlags,
    DeviceStatus,
    Feature,
    Isr,
    RingHeader,
    StructureType,
    UsedEntry,
)
from uspace_drivers.virtio_rng.virtqueue import Virtqueue
from uspace_drv import DeviceError, DeviceTimeout, IrqKind, attach
from uspace_drv.models import VendorSpecific, on_read

COMMON = VendorSpecific(struct.pack("<BBBxxII", StructureType.COMMON, 0, 0, 0, 0x38))
ISR = VendorSpecific(struct.pack("<BBBxxII", StructureType.ISR, 0, 0, 0x40, 1))


def doorbells(offset: int = 0x44, length: int = 4, multiplier: int = 4) -> VendorSpecific:
    """Say where the doorbells are."""
    place = struct.pack("<BBBxxII", StructureType.NOTIFY, 0, 0, offset, length)
    return VendorSpecific(place + struct.pack("<I", multiplier))


class Noisy(VirtioRngModel):
    """Whenever it is asked how it is it interrupts, and never gives a byte; it gets tired of it."""

    asked = 0

    @on_read(RngRegisters.device_status)
    def interrupt_again(self) -> DeviceStatus:
        status = self.get(RngRegisters.device_status)
        self.asked += 1
        if status.driver_ok and self.asked < 100_000:
            self.interrupts.send(0)
        return status

    def serve(self) -> None:
        """Interrupt for nothing."""
        self.interrupts.send(0)


def test_interrupts_for_nothing_do_not_put_the_deadline_off() -> None:
    message = r"rng: too few random bytes within 0\.010 s"
    attachment = attach(Noisy("rng"), VirtioRng, irq_kind=IrqKind.MSIX)
    with attachment as rng, pytest.raises(DeviceTimeout, match=message):
        rng.read(1, 0.01)


class Miser(VirtioRngModel):
    """It gives a byte for each buffer, however large."""

    def chain(self, head: int) -> Iterator[tuple[int, int]]:
        """Only the first byte of each."""
        return ((address, 1) for address, _ in super().chain(head))


@pytest.mark.parametrize("polled", [False, True])
def test_a_byte_at_a_time_does_not_put_the_deadline_off(polled: bool) -> None:
    with attach(Miser("rng"), VirtioRng) as rng:
        assert len(rng.read(100, polled=polled)) == 100
        with pytest.raises(DeviceTimeout, match=r"rng: too few random bytes within 0\.010 s"):
            rng.read(200_000, 0.01, polled=polled)


class Unheard(VirtioRngModel):
    """It answers in the very moment in which the driver's wish for an interrupt is not yet seen."""

    def serve(self) -> None:
        """Wait for the moment."""

    def answer(self) -> None:
        """Fill all buffers, and interrupt nobody."""
        if self.get(RngRegisters.device_status).driver_ok:
            super().serve()

    def interrupt(self, vector: int, isr: Isr) -> None:
        """As the flag said before."""


def test_a_wish_for_interrupts_is_seen_before_the_last_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Section 2.7.14: the flag is stored, then all is looked through once more, then one sleeps.

    Between the two there is a full barrier: a processor may look before others see its store.
    """
    model = Unheard("rng")
    with attach(model, VirtioRng) as rng:
        with pytest.raises(DeviceTimeout):
            rng.read(16, timeout=0.0, polled=True)
        monkeypatch.setattr("uspace_drv.dma.full_barrier", model.answer)
        assert len(rng.read(16, timeout=0.5)) == 16


def test_the_device_looks_for_the_wish_when_its_index_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other half: it stores the index, then it looks whether to interrupt."""
    with attach(VirtioRngModel("rng"), VirtioRng, irq_kind=IrqKind.MSIX) as rng:
        rng.queue.want_interrupts(False)
        monkeypatch.setattr("uspace_drv.dma.full_barrier", lambda: rng.queue.want_interrupts(True))
        offer(rng, 16)
        rng.done.wait(1.0)


class Vectors(VirtioRngModel):
    """It takes another vector than it is told."""

    def vector(self, wanted: int) -> int:
        return 1


class CrookedCommon(VirtioRngModel):
    """Its common configuration is not aligned (section 4.1.4.3)."""

    capabilities = (
        VendorSpecific(struct.pack("<BBBxxII", StructureType.COMMON, 0, 0, 2, 0x38)),
        ISR,
        doorbells(),
    )


class CrookedDoorbell(VirtioRngModel):
    """Its doorbell is not aligned (section 4.1.4.4)."""

    capabilities = (COMMON, ISR, doorbells(0x45))


class FarDoorbell(VirtioRngModel):
    """Its doorbell is beyond all addresses."""

    capabilities = (COMMON, ISR, doorbells(0xFFFF_FFFE, 0xFFFF_FFFF, 0xFFFF_FFFF))


class Shortened(VirtioRngModel):
    """The capability of its doorbells ends before the multiplier."""

    capabilities = (
        COMMON,
        ISR,
        VendorSpecific(struct.pack("<BBBxxII", StructureType.NOTIFY, 0, 0, 0x44, 4)),
    )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Vectors, "it was told vector 0 and says 1"),
        (CrookedCommon, "COMMON lies at 0x2 of BAR 0, expected a multiple of 4"),
        (CrookedDoorbell, "NOTIFY lies at 0x45 of BAR 0, expected a multiple of 2"),
        (FarDoorbell, "NOTIFY lies at 0xfffffffe of BAR 0"),
        (Shortened, "no NOTIFY structure among the capabilities"),
    ],
)
def test_devices_that_are_refused(model: type[VirtioRngModel], message: str) -> None:
    with pytest.raises(DeviceError, match=f"rng: {message}"):
        attach(model("rng"), VirtioRng, irq_kind=IrqKind.MSIX)


class AtTheEnd(VirtioRngModel):
    """Its last structure is told of by the last 16 bytes of configuration space."""

    irqs = {IrqKind.INTX: 1}
    capabilities = (
        COMMON,
        doorbells(),
        VendorSpecific(bytes(0xF0 - 0x40 - 16 - 20 - 3)),
        ISR,
    )


def test_a_capability_at_the_end_of_configuration_space_is_found() -> None:
    model = AtTheEnd("rng")
    with attach(model, VirtioRng) as rng:
        last = max(range(0x40, 0x100, 4), key=lambda at: (rng.device.config.read8(at) == 9, at))
        assert last == 0xF0
        assert len(rng.read(16)) == 16


class Plain(VirtioRngModel):
    """It offers none of the features that the driver needs."""

    offered = Feature(0)


class Stubborn(VirtioRngModel):
    """It agrees on no features."""

    def agrees(self) -> bool:
        """Nothing is right."""
        return False


class Queueless(VirtioRngModel):
    """It has no queue."""

    @on_read(RngRegisters.queue_size)
    def show_size(self) -> int:
        return 0


def statuses_of(model: VirtioRngModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the driver is going to write to the status."""
    written: list[int] = []
    write_bar = model.write_bar

    def note(bar: int, offset: int, width: int, value: int) -> None:
        if offset == RngRegisters.device_status.offset:
            written.append(value)
        write_bar(bar, offset, width, value)

    monkeypatch.setattr(model, "write_bar", note)
    return written


@pytest.mark.parametrize(
    ("model", "last"),
    [(Plain, 0x83), (Stubborn, 0x83), (Vectors, 0x8B), (FarDoorbell, 0x8B), (Queueless, 0x8B)],
)
def test_a_driver_that_gives_up_says_so(
    model: type[VirtioRngModel], last: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Section 3.1.1: where a step goes wrong beyond help, the driver sets FAILED."""
    device = model("rng")
    written = statuses_of(device, monkeypatch)
    with pytest.raises(DeviceError):
        attach(device, VirtioRng, irq_kind=IrqKind.MSIX)
    assert (written[0], written[-1]) == (0, last)


def test_a_driver_that_is_interrupted_says_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model = VirtioRngModel("rng")
    written = statuses_of(model, monkeypatch)
    monkeypatch.setattr(Virtqueue, "__init__", interrupt_this)
    with pytest.raises(KeyboardInterrupt):
        attach(model, VirtioRng)
    assert written[-1] == 0x8B


def interrupt_this(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_device_that_cannot_be_told_does_not_hide_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Queueless("rng")
    write_bar = model.write_bar

    def refuse(bar: int, offset: int, width: int, value: int) -> None:
        if offset == RngRegisters.device_status.offset and value & 0x80:
            raise DeviceError("rng: bus error")
        write_bar(bar, offset, width, value)

    monkeypatch.setattr(model, "write_bar", refuse)
    with pytest.raises(DeviceError, match="its queue has 0 entries") as raised:
        attach(model, VirtioRng)
    assert "and it could not be told so: rng: bus error" in raised.value.__notes__


def offer(rng: VirtioRng, length: int, flags: int = DescriptorFlags.WRITE) -> tuple[int, int]:
    """Offer the first buffer with that descriptor; id and length that came back."""
    queue = rng.queue
    queue.descriptors.array[0] = (queue.buffers.iova, length, flags, 0)
    queue.driver_area.array[RingHeader.index.offset] = 1
    rng.doorbell.queue.write(0)
    entry = UsedEntry.view(queue.device_area.array[RingHeader.SIZE :])[0]
    return int(entry["id"]), int(entry["length"])


def test_a_buffer_of_4_gib_costs_the_model_little(monkeypatch: pytest.MonkeyPatch) -> None:
    model = VirtioRngModel("rng")
    drawn: list[int] = []

    def draw(size: int) -> bytes:
        drawn.append(size)
        return b"?"

    monkeypatch.setattr(model, "draw", draw)
    with attach(model, VirtioRng) as rng:
        assert offer(rng, 0xFFFF_FFFF) == (0, MOST_BYTES)
        assert drawn == [MOST_BYTES]


def test_a_flag_that_was_not_agreed_on() -> None:
    """Section 2.7.5.3.1: 4 is an indirect descriptor, which is a feature."""
    message = "rng: descriptor 0 has flags 0x4, expected 0 to 3"
    with attach(VirtioRngModel("rng"), VirtioRng) as rng, pytest.raises(DeviceError, match=message):
        offer(rng, 16, 4)


@pytest.mark.parametrize("select", [2, 0xFFFF_FFFF])
def test_features_beyond_the_64_there_are(select: int) -> None:
    model = VirtioRngModel("rng")
    with attach(model, VirtioRng) as rng:
        rng.common.driver_feature_select.write(select)
        rng.common.driver_feature.write(0xFFFF_FFFF)
        rng.common.device_feature_select.write(select)
        assert (model.features, rng.common.device_feature.read()) == (model.offered, 0)


@pytest.mark.parametrize(("queue", "size"), [(0, 0), (0, 3), (0, 128), (0, 0xFFFF), (1, 8)])
def test_a_size_that_no_queue_has(queue: int, size: int) -> None:
    with attach(VirtioRngModel("rng"), VirtioRng) as rng:
        rng.common.queue_select.write(queue)
        with pytest.raises(DeviceError, match=f"rng: queue {queue} cannot have {size} entries"):
            rng.common.queue_size.write(size)
        rng.common.queue_select.write(0)
        assert len(rng.read(100)) == 100


@pytest.mark.parametrize("area", ["queue_desc", "queue_driver", "queue_device"])
def test_addresses_that_end_beyond_64_bits(area: str) -> None:
    with attach(VirtioRngModel("rng"), VirtioRng) as rng:
        getattr(rng.common, area).write((1 << 64) - 1)
        with pytest.raises(DeviceError, match=f"{area} .* which was never mapped"):
            rng.read(1, 0.1)

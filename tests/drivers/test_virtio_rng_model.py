"""The virtio entropy device: what its tables say, a device that lies, and a driver that errs."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from uspace_drivers.virtio_rng import (
    CommonConfiguration,
    Fault,
    RngRegisters,
    VirtioRng,
    VirtioRngModel,
)
from uspace_drivers.virtio_rng.registers import (
    AvailableEntry,
    Descriptor,
    DeviceStatus,
    Feature,
    NotifyCapability,
    RingHeader,
    UsedEntry,
)
from uspace_drv import Attachment, DeviceError, DeviceTimeout, IrqKind, NoDevice, attach
from uspace_drv.backends.virtual import VirtualDevice
from uspace_drv.models import VendorSpecific, on_read
from uspace_drv.pci.capabilities import capabilities
from uspace_drv.pci.capability_values import VirtioStructure


@pytest.fixture
def model() -> VirtioRngModel:
    return VirtioRngModel("rng")


@pytest.fixture(params=[IrqKind.INTX, IrqKind.MSIX], ids=lambda kind: kind.value)
def attached(
    request: pytest.FixtureRequest, model: VirtioRngModel
) -> Iterator[Attachment[VirtioRng]]:
    attachment = attach(model, VirtioRng, irq_kind=request.param)
    with attachment:
        yield attachment


def test_common_configuration_is_where_the_specification_says() -> None:
    """Section 4.1.4.3: `struct virtio_pci_common_cfg`."""
    table = [(each.name, each.offset, each.width) for each in CommonConfiguration.registers()]
    assert table == [
        ("device_feature_select", 0, 32),
        ("device_feature", 4, 32),
        ("driver_feature_select", 8, 32),
        ("driver_feature", 12, 32),
        ("config_msix_vector", 16, 16),
        ("num_queues", 18, 16),
        ("device_status", 20, 8),
        ("config_generation", 21, 8),
        ("queue_select", 22, 16),
        ("queue_size", 24, 16),
        ("queue_msix_vector", 26, 16),
        ("queue_enable", 28, 16),
        ("queue_notify_off", 30, 16),
        ("queue_desc", 32, 64),
        ("queue_driver", 40, 64),
        ("queue_device", 48, 64),
    ]


def test_capability_is_as_the_specification_says() -> None:
    """Sections 4.1.4 and 4.1.4.4: `struct virtio_pci_cap`, `struct virtio_pci_notify_cap`."""
    table = [(each.name, each.offset, each.width) for each in NotifyCapability.registers()]
    assert table == [
        ("cap_vndr", 0, 8),
        ("cap_next", 1, 8),
        ("cap_len", 2, 8),
        ("cfg_type", 3, 8),
        ("bar", 4, 8),
        ("id", 5, 8),
        ("structure_offset", 8, 32),
        ("structure_length", 12, 32),
        ("notify_off_multiplier", 16, 32),
    ]


def test_bits_and_rings_are_as_the_specification_says() -> None:
    """Sections 2.1, 2.7.5, 2.7.6, 2.7.8 and 6."""
    status = {name: field.low for name, field in DeviceStatus.FIELDS.items()}
    assert status == {
        "acknowledge": 0, "driver": 1, "driver_ok": 2, "features_ok": 3, "device_needs_reset": 6,
        "failed": 7,
    }  # fmt: skip
    assert [bit.value.bit_length() - 1 for bit in Feature] == [32, 33, 36]
    descriptor = Descriptor.array(1)
    descriptor[0] = (0x1122334455667788, 0x99AABBCC, 0xDDEE, 0xFF00)
    assert descriptor.tobytes() == struct.pack(
        "<QIHH", 0x1122334455667788, 0x99AABBCC, 0xDDEE, 0xFF00
    )
    sizes = [each.SIZE for each in (RingHeader, AvailableEntry, UsedEntry)]
    assert (sizes, RingHeader.index.offset, UsedEntry.length.offset) == ([4, 2, 8], 2, 4)


def test_a_seed_makes_it_repeat_itself() -> None:
    seen = []
    for seed in (7, 7, 8):
        with attach(VirtioRngModel(seed=seed), VirtioRng) as rng:
            seen.append(rng.read(100))
    assert seen[0] == seen[1] != seen[2]


def test_its_structures_are_found_by_everybody(model: VirtioRngModel) -> None:
    config = VirtualDevice(model).config
    found = [each for each in capabilities(config) if isinstance(each, VirtioStructure)]
    places = [(each.kind, each.bar, each.place, each.size, each.multiplier) for each in found]
    assert places == [(1, 0, 0, 0x38, None), (3, 0, 0x40, 1, None), (2, 0, 0x44, 4, 4)]


@pytest.mark.parametrize("polled", [False, True])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault.WRONG_ID, "gave back buffer [0-9]+, which it does not have"),
        (Fault.TOO_LONG, "101 bytes in buffer 7; expected 1 to 100"),
        (Fault.EMPTY, "0 bytes in buffer 7; expected 1 to 100"),
        (Fault.JUMP, "the used ring went on from 0 to 1001, but the device has 1 buffers"),
        (Fault.NEEDS_RESET, "it has given up: DeviceStatus.*device_needs_reset=1"),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else "",
)
def test_a_device_that_lies(
    attached: Attachment[VirtioRng],
    model: VirtioRngModel,
    fault: Fault,
    message: str,
    polled: bool,
) -> None:
    model.fault = fault
    with pytest.raises(DeviceError, match=f"rng: {message}"):
        attached.driver.read(100, polled=polled)
    model.fault = Fault.NONE
    attached.reset()
    assert len(attached.driver.read(100, polled=polled)) == 100


@pytest.mark.parametrize("polled", [False, True])
def test_a_device_that_never_answers(
    attached: Attachment[VirtioRng], model: VirtioRngModel, polled: bool
) -> None:
    rng = attached.driver
    model.fault = Fault.SILENT
    with pytest.raises(DeviceTimeout, match=r"(no|too few) .* within 0\.010 s"):
        rng.read(100_000, 0.01, polled=polled)
    model.fault = Fault.NONE
    rng.doorbell.queue.write(0)  # it looks again, and the next read gets what was asked for
    assert len(rng.read(100_000, polled=polled)) == 100_000


@pytest.mark.parametrize("polled", [False, True])
def test_a_device_that_takes_its_time(
    attached: Attachment[VirtioRng], model: VirtioRngModel, polled: bool
) -> None:
    rng = attached.driver
    model.delay = 0.002
    assert len(rng.read(100_000, polled=polled)) == 100_000
    assert (rng.done.count > 0) is not polled


def test_a_delay_is_no_less_than_nothing() -> None:
    with pytest.raises(NoDevice, match="rng: a delay is a number of seconds, 0 or more"):
        VirtioRngModel("rng", delay=-1)


def test_reads_in_two_threads_share_the_device(attached: Attachment[VirtioRng]) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(attached.driver.read, [5000] * 20))
    assert [len(data) for data in found] == [5000] * 20
    assert len(set(found)) == 20


def test_a_buffer_that_is_given_back_twice(model: VirtioRngModel) -> None:
    with attach(model, VirtioRng) as rng:
        model.fault = Fault.SILENT
        with pytest.raises(DeviceTimeout):
            rng.read(2 * 4096, 0.0, polled=True)
        returned = UsedEntry.view(rng.queue.device_area.array[RingHeader.SIZE :])
        returned[:2] = [(7, 16), (7, 16)]
        rng.queue.device_area.array[RingHeader.index.offset] = 2
        with pytest.raises(DeviceError, match="gave back buffer 7, which it does not have"):
            rng.read(1)


class Bare(VirtioRngModel):
    """A device of before virtio 1.0: its structures are nowhere."""

    capabilities = ()


class Outside(VirtioRngModel):
    """Its common configuration ends outside of its BAR; one before is in a BAR of the future."""

    capabilities = (
        VendorSpecific(struct.pack("<BBBxxII", 1, 6, 0, 0, 0x38)),
        VendorSpecific(struct.pack("<BBBxxII", 1, 0, 0, 0xFFF, 0x38)),
    )


class Untranslated(VirtioRngModel):
    """It does not say that an IOMMU translates its addresses."""

    offered = Feature.VERSION_1


class Disagreeing(VirtioRngModel):
    """It does not accept any features."""

    def agrees(self) -> bool:
        return False


class Queueless(VirtioRngModel):
    """It has no queue."""

    @on_read(RngRegisters.queue_size)
    def show_size(self) -> int:
        return 0


class Vectorless(VirtioRngModel):
    """It has no resources for interrupts."""

    def vector(self, wanted: int) -> int:
        return super().vector(0xFFFF)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Bare, "no COMMON structure among the capabilities; .* disable-legacy=on"),
        (Outside, r"COMMON lies at 0xfff of BAR 0 \(0x1000 bytes\) and has 0x38 bytes"),
        (Untranslated, "no ACCESS_PLATFORM; QEMU wants .*iommu_platform=on"),
        (Disagreeing, "it does not agree on features: DeviceStatus"),
        (Queueless, "its queue has 0 entries"),
        (Vectorless, "it has no resources for an interrupt"),
    ],
)
def test_devices_that_are_refused(model: type[VirtioRngModel], message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        attach(model("rng"), VirtioRng)


def test_other_queues_are_not_there(model: VirtioRngModel) -> None:
    select, size = RngRegisters.queue_select.offset, RngRegisters.queue_size.offset
    sizes = []
    for queue in (0, 1):
        model.write_bar(0, select, 2, queue)
        sizes.append(model.read_bar(0, size, 2))
    assert sizes == [64, 0]


def test_a_reset_by_status_forgets_the_queue(attached: Attachment[VirtioRng]) -> None:
    common = attached.driver.common
    common.device_status.write(0)
    seen = common.queue_enable.read(), common.queue_desc.read(), common.queue_msix_vector.read()
    assert seen == (0, 0, 0xFFFF)
    attached.driver.probe()


@pytest.mark.parametrize(
    ("descriptors", "message"),
    [
        ([(0, 16, 2 | 1, 64)], "descriptor 64 of 8 was offered"),
        ([(0, 16, 1, 0)], "a chain of descriptors goes in a circle"),
        ([(0xDEAD_0000, 16, 2, 0)], "descriptor address carried IOVA 0xdead0000"),
    ],
)
def test_a_driver_that_errs(
    model: VirtioRngModel, descriptors: list[tuple[int, int, int, int]], message: str
) -> None:
    with attach(model, VirtioRng) as rng:
        rng.queue.descriptors.array[0] = descriptors[0]
        if descriptors[0][0] == 0:
            rng.queue.descriptors.array[0]["address"] = rng.queue.buffers.iova
        rng.queue.driver_area.array[RingHeader.index.offset] = 1
        with pytest.raises(DeviceError, match=message):
            rng.doorbell.queue.write(0)


def test_a_driver_whose_index_jumps(model: VirtioRngModel) -> None:
    with attach(model, VirtioRng) as rng:
        rng.queue.driver_area.array[RingHeader.index.offset] = 9
        with pytest.raises(DeviceError, match="went on from 0 to 9: more entries than there are"):
            rng.doorbell.queue.write(0)


def test_a_chain_of_two_buffers_is_filled(model: VirtioRngModel) -> None:
    """Linux may hand over memory in pieces; what the device only reads is left alone."""
    with attach(model, VirtioRng) as rng:
        start = rng.queue.buffers.iova
        rng.queue.descriptors.array[:3] = [
            (start, 16, 2 | 1, 1), (start + 16, 16, 1, 2), (start + 32, 16, 2, 0),
        ]  # fmt: skip
        rng.queue.driver_area.array[RingHeader.index.offset] = 1
        rng.doorbell.queue.write(0)
        entry = UsedEntry.view(rng.queue.device_area.array[RingHeader.SIZE :])[0]
        assert (int(entry["id"]), int(entry["length"])) == (0, 32)
        data = rng.queue.buffers.array[0, :64].tobytes()
        assert (any(data[:16]), any(data[16:32]), any(data[32:48])) == (True, False, True)

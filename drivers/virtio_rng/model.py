"""A model of the virtio entropy device (OASIS Virtual I/O Device 1.2, 2.7, 4.1 and 5.4).

Linux's own driver works on it, through vfio-user and QEMU.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator, Sequence
from enum import Enum

from uspace_drivers.virtio_rng.registers import (
    NO_NOTICE,
    NO_VECTOR,
    AvailableEntry,
    CommonConfiguration,
    Descriptor,
    DescriptorFlags,
    DeviceStatus,
    Feature,
    Isr,
    RingHeader,
    StructureType,
    UsedEntry,
)
from uspace_drv import DeviceError, IrqKind, NoDevice, collect, ro, wo
from uspace_drv.models import Bar, DeviceModel, PciIdentity, VendorSpecific, on_read, on_write

BAR = 0
MOST_ENTRIES = 64
MOST_BYTES = 1 << 16
"""Into one chain of buffers, which may be larger: a device need not fill them (section 5.4.6)."""
DESCRIPTOR = struct.Struct("<QIHH")


class RngRegisters(CommonConfiguration, size=0x48):
    """All of the device's registers, in one BAR."""

    isr = ro(0x40, Isr, side_effects=True)
    notify = wo(0x44, width=16)


class Fault(Enum):
    """How a device may break its word: for tests of drivers."""

    NONE = "it keeps it"
    SILENT = "it never answers"
    WRONG_ID = "it gives back a buffer that it does not have"
    TOO_LONG = "it says that it wrote more than there is room for"
    EMPTY = "it says that it wrote nothing"
    JUMP = "its index runs ahead of what it gave back"
    NEEDS_RESET = "it gives up"


def _structure(kind: StructureType, offset: int, size: int, more: bytes = b"") -> VendorSpecific:
    """Return the capability that says where a structure is (section 4.1.4)."""
    return VendorSpecific(struct.pack("<BBBxxII", kind, BAR, 0, offset, size) + more)


class VirtioRngModel(DeviceModel):
    """One queue, whose buffers are filled with random bytes `delay` seconds after a notification.

    The bytes are the system's, or always the same ones for a `seed` other than 0. `delay` and
    `fault` may be set at any time.
    """

    identity = PciIdentity(0x1AF4, 0x1044, revision=1, subvendor=0x1AF4, subdevice=0x1100)
    bars = {BAR: Bar(RngRegisters, size=0x1000)}
    irqs = {IrqKind.INTX: 1, IrqKind.MSIX: 2}
    capabilities: Sequence[VendorSpecific] = (
        _structure(StructureType.COMMON, 0, CommonConfiguration.SIZE),
        _structure(StructureType.ISR, RngRegisters.isr.offset, 1),
        _structure(StructureType.NOTIFY, RngRegisters.notify.offset, 4, struct.pack("<I", 4)),
    )
    doorbells = {RngRegisters.notify: 0}
    offered = Feature.VERSION_1 | Feature.ACCESS_PLATFORM

    def __init__(
        self,
        name: str | None = None,
        *,
        seed: int = 0,
        delay: float = 0.0,
        fault: Fault = Fault.NONE,
    ) -> None:
        if not delay >= 0:  # nor is it what is no number
            raise NoDevice(f"{name or 'virtio_rng'}: a delay is a number of seconds, 0 or more")
        self.delay = delay
        self.generate = random.Random(seed).randbytes if seed else os.urandom
        self.fault = fault
        super().__init__(name)

    def power_on(self) -> None:
        """What a reset of the device does, too, be it by the function or by its status."""
        for register in RngRegisters.registers():
            self.set(register, 0)
        self.set(RngRegisters.config_msix_vector, NO_VECTOR)
        self.set(RngRegisters.queue_msix_vector, NO_VECTOR)
        self.set(RngRegisters.num_queues, 1)
        self.set(RngRegisters.queue_size, MOST_ENTRIES)
        self.features, self.next_offered, self.next_used = 0, 0, 0
        self.interrupts.set_level(False)

    @on_read(RngRegisters.device_feature)
    def offer_features(self) -> int:
        return self.offered >> 32 * self.get(RngRegisters.device_feature_select) & 0xFFFF_FFFF

    @on_write(RngRegisters.driver_feature)
    def take_features(self, value: int) -> None:
        shift = 32 * self.get(RngRegisters.driver_feature_select)
        if shift > 32:  # there are 64 features, and a shift by 2**37 would take all memory
            return
        self.features = self.features & ~(0xFFFF_FFFF << shift) | value << shift

    @on_write(RngRegisters.device_status)
    def set_status(self, status: DeviceStatus) -> None:
        if not status.raw:
            self.power_on()
            return
        needs_reset = self.get(RngRegisters.device_status).device_needs_reset
        agreed = status.features_ok and self.agrees()
        status = status.replace(features_ok=agreed, device_needs_reset=needs_reset)
        self.set(RngRegisters.device_status, status)

    def agrees(self) -> bool:
        """Whether the driver wants all that is offered: it cannot be done without."""
        return self.features == self.offered

    @on_read(RngRegisters.queue_size)
    def show_size(self) -> int:
        return 0 if self.get(RngRegisters.queue_select) else self.get(RngRegisters.queue_size)

    @on_write(RngRegisters.queue_size)
    def set_size(self, size: int) -> None:
        queue = self.get(RngRegisters.queue_select)
        if queue or not 0 < size <= MOST_ENTRIES or size & size - 1:
            raise DeviceError(f"{self.name}: queue {queue} cannot have {size} entries")
        self.set(RngRegisters.queue_size, size)

    @on_write(RngRegisters.config_msix_vector)
    def set_config_vector(self, vector: int) -> None:
        self.set(RngRegisters.config_msix_vector, self.vector(vector))

    @on_write(RngRegisters.queue_msix_vector)
    def set_queue_vector(self, vector: int) -> None:
        self.set(RngRegisters.queue_msix_vector, self.vector(vector))

    def vector(self, wanted: int) -> int:
        """Return the vector, or that there is no such one."""
        return wanted if wanted < self.irqs[IrqKind.MSIX] else NO_VECTOR

    @on_read(RngRegisters.isr)
    def read_isr(self) -> Isr:
        isr = self.get(RngRegisters.isr)
        self.set(RngRegisters.isr, Isr())
        self.interrupts.set_level(False)
        return isr

    @on_write(RngRegisters.notify)
    def notify(self, queue: int) -> None:
        if queue == 0:
            self.after(self.delay, self.serve)

    def serve(self) -> None:
        """Fill all buffers that are there, then interrupt once."""
        status = self.get(RngRegisters.device_status)
        is_ready = status.driver_ok and not status.device_needs_reset
        if not is_ready or not self.get(RngRegisters.queue_enable):
            return
        if self.fault is Fault.NEEDS_RESET:
            self.give_up()
        elif self.fault is not Fault.SILENT:
            self.serve_offered()

    def give_up(self) -> None:
        """Say that only a reset helps (section 2.1.2)."""
        status = self.get(RngRegisters.device_status)
        self.set(RngRegisters.device_status, status.replace(device_needs_reset=True))
        vector = self.get(RngRegisters.config_msix_vector)
        self.interrupt(vector, Isr(configuration_change=True))

    def serve_offered(self) -> None:
        index = self.offered_word(RingHeader.index.offset)
        if index == self.next_offered:
            return
        if (index - self.next_offered) & 0xFFFF > self.get(RngRegisters.queue_size):
            raise DeviceError(
                f"{self.name}: the available ring went on from {self.next_offered} to {index}:"
                " more entries than there are"
            )
        while self.next_offered != index:
            self.fill(self.take_offered())
        self.publish()
        # The driver stores its wish and then looks at the index: one of both sees the other's.
        wish = collect(lambda: self.offered_word(RingHeader.flags.offset), after_stores=True)
        if not wish & NO_NOTICE:
            self.interrupt(self.get(RngRegisters.queue_msix_vector), Isr(queue_interrupt=True))

    def fill(self, head: int) -> None:
        """Write to the buffers of a chain, and put it into the used ring."""
        written = 0
        for descriptor_address, room in self.chain(head):
            length = min(room, MOST_BYTES - written)
            self.memory.write(descriptor_address, self.draw(length), "descriptor address")
            written += length
        if self.fault is Fault.WRONG_ID:
            head += MOST_ENTRIES
        elif self.fault is Fault.TOO_LONG:
            written += 1
        elif self.fault is Fault.EMPTY:
            written = 0
        place = self.next_used % self.get(RngRegisters.queue_size) * UsedEntry.SIZE
        entry = struct.pack("<II", head, written)
        self.write_ring(RingHeader.SIZE + place, entry)
        self.next_used = (self.next_used + 1) & 0xFFFF

    def draw(self, size: int) -> bytes:
        """Return so many random bytes."""
        return self.generate(size)

    def chain(self, head: int) -> Iterator[tuple[int, int]]:
        """Address and length of each buffer of a chain that may be written."""
        table, size = self.get(RngRegisters.queue_desc), self.get(RngRegisters.queue_size)
        for _ in range(size):
            if head >= size:
                raise DeviceError(f"{self.name}: descriptor {head} of {size} was offered")
            place = table + head * Descriptor.SIZE
            data = self.memory.read(place, Descriptor.SIZE, RngRegisters.queue_desc.label)
            address, length, flags, following = DESCRIPTOR.unpack(data)
            if flags > (DescriptorFlags.NEXT | DescriptorFlags.WRITE):
                raise DeviceError(
                    f"{self.name}: descriptor {head} has flags {flags:#x}, expected 0 to 3"
                )
            head = following
            if flags & DescriptorFlags.WRITE:
                yield address, length
            if not flags & DescriptorFlags.NEXT:
                return
        raise DeviceError(f"{self.name}: a chain of descriptors goes in a circle")

    def take_offered(self) -> int:
        """Read the next entry of the available ring: the first descriptor of a chain."""
        place = self.next_offered % self.get(RngRegisters.queue_size) * AvailableEntry.SIZE
        self.next_offered = (self.next_offered + 1) & 0xFFFF
        return self.offered_word(RingHeader.SIZE + place)

    def publish(self) -> None:
        """Say how far the used ring goes; the entries are in memory before."""
        index = self.next_used + (1000 if self.fault is Fault.JUMP else 0)
        self.write_ring(RingHeader.index.offset, (index & 0xFFFF).to_bytes(2, "little"))

    def offered_word(self, offset: int) -> int:
        """Read 16 bits of the driver's area."""
        driver = RngRegisters.queue_driver
        data = self.memory.read(self.get(driver) + offset, 2, driver.label)
        return int.from_bytes(data, "little")

    def write_ring(self, offset: int, data: bytes) -> None:
        """Write to the device's area."""
        device = RngRegisters.queue_device
        self.memory.write(self.get(device) + offset, data, device.label)

    def interrupt(self, vector: int, isr: Isr) -> None:
        """Send a message, or assert INTx where messages are off (section 4.1.5.3)."""
        if not self.config.is_msix_enabled:
            self.set(RngRegisters.isr, self.get(RngRegisters.isr).raw | isr.raw)
            self.interrupts.set_level(True)
        elif vector != NO_VECTOR:
            self.interrupts.send(vector)

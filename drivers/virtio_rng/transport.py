"""Where a virtio device has its registers (OASIS Virtual I/O Device 1.2, section 4.1.4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from uspace_drivers.virtio_rng.registers import (
    CAPABILITIES_POINTER,
    FIRST_CAPABILITY,
    VENDOR_CAPABILITY,
    CommonConfiguration,
    IsrRegisters,
    NotifyCapability,
    NotifyRegisters,
    StructureCapability,
    StructureType,
)
from uspace_drv import Device, DeviceError, RegisterBlock

B = TypeVar("B", bound=RegisterBlock)

ALIGNMENTS = {StructureType.COMMON: 4, StructureType.NOTIFY: 2, StructureType.ISR: 1}

MOST_CAPABILITIES = 48
"""As many as have room in configuration space: a longer list goes in a circle."""


@dataclass(frozen=True)
class Structure:
    """`length` bytes of registers, `offset` bytes into a BAR; `multiplier` is for doorbells."""

    bar: int
    offset: int
    length: int
    multiplier: int = 0


class Transport:
    """The registers of a virtio device; `DeviceError` if it says that they are nowhere."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._structures: dict[int, Structure] = {}
        for kind, structure in _structures(device):
            if structure.bar in device.bar_sizes:  # what is reserved today is to be ignored
                self._structures.setdefault(kind, structure)  # the first one is the best one
        self.common = self._open(CommonConfiguration, StructureType.COMMON)
        self.isr = self._open(IsrRegisters, StructureType.ISR)

    def doorbell(self, notify_off: int) -> NotifyRegisters:
        """Return the doorbell of the queue whose `queue_notify_off` this is."""
        distance = self._structure(StructureType.NOTIFY).multiplier
        return self._open(NotifyRegisters, StructureType.NOTIFY, notify_off * distance)

    def _open(self, block: type[B], kind: StructureType, offset: int = 0) -> B:
        """Open registers within a structure, which has to lie within its BAR."""
        found = self._structure(kind)
        size = self._device.bar_sizes[found.bar]
        place, end = found.offset + offset, found.offset + found.length
        if offset + block.SIZE > found.length or end > size:
            raise DeviceError(
                f"{self._device.address}: {kind.name} lies at {found.offset:#x} of BAR {found.bar}"
                f" ({size:#x} bytes) and has {found.length:#x} bytes; expected"
                f" {offset + block.SIZE:#x} there"
            )
        if place % ALIGNMENTS[kind]:
            raise DeviceError(
                f"{self._device.address}: {kind.name} lies at {place:#x} of BAR"
                f" {found.bar}, expected a multiple of {ALIGNMENTS[kind]}"
            )
        return block(self._device.bar(found.bar), place)

    def _structure(self, kind: StructureType) -> Structure:
        if kind not in self._structures:
            raise DeviceError(
                f"{self._device.address}: no {kind.name} structure among the capabilities; a device"
                " of before virtio 1.0 has none (in QEMU: disable-legacy=on)"
            )
        return self._structures[kind]


def _structures(device: Device) -> Iterator[tuple[int, Structure]]:
    """Walk the list of capabilities: type and place of each that is virtio's."""
    config = device.config
    pointer = config.read8(CAPABILITIES_POINTER) & ~3
    for _ in range(MOST_CAPABILITIES):
        if pointer < FIRST_CAPABILITY:
            return
        size = config.read8(pointer + 2)
        room = min(size, config.size - pointer)
        if config.read8(pointer) == VENDOR_CAPABILITY and room >= StructureCapability.SIZE:
            found = StructureCapability(config, pointer)
            place = found.structure_offset.read(), found.structure_length.read()
            kind = found.cfg_type.read()
            if kind != StructureType.NOTIFY:
                yield kind, Structure(found.bar.read(), *place)
            elif room >= NotifyCapability.SIZE:
                multiplier = NotifyCapability(config, pointer).notify_off_multiplier.read()
                yield kind, Structure(found.bar.read(), *place, multiplier)
        pointer = config.read8(pointer + 1) & ~3

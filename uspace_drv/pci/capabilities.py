"""What a function can do: its standard and extended capability lists, walked and decoded.

PCI Express Base Specification 6.0, sections 7.5.1.1.11 and 7.6. A list that leads outside, in a
circle or into all ones ends with a `BrokenList`, so that nothing found before it is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

from uspace_drv.pci import capability_registers as regs
from uspace_drv.pci.capability_layouts import (
    EXTENDED_LAYOUTS,
    ROOTS,
    STANDARD_LAYOUTS,
    Layout,
    Reading,
    read_part,
    root_errors_layout,
    virtio_layout,
)
from uspace_drv.pci.capability_names import EXTENDED, STANDARD, CapabilityId, ExtendedId
from uspace_drv.pci.capability_summaries import EXTENDED_SUMMARIES, SUMMARIES, virtio_structure
from uspace_drv.pci.capability_values import (
    BrokenList,
    Capability,
    ExtendedCapability,
    PciExpress,
)
from uspace_drv.pci.config import CONFIG_SIZE, HEADER_SIZE, ConfigHeader, read_ids
from uspace_drv.registers import Window

VIRTIO_VENDOR = 0x1AF4
VIRTIO_DEVICES = range(0x1000, 0x1080)
"""Virtio 1.2, section 4.1.2: device ids that are virtio's, old and new."""

_POINTER = 0xFC  # the two low bits of a pointer are reserved and may hold anything


C = TypeVar("C", bound=Capability)


def capabilities(config: Window) -> list[Capability]:
    """Read both lists, in the order of the lists."""
    return [*_walk_standard(config), *_walk_extended(config)]


def find(config: Window, kind: type[C]) -> C | None:
    """Return the first capability of that class, or None."""
    return next((found for found in capabilities(config) if isinstance(found, kind)), None)


def _walk_standard(config: Window) -> Iterator[Capability]:
    header = ConfigHeader(config)
    if not header.status.read().capabilities_list:
        return
    pointer = header.capabilities_pointer.read() & _POINTER
    seen: set[int] = set()
    while pointer:
        if pointer < HEADER_SIZE or pointer in seen or pointer + 2 > config.size:
            yield BrokenList(0, pointer, _wrong_pointer(pointer, seen, config))
            return
        seen.add(pointer)
        entry = regs.CapabilityHeader(config.read16(pointer))
        if entry.capability_id == 0xFF:
            yield BrokenList(0xFF, pointer, "all ones instead of a capability")
            return
        yield _decode(config, entry.capability_id, pointer)
        pointer = entry.next_capability_pointer & _POINTER


def _walk_extended(config: Window) -> Iterator[Capability]:
    pointer = CONFIG_SIZE if config.size > CONFIG_SIZE else 0
    seen: set[int] = set()
    while pointer:
        if pointer < CONFIG_SIZE or pointer in seen or pointer + 4 > config.size:
            yield BrokenList(0, pointer, _wrong_pointer(pointer, seen, config))
            return
        seen.add(pointer)
        entry = regs.ExtendedHeader(config.read32(pointer))
        if entry.raw == 0xFFFF_FFFF:
            # The very first place is all ones where there is no extended space at all.
            if pointer != CONFIG_SIZE:
                yield BrokenList(0xFFFF, pointer, "all ones instead of a capability")
            return
        if entry.extended_capability_id != ExtendedId.NULL:
            yield _decode_extended(config, entry, pointer)
        pointer = entry.next_capability_offset & ~3


def _wrong_pointer(pointer: int, seen: set[int], config: Window) -> str:
    if pointer in seen:
        return f"{pointer:#x} was in the list already"
    return f"{pointer:#x} is outside of the list ({config.size:#x} bytes can be read)"


def _decode(config: Window, number: int, offset: int) -> Capability:
    layout, summary = STANDARD_LAYOUTS.get(number), SUMMARIES.get(number, _plain)
    if number == CapabilityId.VENDOR_SPECIFIC and _is_virtio(config, offset):
        layout, summary = virtio_layout, virtio_structure
    registers = _read(config, offset, layout, min(config.size, CONFIG_SIZE))
    if registers is None:
        return BrokenList(number, offset, f"{STANDARD[number]} does not fit before its end")
    return replace(summary(config, number, offset), registers=registers)


def _decode_extended(config: Window, entry: regs.ExtendedHeader, offset: int) -> Capability:
    number, version = entry.extended_capability_id, entry.capability_version
    layout = EXTENDED_LAYOUTS.get(number)
    if number == ExtendedId.ADVANCED_ERROR_REPORTING and _is_root(config):
        layout = root_errors_layout
    registers = _read(config, offset, layout, config.size)
    if registers is None:
        return BrokenList(number, offset, f"{EXTENDED[number]} does not fit before its end")
    summary = EXTENDED_SUMMARIES.get(number, _plain_extended)
    return replace(summary(config, number, offset, version), registers=registers)


def _read(
    config: Window, offset: int, layout: Layout | None, end: int
) -> tuple[Reading, ...] | None:
    """Read what the layout names, or return None if not even its first part fits."""
    readings: list[Reading] = []
    for part in layout(config, offset) if layout else ():
        found = read_part(config, offset, part, end)
        if not found:
            return tuple(readings) or None
        readings += found
    return tuple(readings)


def _plain(_config: Window, number: int, offset: int) -> Capability:
    return Capability(number, offset)


def _plain_extended(_config: Window, number: int, offset: int, version: int) -> ExtendedCapability:
    return ExtendedCapability(number, offset, version)


def _is_virtio(config: Window, offset: int) -> bool:
    """Whether a vendor-specific capability is virtio's: by the function's ids and by its length."""
    ids, block = read_ids(config), regs.VendorRegisters
    is_device = ids.vendor == VIRTIO_VENDOR and ids.device in VIRTIO_DEVICES
    fits = offset + block.SIZE <= config.size
    return is_device and fits and block(config, offset).length.read() >= regs.VirtioRegisters.SIZE


def _is_root(config: Window) -> bool:
    """Whether it is what errors are reported to, by its PCI Express capability."""
    found = (each for each in _walk_standard(config) if isinstance(each, PciExpress))
    return any(each.port_type in ROOTS for each in found)

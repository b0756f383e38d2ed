"""What a function can do: its standard and extended capability lists, walked and decoded.

PCI Express Base Specification 6.0, sections 7.5.1.1.11 and 7.6. A list that leads outside, in a
circle or into all ones ends with a `BrokenList`, so that nothing found before it is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from uspace_drv.pci import capability_registers as regs
from uspace_drv.pci.capability_names import EXTENDED, STANDARD, CapabilityId, ExtendedId
from uspace_drv.pci.capability_values import (
    BrokenList,
    Capability,
    ExtendedCapability,
    ExtendedVendorSpecific,
    Link,
    Msi,
    Msix,
    PciExpress,
    PowerManagement,
    VendorSpecific,
)
from uspace_drv.pci.config import CONFIG_SIZE, HEADER_SIZE, ConfigHeader
from uspace_drv.registers import RegisterBlock, Window

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
    size, decode = _STANDARD.get(number, (0, _plain))
    if offset + size > min(config.size, CONFIG_SIZE):
        return BrokenList(number, offset, f"{STANDARD[number]} does not fit before its end")
    return decode(config, number, offset)


def _decode_extended(config: Window, entry: regs.ExtendedHeader, offset: int) -> Capability:
    number, version = entry.extended_capability_id, entry.capability_version
    block = _EXTENDED.get(number)
    if block is None:
        return ExtendedCapability(number, offset, version)
    if offset + block.SIZE > config.size:
        return BrokenList(number, offset, f"{EXTENDED[number]} does not fit before its end")
    if number == ExtendedId.VENDOR_SPECIFIC:
        head = regs.ExtendedVendorRegisters(config, offset).header.read()
        return ExtendedVendorSpecific(
            number, offset, version, None, head.vsec_id, head.vsec_rev, head.vsec_length
        )
    named = regs.DesignatedVendorRegisters(config, offset)
    one = named.header_1.read()
    return ExtendedVendorSpecific(
        number,
        offset,
        version,
        one.dvsec_vendor_id,
        named.dvsec_id.read(),
        one.dvsec_revision,
        one.dvsec_length,
    )


def _plain(_config: Window, number: int, offset: int) -> Capability:
    return Capability(number, offset)


def _power_management(config: Window, number: int, offset: int) -> Capability:
    block = regs.PowerManagementRegisters(config, offset)
    can, now = block.capabilities.read(), block.status.read()
    states = ("D0", "D1", "D2", "D3hot", "D3cold")
    pme = tuple(state for place, state in enumerate(states) if can.pme_support >> place & 1)
    return PowerManagement(
        number,
        offset,
        version=can.version,
        state=now.power_state,
        has_d1=can.d1_support,
        has_d2=can.d2_support,
        pme=pme,
        keeps_state=now.no_soft_reset,
    )


def _msi(config: Window, number: int, offset: int) -> Capability:
    control = regs.MsiRegisters(config, offset).control.read()
    return Msi(
        number,
        offset,
        enabled=control.msi_enable,
        vectors=1 << control.multiple_message_capable,
        vectors_enabled=1 << control.multiple_message_enable,
        has_64_bits=control.address_64_capable,
        maskable=control.per_vector_masking_capable,
    )


def _msix(config: Window, number: int, offset: int) -> Capability:
    block = regs.MsixRegisters(config, offset)
    control, table, pending = block.control.read(), block.table.read(), block.pending.read()
    return Msix(
        number,
        offset,
        enabled=control.msix_enable,
        masked=control.function_mask,
        vectors=control.table_size + 1,
        table_bar=table.bir,
        table_offset=table.offset * 8,
        pending_bar=pending.bir,
        pending_offset=pending.offset * 8,
    )


def _pci_express(config: Window, number: int, offset: int) -> Capability:
    block = regs.PciExpressRegisters(config, offset)
    kind, can = block.capabilities.read(), block.device_capabilities.read()
    control = block.device_control.read()
    return PciExpress(
        number,
        offset,
        version=kind.capability_version,
        port_type=kind.device_port_type,
        has_flr=can.function_level_reset_capability,
        max_payload=128 << control.max_payload_size,
        max_payload_supported=128 << can.max_payload_size_supported,
        max_read_request=128 << control.max_read_request_size,
        link=_link(config, offset, kind.device_port_type),
    )


def _link(config: Window, offset: int, kind: int) -> Link | None:
    """Read the link, which what is inside the root complex does not have."""
    inside = (
        regs.PortType.ROOT_COMPLEX_INTEGRATED_ENDPOINT,
        regs.PortType.ROOT_COMPLEX_EVENT_COLLECTOR,
    )
    if kind in inside or offset + regs.LinkRegisters.SIZE > CONFIG_SIZE:
        return None
    block = regs.LinkRegisters(config, offset)
    can, now = block.link_capabilities.read(), block.link_status.read()
    return Link(
        speed=now.current_link_speed,
        width=now.negotiated_link_width,
        max_speed=can.max_link_speed,
        max_width=can.maximum_link_width,
    )


def _vendor_specific(config: Window, number: int, offset: int) -> Capability:
    size = regs.VendorRegisters(config, offset).length.read()
    end = min(offset + size, CONFIG_SIZE, config.size)
    return VendorSpecific(number, offset, bytes(config.read8(at) for at in range(offset, end)))


_STANDARD: dict[int, tuple[int, Callable[[Window, int, int], Capability]]] = {
    CapabilityId.POWER_MANAGEMENT: (regs.PowerManagementRegisters.SIZE, _power_management),
    CapabilityId.MSI: (regs.MsiRegisters.SIZE, _msi),
    CapabilityId.VENDOR_SPECIFIC: (regs.VendorRegisters.SIZE, _vendor_specific),
    CapabilityId.PCI_EXPRESS: (regs.PciExpressRegisters.SIZE, _pci_express),
    CapabilityId.MSIX: (regs.MsixRegisters.SIZE, _msix),
}

_EXTENDED: dict[int, type[RegisterBlock]] = {
    ExtendedId.VENDOR_SPECIFIC: regs.ExtendedVendorRegisters,
    ExtendedId.DESIGNATED_VENDOR_SPECIFIC: regs.DesignatedVendorRegisters,
}

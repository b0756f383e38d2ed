"""Sums up the capabilities that drivers and people ask for most, each as a value of its own.

PCI Express Base Specification 6.0: power management 7.5.2, PCI Express 7.5.3, MSI 7.7.1, MSI-X
7.7.2, serial number 7.9.3, vendors' 7.9.4 to 7.9.6, SR-IOV 9.3.3; virtio 1.2, section 4.1.4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from uspace_drv.pci import capability_registers as regs
from uspace_drv.pci import express_registers as express
from uspace_drv.pci.capability_layouts import (
    VIRTIO_NOTIFY,
    VIRTIO_SHARED_MEMORY,
    has_link_registers,
)
from uspace_drv.pci.capability_names import CapabilityId, ExtendedId
from uspace_drv.pci.capability_values import (
    Capability,
    ExtendedCapability,
    ExtendedVendorSpecific,
    Link,
    Msi,
    Msix,
    PciExpress,
    PowerManagement,
    SerialNumber,
    VendorSpecific,
    VirtioStructure,
    VirtualFunctions,
)
from uspace_drv.pci.config import CONFIG_SIZE
from uspace_drv.pci.link_registers import SerialNumberRegisters
from uspace_drv.pci.sharing_registers import VirtualFunctionRegisters
from uspace_drv.registers import Window

Summary = Callable[[Window, int, int], Capability]
ExtendedSummary = Callable[[Window, int, int, int], ExtendedCapability]


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
    block = express.PciExpressRegisters(config, offset)
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


def _link(config: Window, offset: int, kind: express.PortType | int) -> Link | None:
    end = offset + express.LinkRegisters.SIZE
    if not has_link_registers(kind) or end > min(config.size, CONFIG_SIZE):
        return None
    block = express.LinkRegisters(config, offset)
    can, now = block.link_capabilities.read(), block.link_status.read()
    return Link(
        speed=now.current_link_speed,
        width=now.negotiated_link_width,
        max_speed=can.max_link_speed,
        max_width=can.maximum_link_width,
    )


def _vendor_specific(config: Window, number: int, offset: int) -> Capability:
    return VendorSpecific(number, offset, _vendor_bytes(config, offset))


def _vendor_bytes(config: Window, offset: int) -> bytes:
    """Read the bytes that it says it has, as far as they lie in the space."""
    size = regs.VendorRegisters(config, offset).length.read()
    end = min(offset + size, CONFIG_SIZE, config.size)
    return bytes(config.read8(at) for at in range(offset, end))


def virtio_structure(config: Window, number: int, offset: int) -> Capability:
    """Read where one of virtio's structures is; `virtio_layout` must fit into the space."""
    block = regs.VirtioRegisters(config, offset)
    kind = block.cfg_type.read()
    place, size, multiplier = block.structure_offset.read(), block.structure_length.read(), None
    if kind == VIRTIO_SHARED_MEMORY:
        high = regs.VirtioMemoryRegisters(config, offset)
        place |= high.structure_offset_high.read() << 32
        size |= high.structure_length_high.read() << 32
    elif kind == VIRTIO_NOTIFY:
        multiplier = regs.VirtioNotifyRegisters(config, offset).notify_off_multiplier.read()
    data = _vendor_bytes(config, offset)
    return VirtioStructure(number, offset, data, kind, block.bar.read(), place, size, multiplier)


def _serial_number(config: Window, number: int, offset: int, version: int) -> ExtendedCapability:
    block = SerialNumberRegisters(config, offset)
    serial = block.serial_number_high.read() << 32 | block.serial_number_low.read()
    return SerialNumber(number, offset, version, serial)


def _virtual_functions(
    config: Window, number: int, offset: int, version: int
) -> ExtendedCapability:
    block = VirtualFunctionRegisters(config, offset)
    return VirtualFunctions(
        number,
        offset,
        version,
        now=block.num_vfs.read(),
        total=block.total_vfs.read(),
        enabled=block.sr_iov_control.read().vf_enable,
    )


def _vendor_extended(config: Window, number: int, offset: int, version: int) -> ExtendedCapability:
    head = regs.ExtendedVendorRegisters(config, offset).header.read()
    return ExtendedVendorSpecific(
        number, offset, version, None, head.vsec_id, head.vsec_rev, head.vsec_length
    )


def _designated_vendor(
    config: Window, number: int, offset: int, version: int
) -> ExtendedCapability:
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


SUMMARIES: Mapping[int, Summary] = {
    CapabilityId.POWER_MANAGEMENT: _power_management,
    CapabilityId.MSI: _msi,
    CapabilityId.VENDOR_SPECIFIC: _vendor_specific,
    CapabilityId.PCI_EXPRESS: _pci_express,
    CapabilityId.MSIX: _msix,
}
"""By id; called once the first block of registers of the capability's layout is known to fit."""

EXTENDED_SUMMARIES: Mapping[int, ExtendedSummary] = {
    ExtendedId.DEVICE_SERIAL_NUMBER: _serial_number,
    ExtendedId.VENDOR_SPECIFIC: _vendor_extended,
    ExtendedId.SINGLE_ROOT_IO_VIRTUALIZATION: _virtual_functions,
    ExtendedId.DESIGNATED_VENDOR_SPECIFIC: _designated_vendor,
}
"""By id, as `SUMMARIES`."""

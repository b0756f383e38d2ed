"""Which registers each capability has, and how they are read from configuration space.

PCI Express Base Specification 6.0, sections 7.5 to 7.9. Some capabilities say in their first
registers which others follow; what would lie outside of the space is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from uspace_drv.pci import capability_registers as standard
from uspace_drv.pci import error_registers as errors
from uspace_drv.pci import express_registers as express
from uspace_drv.pci import link_registers as links
from uspace_drv.pci import sharing_registers as sharing
from uspace_drv.pci.capability_names import CapabilityId, ExtendedId
from uspace_drv.registers import Register, RegisterBlock, Window


@dataclass(frozen=True)
class Reading:
    """A register as it was read: `offset` from the start of the space, `width` in bits."""

    name: str
    offset: int
    width: int
    value: Register | int

    def __str__(self) -> str:
        return f"{self.name} {int(self.value):#0{self.width // 4 + 2}x}"


@dataclass(frozen=True)
class Part:
    """A block of a capability that starts `at` bytes from where its offsets count.

    `index` tells equal blocks apart.
    """

    block: type[RegisterBlock]
    at: int = 0
    index: int | None = None


Layout = Callable[[Window, int], Iterator[Part]]


def read_part(config: Window, offset: int, part: Part, end: int) -> list[Reading]:
    """Read a part of the capability at `offset`, or nothing if it does not end before `end`."""
    base = offset + part.at
    if base + part.block.SIZE > end:
        return []
    suffix = "" if part.index is None else f"[{part.index}]"
    return [
        Reading(f"{each.name}{suffix}", base + each.offset, each.width, _read(config, base, each))
        for each in part.block.registers()
    ]


def _read(config: Window, base: int, each: Any) -> Register | int:
    read = {8: config.read8, 16: config.read16, 32: config.read32}[each.width]
    value: Register | int = each.decode(read(base + each.offset))
    return value


def _only(block: type[RegisterBlock]) -> Layout:
    def parts(_config: Window, _offset: int) -> Iterator[Part]:
        yield Part(block)

    return parts


def _msi(config: Window, offset: int) -> Iterator[Part]:
    yield Part(standard.MsiRegisters)
    control = standard.MsiRegisters(config, offset).control.read()
    is_wide = control.address_64_capable
    yield Part(standard.Msi64Message if is_wide else standard.Msi32Message)
    if control.per_vector_masking_capable:
        yield Part(standard.MsiMasks, 0x10 if is_wide else 0x0C)


def _express(config: Window, offset: int) -> Iterator[Part]:
    yield Part(express.PciExpressRegisters)
    kind = express.PciExpressRegisters(config, offset).capabilities.read()
    has_link = has_link_registers(kind.device_port_type)
    if has_link:
        yield Part(express.LinkRegisters)
    if kind.slot_implemented and has_link:
        yield Part(express.SlotRegisters)
    if kind.device_port_type in ROOTS:
        yield Part(express.RootRegisters)
    if kind.capability_version >= 2:  # version 1 may end here
        yield Part(express.Device2Registers)
        if has_link:
            yield Part(express.Link2Registers)


ROOTS = (express.PortType.ROOT_PORT, express.PortType.ROOT_COMPLEX_EVENT_COLLECTOR)


def has_link_registers(kind: express.PortType | int) -> bool:
    """Whether it is at one end of a link, which what is inside the root complex is not."""
    return kind not in {
        express.PortType.ROOT_COMPLEX_INTEGRATED_ENDPOINT,
        express.PortType.ROOT_COMPLEX_EVENT_COLLECTOR,
    }


def _errors(_config: Window, _offset: int) -> Iterator[Part]:
    yield Part(errors.ErrorRegisters)


def root_errors_layout(config: Window, offset: int) -> Iterator[Part]:
    """Return what the advanced error reporting of one of `ROOTS` has."""
    yield from _errors(config, offset)
    yield Part(errors.RootErrorRegisters)


def _channels(config: Window, offset: int) -> Iterator[Part]:
    yield Part(links.ChannelRegisters)
    more = links.ChannelRegisters(config, offset).port_vc_capability_1.read().extended_vc_count
    for index in range(more + 1):
        yield Part(links.ChannelResourceRegisters, 12 * index, index)


def _resizable(config: Window, offset: int) -> Iterator[Part]:
    yield Part(sharing.ResizableRegisters, index=0)
    first = sharing.ResizableRegisters(config, offset).bar_control.read()
    for index in range(1, first.number_of_resizable_bars):
        yield Part(sharing.ResizableRegisters, 8 * index, index)


def virtio_layout(config: Window, offset: int) -> Iterator[Part]:
    """Return what virtio's vendor-specific capability has, by the kind of its structure.

    The part that only some kinds have comes first: either all of it fits, or nothing is read.
    """
    if offset + standard.VirtioRegisters.SIZE <= config.size:
        kind = standard.VirtioRegisters(config, offset).cfg_type.read()
        if kind in _VIRTIO_EXTRAS:
            yield Part(_VIRTIO_EXTRAS[kind])
    yield Part(standard.VirtioRegisters)


VIRTIO_NOTIFY, VIRTIO_SHARED_MEMORY = 2, 8
_VIRTIO_EXTRAS: Mapping[int, type[RegisterBlock]] = {
    VIRTIO_NOTIFY: standard.VirtioNotifyRegisters,
    VIRTIO_SHARED_MEMORY: standard.VirtioMemoryRegisters,
}

STANDARD_LAYOUTS: Mapping[int, Layout] = {
    CapabilityId.POWER_MANAGEMENT: _only(standard.PowerManagementRegisters),
    CapabilityId.VITAL_PRODUCT_DATA: _only(standard.ProductDataRegisters),
    CapabilityId.SLOT_IDENTIFICATION: _only(standard.SlotIdentificationRegisters),
    CapabilityId.MSI: _msi,
    CapabilityId.VENDOR_SPECIFIC: _only(standard.VendorRegisters),
    CapabilityId.DEBUG_PORT: _only(standard.DebugPortRegisters),
    CapabilityId.BRIDGE_SUBSYSTEM: _only(standard.SubsystemRegisters),
    CapabilityId.PCI_EXPRESS: _express,
    CapabilityId.MSIX: _only(standard.MsixRegisters),
    CapabilityId.SATA: _only(standard.SataRegisters),
    CapabilityId.ADVANCED_FEATURES: _only(standard.AdvancedRegisters),
}

EXTENDED_LAYOUTS: Mapping[int, Layout] = {
    ExtendedId.ADVANCED_ERROR_REPORTING: _errors,
    ExtendedId.VIRTUAL_CHANNEL: _channels,
    ExtendedId.DEVICE_SERIAL_NUMBER: _only(links.SerialNumberRegisters),
    ExtendedId.POWER_BUDGETING: _only(links.PowerBudgetingRegisters),
    ExtendedId.VIRTUAL_CHANNEL_BESIDE_MFVC: _channels,
    ExtendedId.VENDOR_SPECIFIC: _only(standard.ExtendedVendorRegisters),
    ExtendedId.ACCESS_CONTROL_SERVICES: _only(sharing.AccessControlRegisters),
    ExtendedId.ALTERNATIVE_ROUTING_ID: _only(sharing.RoutingRegisters),
    ExtendedId.ADDRESS_TRANSLATION_SERVICES: _only(sharing.TranslationRegisters),
    ExtendedId.SINGLE_ROOT_IO_VIRTUALIZATION: _only(sharing.VirtualFunctionRegisters),
    ExtendedId.MULTICAST: _only(sharing.MulticastRegisters),
    ExtendedId.PAGE_REQUEST_INTERFACE: _only(sharing.PageRequestRegisters),
    ExtendedId.RESIZABLE_BAR: _resizable,
    ExtendedId.TPH_REQUESTER: _only(links.HintsRegisters),
    ExtendedId.LATENCY_TOLERANCE_REPORTING: _only(links.LatencyRegisters),
    ExtendedId.SECONDARY_PCI_EXPRESS: _only(links.SecondaryRegisters),
    ExtendedId.PROCESS_ADDRESS_SPACE_ID: _only(sharing.ProcessSpaceRegisters),
    ExtendedId.DOWNSTREAM_PORT_CONTAINMENT: _only(errors.ContainmentRegisters),
    ExtendedId.L1_PM_SUBSTATES: _only(links.SubstatesRegisters),
    ExtendedId.PRECISION_TIME_MEASUREMENT: _only(links.TimeRegisters),
    ExtendedId.DESIGNATED_VENDOR_SPECIFIC: _only(standard.DesignatedVendorRegisters),
    ExtendedId.VF_RESIZABLE_BAR: _resizable,
    ExtendedId.DATA_LINK_FEATURE: _only(links.FeatureRegisters),
    ExtendedId.PHYSICAL_LAYER_16: _only(links.Physical16Registers),
    ExtendedId.DATA_OBJECT_EXCHANGE: _only(links.ExchangeRegisters),
}

"""The registers of the capabilities that this package reads, from the capability's first byte.

PCI Express Base Specification 6.0: power management 7.5.2, PCI Express 7.5.3, MSI 7.7.1,
MSI-X 7.7.2, extended header 7.6.3, vendor-specific 7.9.5, designated vendor-specific 7.9.6.
"""

from __future__ import annotations

from enum import IntEnum

from uspace_drv.registers import Register, RegisterBlock, bit, field, ro, rw


class PortType(IntEnum):
    """Device/Port Type of the PCI Express capability."""

    ENDPOINT = 0x0
    LEGACY_ENDPOINT = 0x1
    ROOT_PORT = 0x4
    UPSTREAM_PORT = 0x5
    DOWNSTREAM_PORT = 0x6
    PCIE_TO_PCI_BRIDGE = 0x7
    PCI_TO_PCIE_BRIDGE = 0x8
    ROOT_COMPLEX_INTEGRATED_ENDPOINT = 0x9
    ROOT_COMPLEX_EVENT_COLLECTOR = 0xA


class CapabilityHeader(Register, width=16):
    """What each standard capability starts with."""

    next_capability_pointer = field(15, 8)
    capability_id = field(7, 0)


class ExtendedHeader(Register):
    """What each extended capability starts with."""

    next_capability_offset = field(31, 20)
    capability_version = field(19, 16)
    extended_capability_id = field(15, 0)


class PowerManagementCapabilities(Register, width=16):
    """PMC."""

    pme_support = field(15, 11, "one bit each for D0, D1, D2, D3hot, D3cold")
    d2_support = bit(10)
    d1_support = bit(9)
    aux_current = field(8, 6)
    device_specific_initialization = bit(5)
    immediate_readiness_on_return_to_d0 = bit(4)
    pme_clock = bit(3)
    version = field(2, 0)


class PowerManagementStatus(Register, width=16):
    """PMCSR."""

    pme_status = bit(15)
    pme_en = bit(8)
    no_soft_reset = bit(3, "keeps its state from D3hot to D0")
    power_state = field(1, 0, "D0 to D3hot")


class PowerManagementRegisters(RegisterBlock, size=8):
    """Power management."""

    capabilities = ro(0x02, PowerManagementCapabilities)
    status = rw(0x04, PowerManagementStatus)


class MsiControl(Register, width=16):
    """Message Control for MSI."""

    per_vector_masking_capable = bit(8)
    address_64_capable = bit(7)
    multiple_message_enable = field(6, 4, "vectors on, as a power of two")
    multiple_message_capable = field(3, 1, "vectors wanted, as a power of two")
    msi_enable = bit(0)


class MsiRegisters(RegisterBlock, size=0xA):
    """MSI, as far as all four layouts are alike."""

    control = rw(0x02, MsiControl)


class Msi64Registers(MsiRegisters, size=0x18):
    """MSI with a 64-bit address; the last two are there if vectors can be masked one by one."""

    message_address = rw(0x04)
    message_upper_address = rw(0x08)
    message_data = rw(0x0C, width=16)
    mask_bits = rw(0x10)
    pending_bits = ro(0x14)


class MsixControl(Register, width=16):
    """Message Control for MSI-X."""

    msix_enable = bit(15)
    function_mask = bit(14)
    table_size = field(10, 0, "vectors - 1")


class BarOffset(Register):
    """Where a structure is; `offset` counts in 8 bytes."""

    offset = field(31, 3)
    bir = field(2, 0, "BAR")


class MsixRegisters(RegisterBlock, size=0xC):
    """MSI-X."""

    control = rw(0x02, MsixControl)
    table = ro(0x04, BarOffset)
    pending = ro(0x08, BarOffset)


class VectorControl(Register):
    """Vector Control of one MSI-X vector."""

    mask = bit(0)


class MsixVector(RegisterBlock, size=0x10):
    """One entry of the MSI-X table."""

    message_address = rw(0x00)
    message_upper_address = rw(0x04)
    message_data = rw(0x08)
    vector_control = rw(0x0C, VectorControl)


class PciExpressCapabilities(Register, width=16):
    """PCI Express Capabilities Register."""

    interrupt_message_number = field(13, 9)
    slot_implemented = bit(8)
    device_port_type = field(7, 4, PortType)
    capability_version = field(3, 0)


class DeviceCapabilities(Register):
    """Device Capabilities Register."""

    function_level_reset_capability = bit(28)
    role_based_error_reporting = bit(15)
    endpoint_l1_acceptable_latency = field(11, 9)
    endpoint_l0s_acceptable_latency = field(8, 6)
    extended_tag_field_supported = bit(5)
    phantom_functions_supported = field(4, 3)
    max_payload_size_supported = field(2, 0, "128 bytes shifted left by this")


class DeviceControl(Register, width=16):
    """Device Control Register."""

    initiate_function_level_reset = bit(15)
    max_read_request_size = field(14, 12, "128 bytes shifted left by this")
    enable_no_snoop = bit(11)
    aux_power_pm_enable = bit(10)
    phantom_functions_enable = bit(9)
    extended_tag_field_enable = bit(8)
    max_payload_size = field(7, 5, "128 bytes shifted left by this")
    enable_relaxed_ordering = bit(4)
    unsupported_request_reporting_enable = bit(3)
    fatal_error_reporting_enable = bit(2)
    non_fatal_error_reporting_enable = bit(1)
    correctable_error_reporting_enable = bit(0)


class LinkCapabilities(Register):
    """Link Capabilities Register, without what power management and errors need."""

    maximum_link_width = field(9, 4)
    max_link_speed = field(3, 0)


class LinkStatus(Register, width=16):
    """Link Status Register, without what training needs."""

    negotiated_link_width = field(9, 4)
    current_link_speed = field(3, 0)


class PciExpressRegisters(RegisterBlock, size=0xC):
    """PCI Express, as far as every function has it."""

    capabilities = ro(0x02, PciExpressCapabilities)
    device_capabilities = ro(0x04, DeviceCapabilities)
    device_control = rw(0x08, DeviceControl)


class LinkRegisters(RegisterBlock, size=0x14):
    """PCI Express of a function that is at one end of a link."""

    link_capabilities = ro(0x0C, LinkCapabilities)
    link_status = ro(0x12, LinkStatus)


class VendorRegisters(RegisterBlock, size=3):
    """Vendor-specific, standard list: the length counts from the capability's first byte."""

    length = ro(0x02, width=8)


class VendorHeader(Register):
    """Vendor-Specific Header of the extended list."""

    vsec_length = field(31, 20)
    vsec_rev = field(19, 16)
    vsec_id = field(15, 0)


class ExtendedVendorRegisters(RegisterBlock, size=8):
    """Vendor-specific, extended list."""

    header = ro(0x04, VendorHeader)


class DesignatedHeader(Register):
    """Designated Vendor-Specific Header 1."""

    dvsec_length = field(31, 20)
    dvsec_revision = field(19, 16)
    dvsec_vendor_id = field(15, 0)


class DesignatedVendorRegisters(RegisterBlock, size=0xC):
    """Designated vendor-specific."""

    header_1 = ro(0x04, DesignatedHeader)
    dvsec_id = ro(0x08, width=16)

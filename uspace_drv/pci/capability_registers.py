"""The registers of the capabilities of the standard list, and of vendors', from their first byte.

PCI Express Base Specification 6.0: power management 7.5.2, MSI 7.7.1, MSI-X 7.7.2, extended header
7.6.3, vital product data 7.9.18, vendor-specific 7.9.4 and 7.9.5, designated vendor-specific 7.9.6,
subsystem 7.9.23. Slot identification: PCI-to-PCI Bridge Architecture 1.2, section 13. Virtio:
virtio 1.2, section 4.1.4. Advanced features: PCI Conventional Advanced Capabilities ECN (2006).
PCI Express itself is in `express_registers`.
"""

from __future__ import annotations

from uspace_drv.registers import Register, RegisterBlock, bit, field, ro, rw


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
    data_scale = field(14, 13)
    data_select = field(12, 9)
    pme_en = bit(8)
    no_soft_reset = bit(3, "keeps its state from D3hot to D0")
    power_state = field(1, 0, "D0 to D3hot")


class PowerManagementBridge(Register, width=8):
    """PMCSR_BSE: what becomes of the bus behind a conventional bridge."""

    bus_power_clock_control_enable = bit(7)
    b2_b3_support = bit(6)


class PowerManagementRegisters(RegisterBlock, size=8):
    """Power management."""

    capabilities = ro(0x02, PowerManagementCapabilities)
    status = rw(0x04, PowerManagementStatus)
    bridge_extensions = ro(0x06, PowerManagementBridge)
    data = ro(0x07, width=8)


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


class Msi32Message(RegisterBlock, size=0xA):
    """What MSI with a 32-bit address sends, and where."""

    message_address = rw(0x04)
    message_data = rw(0x08, width=16)


class Msi64Message(RegisterBlock, size=0xE):
    """What MSI with a 64-bit address sends, and where."""

    message_address = rw(0x04)
    message_upper_address = rw(0x08)
    message_data = rw(0x0C, width=16)


class MsiMasks(RegisterBlock, size=8):
    """Masks of MSI, from their own first byte; they follow the data."""

    mask_bits = rw(0x00)
    pending_bits = ro(0x04)


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


class ProductDataAddress(Register, width=16):
    """VPD Address Register."""

    flag = bit(15, "what was asked for has happened")
    vpd_address = field(14, 0)


class ProductDataRegisters(RegisterBlock, size=8):
    """Vital product data: a window of four bytes, which moves with the address."""

    address = rw(0x02, ProductDataAddress)
    vpd_data = rw(0x04)


class SlotIdentification(Register, width=16):
    """Expansion Slot and Chassis Number Registers."""

    chassis_number = field(15, 8)
    first_in_chassis = bit(5)
    expansion_slots_provided = field(4, 0)


class SlotIdentificationRegisters(RegisterBlock, size=4):
    """Slot identification."""

    expansion_slot = ro(0x02, SlotIdentification)


class DebugPort(Register, width=16):
    """Where the debug port of an EHCI host controller is (EHCI 1.0, appendix C)."""

    bar = field(15, 13)
    bar_offset = field(12, 0)


class DebugPortRegisters(RegisterBlock, size=4):
    """Debug port."""

    debug_port = ro(0x02, DebugPort)


class SataRevision(Register, width=16):
    """SATACR0: of the serial ATA capability (AHCI 1.3.1, section 2.4)."""

    major_revision = field(7, 4)
    minor_revision = field(3, 0)


class SataPlace(Register):
    """SATACR1: where the index and data registers are; `bar_offset` counts in 4 bytes."""

    bar_offset = field(23, 4)
    bar_location = field(3, 0, "4 is BAR 0, 9 is BAR 5, 15 is here")


class SataRegisters(RegisterBlock, size=8):
    """Serial ATA data and index configuration."""

    sata_revision = ro(0x02, SataRevision)
    sata_place = ro(0x04, SataPlace)


class SubsystemRegisters(RegisterBlock, size=8):
    """Subsystem of a bridge, whose header has no room for it."""

    subsystem_vendor_id = ro(0x04, width=16)
    subsystem_id = ro(0x06, width=16)


class AdvancedCapabilities(Register, width=8):
    """AF Capabilities."""

    flr_capable = bit(1)
    transactions_pending_capable = bit(0)


class AdvancedControl(Register, width=8):
    """AF Control."""

    initiate_flr = bit(0)


class AdvancedStatus(Register, width=8):
    """AF Status."""

    transactions_pending = bit(0)


class AdvancedRegisters(RegisterBlock, size=6):
    """Advanced features: function level reset for conventional PCI."""

    length = ro(0x02, width=8)
    af_capabilities = ro(0x03, AdvancedCapabilities)
    af_control = rw(0x04, AdvancedControl)
    af_status = ro(0x05, AdvancedStatus)


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


class VirtioRegisters(RegisterBlock, size=0x10):
    """Virtio's vendor-specific capability: where one of its structures is."""

    cap_len = ro(0x02, width=8)
    cfg_type = ro(0x03, width=8)
    bar = ro(0x04, width=8)
    id = ro(0x05, "which shared memory", width=8)
    structure_offset = ro(0x08)
    structure_length = ro(0x0C)


class VirtioNotifyRegisters(RegisterBlock, size=0x14):
    """What virtio's notifications need beside their place."""

    notify_off_multiplier = ro(0x10)


class VirtioMemoryRegisters(RegisterBlock, size=0x18):
    """The upper halves of the place of virtio's shared memory."""

    structure_offset_high = ro(0x10)
    structure_length_high = ro(0x14)

"""Names of every standard and extended capability id.

PCI Code and ID Assignment Specification 1.16, sections 2 and 3.
"""

from __future__ import annotations

from enum import IntEnum


class CapabilityId(IntEnum):
    """Standard capabilities whose content this package reads."""

    POWER_MANAGEMENT = 0x01
    VITAL_PRODUCT_DATA = 0x03
    SLOT_IDENTIFICATION = 0x04
    MSI = 0x05
    VENDOR_SPECIFIC = 0x09
    DEBUG_PORT = 0x0A
    BRIDGE_SUBSYSTEM = 0x0D
    PCI_EXPRESS = 0x10
    MSIX = 0x11
    SATA = 0x12
    ADVANCED_FEATURES = 0x13


class ExtendedId(IntEnum):
    """Extended capabilities whose content this package reads."""

    NULL = 0x0000
    ADVANCED_ERROR_REPORTING = 0x0001
    VIRTUAL_CHANNEL = 0x0002
    DEVICE_SERIAL_NUMBER = 0x0003
    POWER_BUDGETING = 0x0004
    VIRTUAL_CHANNEL_BESIDE_MFVC = 0x0009
    VENDOR_SPECIFIC = 0x000B
    ACCESS_CONTROL_SERVICES = 0x000D
    ALTERNATIVE_ROUTING_ID = 0x000E
    ADDRESS_TRANSLATION_SERVICES = 0x000F
    SINGLE_ROOT_IO_VIRTUALIZATION = 0x0010
    MULTICAST = 0x0012
    PAGE_REQUEST_INTERFACE = 0x0013
    RESIZABLE_BAR = 0x0015
    TPH_REQUESTER = 0x0017
    LATENCY_TOLERANCE_REPORTING = 0x0018
    SECONDARY_PCI_EXPRESS = 0x0019
    PROCESS_ADDRESS_SPACE_ID = 0x001B
    DOWNSTREAM_PORT_CONTAINMENT = 0x001D
    L1_PM_SUBSTATES = 0x001E
    PRECISION_TIME_MEASUREMENT = 0x001F
    DESIGNATED_VENDOR_SPECIFIC = 0x0023
    VF_RESIZABLE_BAR = 0x0024
    DATA_LINK_FEATURE = 0x0025
    PHYSICAL_LAYER_16 = 0x0026
    DATA_OBJECT_EXCHANGE = 0x002E


STANDARD = {
    0x00: "Null",
    0x01: "Power Management",
    0x02: "AGP",
    0x03: "Vital Product Data",
    0x04: "Slot Identification",
    0x05: "MSI",
    0x06: "CompactPCI Hot Swap",
    0x07: "PCI-X",
    0x08: "HyperTransport",
    0x09: "Vendor-Specific",
    0x0A: "Debug Port",
    0x0B: "CompactPCI Central Resource Control",
    0x0C: "PCI Hot-Plug",
    0x0D: "Bridge Subsystem Vendor ID",
    0x0E: "AGP 8x",
    0x0F: "Secure Device",
    0x10: "PCI Express",
    0x11: "MSI-X",
    0x12: "Serial ATA Data/Index Configuration",
    0x13: "Advanced Features",
    0x14: "Enhanced Allocation",
    0x15: "Flattening Portal Bridge",
}

EXTENDED = {
    0x0000: "Null",
    0x0001: "Advanced Error Reporting",
    0x0002: "Virtual Channel",
    0x0003: "Device Serial Number",
    0x0004: "Power Budgeting",
    0x0005: "Root Complex Link Declaration",
    0x0006: "Root Complex Internal Link Control",
    0x0007: "Root Complex Event Collector Endpoint Association",
    0x0008: "Multi-Function Virtual Channel",
    0x0009: "Virtual Channel (beside Multi-Function Virtual Channel)",
    0x000A: "Root Complex Register Block Header",
    0x000B: "Vendor-Specific",
    0x000C: "Configuration Access Correlation",
    0x000D: "Access Control Services",
    0x000E: "Alternative Routing-ID Interpretation",
    0x000F: "Address Translation Services",
    0x0010: "Single Root I/O Virtualization",
    0x0011: "Multi-Root I/O Virtualization",
    0x0012: "Multicast",
    0x0013: "Page Request Interface",
    0x0014: "Reserved for AMD",
    0x0015: "Resizable BAR",
    0x0016: "Dynamic Power Allocation",
    0x0017: "TPH Requester",
    0x0018: "Latency Tolerance Reporting",
    0x0019: "Secondary PCI Express",
    0x001A: "Protocol Multiplexing",
    0x001B: "Process Address Space ID",
    0x001C: "LN Requester",
    0x001D: "Downstream Port Containment",
    0x001E: "L1 PM Substates",
    0x001F: "Precision Time Measurement",
    0x0020: "PCI Express over M-PHY",
    0x0021: "FRS Queueing",
    0x0022: "Readiness Time Reporting",
    0x0023: "Designated Vendor-Specific",
    0x0024: "VF Resizable BAR",
    0x0025: "Data Link Feature",
    0x0026: "Physical Layer 16.0 GT/s",
    0x0027: "Lane Margining at the Receiver",
    0x0028: "Hierarchy ID",
    0x0029: "Native PCIe Enclosure Management",
    0x002A: "Physical Layer 32.0 GT/s",
    0x002B: "Alternate Protocol",
    0x002C: "System Firmware Intermediary",
    0x002D: "Shadow Functions",
    0x002E: "Data Object Exchange",
    0x002F: "Device 3",
    0x0030: "Integrity and Data Encryption",
    0x0031: "Physical Layer 64.0 GT/s",
    0x0032: "Flit Logging",
    0x0033: "Flit Performance Measurement",
    0x0034: "Flit Error Injection",
    0x0035: "Streamlined Virtual Channel",
    0x0036: "MMIO Register Block Locator",
    0x0037: "NOP Flit",
    0x0038: "Scalable I/O Virtualization",
    0x0039: "Physical Layer 128.0 GT/s",
    0x003A: "Captured Data",
}

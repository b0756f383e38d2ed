"""Registers and memory of a virtio device on PCI (OASIS Virtual I/O Device 1.2, 4.1 and 2.7)."""

from __future__ import annotations

from enum import IntEnum, IntFlag

from uspace_drv import Layout, Register, RegisterBlock, bit, ro, rw, wo
from uspace_drv.layout import u16, u32, u64

CAPABILITIES_POINTER, FIRST_CAPABILITY = 0x34, 0x40
"""Where in configuration space the list begins (PCI Express 6.0, section 7.5.1.1.11)."""

VENDOR_CAPABILITY = 0x09
"""The id of a vendor-specific capability (PCI Express 6.0, section 7.9.4)."""

NO_VECTOR = 0xFFFF
"""No interrupt (section 4.1.5.1.2)."""


class StructureType(IntEnum):
    """What a capability leads to (section 4.1.4)."""

    COMMON = 1
    NOTIFY = 2
    ISR = 3


class StructureCapability(RegisterBlock, size=0x10):
    """`struct virtio_pci_cap`, in configuration space (section 4.1.4)."""

    cap_vndr = ro(0x00, "VENDOR_CAPABILITY", width=8)
    cap_next = ro(0x01, "where the next capability is", width=8)
    cap_len = ro(0x02, "bytes of this one", width=8)
    cfg_type = ro(0x03, "a StructureType, or one that is not for us", width=8)
    bar = ro(0x04, "0 to 5; others are to be ignored", width=8)
    id = ro(0x05, "which of several of one type", width=8)
    # The specification says `offset` and `length`: of the structure, in the BAR.
    structure_offset = ro(0x08)
    structure_length = ro(0x0C)


class NotifyCapability(StructureCapability, size=0x14):
    """`struct virtio_pci_notify_cap` (section 4.1.4.4)."""

    notify_off_multiplier = ro(0x10, "bytes from one queue's doorbell to the next one's")


class DeviceStatus(Register, width=8):
    """How far driver and device have come (section 2.1); 0 is a reset."""

    failed = bit(7, "the driver has given up")
    device_needs_reset = bit(6, "the device has given up")
    features_ok = bit(3, "the features that the driver wants are fine")
    driver_ok = bit(2, "the driver is ready")
    driver = bit(1, "the guest knows how to drive it")
    acknowledge = bit(0, "the guest has seen it")


class Feature(IntFlag):
    """Those that every kind of device may have (section 6); low and high half are read apart."""

    VERSION_1 = 1 << 32
    ACCESS_PLATFORM = 1 << 33
    """Addresses are those that the platform gives: an IOMMU translates them."""
    ORDER_PLATFORM = 1 << 36
    """Memory is ordered as for any other device, and not as between processors only."""


class CommonConfiguration(RegisterBlock, size=0x38):
    """`struct virtio_pci_common_cfg` (section 4.1.4.3), without what later features added.

    Each is accessed in its own width, 64 bits as two of 32 (section 4.1.3.1).
    """

    device_feature_select = rw(0x00, "which 32 bits `device_feature` shows")
    device_feature = ro(0x04)
    driver_feature_select = rw(0x08, "which 32 bits `driver_feature` is")
    driver_feature = rw(0x0C)
    config_msix_vector = rw(0x10, "that changes of the configuration have", width=16)
    num_queues = ro(0x12, width=16)
    device_status = rw(0x14, DeviceStatus)
    config_generation = ro(0x15, width=8)
    queue_select = rw(0x16, "which queue the rest is about", width=16)
    queue_size = rw(0x18, "entries, at most what a reset puts here; 0: no such queue", width=16)
    queue_msix_vector = rw(0x1A, width=16)
    queue_enable = rw(0x1C, width=16)
    queue_notify_off = ro(0x1E, "where its doorbell is, times the multiplier", width=16)
    queue_desc = rw(0x20, "IOVA of the descriptors", width=64, split="low first")
    queue_driver = rw(0x28, "IOVA of the available ring", width=64, split="low first")
    queue_device = rw(0x30, "IOVA of the used ring", width=64, split="low first")


class Isr(Register, width=8):
    """Why INTx is asserted (section 4.1.4.5)."""

    configuration_change = bit(1)
    queue_interrupt = bit(0)


class IsrRegisters(RegisterBlock, size=1):
    """The interrupt status."""

    status = ro(0x00, Isr, "a read clears it and lowers INTx", side_effects=True)


class NotifyRegisters(RegisterBlock, size=2):
    """The doorbell of one queue (section 4.1.5.2)."""

    queue = wo(0x00, "the queue's number", width=16)


class DescriptorFlags(IntFlag):
    """Of a descriptor (section 2.7.5)."""

    NEXT = 1
    WRITE = 2
    """The device writes it, else it reads it."""


class Descriptor(Layout, size=16):
    """A buffer (section 2.7.5)."""

    address = u64(0, "IOVA")
    length = u32(8, "bytes")
    flags = u16(12, "DescriptorFlags")
    next = u16(14, "the descriptor that goes on, where the flag says so")


class RingHeader(Layout, size=4):
    """The start of either ring (sections 2.7.6 and 2.7.8); `index` counts entries for ever."""

    flags = u16(0, "NO_NOTICE: the other side does not want to be told")
    index = u16(2, "entries that were ever put in, modulo 2**16")


NO_NOTICE = 1
"""VIRTQ_AVAIL_F_NO_INTERRUPT and VIRTQ_USED_F_NO_NOTIFY."""


class AvailableEntry(Layout, size=2):
    """What the driver offers (section 2.7.6)."""

    id = u16(0, "the first descriptor")


class UsedEntry(Layout, size=8):
    """What the device gives back (section 2.7.8)."""

    id = u32(0, "the first descriptor, as it was offered")
    length = u32(4, "bytes that the device wrote")

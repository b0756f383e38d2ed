"""VFIO's requests and structures, as Linux include/uapi/linux/vfio.h has them.

The numbers that vfio-user has too are in `uspace_drv.vfio_numbers`.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum, IntFlag

API_VERSION = 0

_BASE = 0x3B64  # _IO(';', 100)


class Request(IntEnum):
    """ioctl requests. The structures carry their own size, so the numbers do not."""

    GET_API_VERSION = _BASE + 0
    CHECK_EXTENSION = _BASE + 1
    SET_IOMMU = _BASE + 2
    GROUP_GET_STATUS = _BASE + 3
    GROUP_SET_CONTAINER = _BASE + 4
    GROUP_GET_DEVICE_FD = _BASE + 6
    DEVICE_GET_INFO = _BASE + 7
    DEVICE_GET_REGION_INFO = _BASE + 8
    DEVICE_GET_IRQ_INFO = _BASE + 9
    DEVICE_SET_IRQS = _BASE + 10
    DEVICE_RESET = _BASE + 11
    IOMMU_GET_INFO = _BASE + 12
    IOMMU_MAP_DMA = _BASE + 13
    IOMMU_UNMAP_DMA = _BASE + 14


class Extension(IntEnum):
    """Kinds of IOMMU, for CHECK_EXTENSION and SET_IOMMU."""

    TYPE1V2 = 3


class GroupFlag(IntFlag):
    """vfio_group_status.flags."""

    VIABLE = 1
    CONTAINER_SET = 2


class IommuCapability(IntEnum):
    """Capabilities behind vfio_iommu_type1_info."""

    IOVA_RANGE = 1
    DMA_AVAIL = 3


class IommuFlag(IntFlag):
    """vfio_iommu_type1_info.flags."""

    PAGE_SIZES = 1
    CAPS = 2


class GroupStatus(ctypes.Structure):
    """vfio_group_status."""

    _fields_ = (("argsz", ctypes.c_uint32), ("flags", ctypes.c_uint32))


class DeviceInfo(ctypes.Structure):
    """vfio_device_info."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("num_regions", ctypes.c_uint32),
        ("num_irqs", ctypes.c_uint32),
        ("cap_offset", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
    )


class RegionInfo(ctypes.Structure):
    """vfio_region_info."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("index", ctypes.c_uint32),
        ("cap_offset", ctypes.c_uint32),
        ("size", ctypes.c_uint64),
        ("offset", ctypes.c_uint64),
    )


class IrqInfo(ctypes.Structure):
    """vfio_irq_info."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("index", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
    )


class IrqSetHeader(ctypes.Structure):
    """vfio_irq_set without its data, which follows: one int32 for each eventfd."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("index", ctypes.c_uint32),
        ("start", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
    )


class IommuInfo(ctypes.Structure):
    """vfio_iommu_type1_info; capabilities follow at cap_offset."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("iova_pgsizes", ctypes.c_uint64),
        ("cap_offset", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
    )


class CapabilityHeader(ctypes.Structure):
    """vfio_info_cap_header; `next` counts from the start of the information, 0 ends the list."""

    _fields_ = (
        ("id", ctypes.c_uint16),
        ("version", ctypes.c_uint16),
        ("next", ctypes.c_uint32),
    )


class IovaRangeCapability(ctypes.Structure):
    """vfio_iommu_type1_info_cap_iova_range without its ranges, which follow."""

    _fields_ = (
        ("header", CapabilityHeader),
        ("count", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    )


class IovaRangeEntry(ctypes.Structure):
    """vfio_iova_range: both ends included."""

    _fields_ = (("start", ctypes.c_uint64), ("end", ctypes.c_uint64))


class DmaAvailCapability(ctypes.Structure):
    """vfio_iommu_type1_info_dma_avail: how many more mappings the container takes."""

    _fields_ = (("header", CapabilityHeader), ("avail", ctypes.c_uint32))


class DmaMap(ctypes.Structure):
    """vfio_iommu_type1_dma_map."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("vaddr", ctypes.c_uint64),
        ("iova", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
    )


class DmaUnmap(ctypes.Structure):
    """vfio_iommu_type1_dma_unmap; the kernel answers with the size that it unmapped."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("iova", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
    )

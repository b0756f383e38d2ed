"""The structures of a VFIO container's type1 IOMMU.

Linux include/uapi/linux/vfio.h, "API for Type1 VFIO IOMMU".
"""

from __future__ import annotations

import ctypes
from enum import IntEnum, IntFlag

from uspace_drv.backends.vfio.uapi.device import CapabilityHeader


class IommuCapability(IntEnum):
    """Capabilities behind vfio_iommu_type1_info."""

    IOVA_RANGE = 1
    DMA_AVAIL = 3


class IommuFlag(IntFlag):
    """vfio_iommu_type1_info.flags."""

    PAGE_SIZES = 1
    CAPS = 2


class IommuInfo(ctypes.Structure):
    """vfio_iommu_type1_info; capabilities follow at cap_offset."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("iova_pgsizes", ctypes.c_uint64),
        ("cap_offset", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
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

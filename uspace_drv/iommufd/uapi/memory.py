"""Structures for address spaces and their mappings: Linux include/uapi/linux/iommufd.h, IOAS."""

from __future__ import annotations

from ctypes import Structure, c_int32, c_uint16, c_uint32, c_uint64
from enum import IntEnum, IntFlag

EVERYTHING = 2**64 - 1
"""As the length of IOAS_UNMAP at IOVA 0: all mappings."""


class MapFlag(IntFlag):
    """enum iommufd_ioas_map_flags: the access is the device's."""

    FIXED_IOVA = 1
    WRITEABLE = 2
    READABLE = 4


class Option(IntEnum):
    """enum iommufd_option."""

    RLIMIT_MODE = 0
    HUGE_PAGES = 1


class OptionOperation(IntEnum):
    """enum iommufd_option_ops."""

    SET = 0
    GET = 1


class VfioIoasOperation(IntEnum):
    """enum iommufd_vfio_ioas_op."""

    GET = 0
    SET = 1
    CLEAR = 2


class Destroy(Structure):
    """iommu_destroy."""

    _fields_ = (("size", c_uint32), ("id", c_uint32))


class IoasAlloc(Structure):
    """iommu_ioas_alloc."""

    _fields_ = (("size", c_uint32), ("flags", c_uint32), ("out_ioas_id", c_uint32))


class IovaRangeEntry(Structure):
    """iommu_iova_range: both ends included."""

    _fields_ = (("start", c_uint64), ("last", c_uint64))


class IoasIovaRanges(Structure):
    """iommu_ioas_iova_ranges."""

    _fields_ = (
        ("size", c_uint32),
        ("ioas_id", c_uint32),
        ("num_iovas", c_uint32),
        ("reserved", c_uint32),
        ("allowed_iovas", c_uint64),
        ("out_iova_alignment", c_uint64),
    )


class IoasAllowIovas(Structure):
    """iommu_ioas_allow_iovas."""

    _fields_ = (
        ("size", c_uint32),
        ("ioas_id", c_uint32),
        ("num_iovas", c_uint32),
        ("reserved", c_uint32),
        ("allowed_iovas", c_uint64),
    )


class IoasMap(Structure):
    """iommu_ioas_map."""

    _fields_ = (
        ("size", c_uint32),
        ("flags", c_uint32),
        ("ioas_id", c_uint32),
        ("reserved", c_uint32),
        ("user_va", c_uint64),
        ("length", c_uint64),
        ("iova", c_uint64),
    )


class IoasMapFile(Structure):
    """iommu_ioas_map_file."""

    _fields_ = (
        ("size", c_uint32),
        ("flags", c_uint32),
        ("ioas_id", c_uint32),
        ("fd", c_int32),
        ("start", c_uint64),
        ("length", c_uint64),
        ("iova", c_uint64),
    )


class IoasCopy(Structure):
    """iommu_ioas_copy."""

    _fields_ = (
        ("size", c_uint32),
        ("flags", c_uint32),
        ("dst_ioas_id", c_uint32),
        ("src_ioas_id", c_uint32),
        ("length", c_uint64),
        ("dst_iova", c_uint64),
        ("src_iova", c_uint64),
    )


class IoasUnmap(Structure):
    """iommu_ioas_unmap; the kernel answers with the length that it unmapped."""

    _fields_ = (
        ("size", c_uint32),
        ("ioas_id", c_uint32),
        ("iova", c_uint64),
        ("length", c_uint64),
    )


class IoasChangeProcess(Structure):
    """iommu_ioas_change_process."""

    _fields_ = (("size", c_uint32), ("reserved", c_uint32))


class IoasNoiommuGetPa(Structure):
    """iommu_ioas_noiommu_get_pa."""

    _fields_ = (
        ("size", c_uint32),
        ("flags", c_uint32),
        ("ioas_id", c_uint32),
        ("reserved", c_uint32),
        ("iova", c_uint64),
        ("length", c_uint64),
        ("out_phys", c_uint64),
    )


class OptionValue(Structure):
    """iommu_option."""

    _fields_ = (
        ("size", c_uint32),
        ("option_id", c_uint32),
        ("op", c_uint16),
        ("reserved", c_uint16),
        ("object_id", c_uint32),
        ("val64", c_uint64),
    )


class VfioIoas(Structure):
    """iommu_vfio_ioas."""

    _fields_ = (
        ("size", c_uint32),
        ("ioas_id", c_uint32),
        ("op", c_uint16),
        ("reserved", c_uint16),
    )

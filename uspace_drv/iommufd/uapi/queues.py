"""Structures for faults and virtual IOMMUs: Linux include/uapi/linux/iommufd.h."""

from __future__ import annotations

from ctypes import Structure, c_uint32, c_uint64
from enum import IntEnum, IntFlag

LOST_EVENTS = 1
"""iommufd_vevent_header.flags: the queue was full, and no event follows this header."""


class FaultFlag(IntFlag):
    """enum iommu_hwpt_pgfault_flags."""

    PASID_VALID = 1
    LAST_PAGE = 2


class FaultAccess(IntFlag):
    """enum iommu_hwpt_pgfault_perm: what the device wants to do."""

    READ = 1
    WRITE = 2
    EXECUTE = 4
    PRIVILEGED = 8


class Response(IntEnum):
    """enum iommufd_page_response_code: try again, or give up."""

    SUCCESS = 0
    INVALID = 1


class ViommuType(IntEnum):
    """enum iommu_viommu_type, and enum iommu_veventq_type, which has the same numbers."""

    ARM_SMMUV3 = 1
    TEGRA241_CMDQV = 2


class HwQueueType(IntEnum):
    """enum iommu_hw_queue_type."""

    TEGRA241_CMDQV = 1


class FaultAlloc(Structure):
    """iommu_fault_alloc."""

    _fields_ = (
        ("size", c_uint32),
        ("flags", c_uint32),
        ("out_fault_id", c_uint32),
        ("out_fault_fd", c_uint32),
    )


class ViommuAlloc(Structure):
    """iommu_viommu_alloc."""

    _fields_ = (
        ("size", c_uint32),
        ("flags", c_uint32),
        ("type", c_uint32),
        ("dev_id", c_uint32),
        ("hwpt_id", c_uint32),
        ("out_viommu_id", c_uint32),
        ("data_len", c_uint32),
        ("reserved", c_uint32),
        ("data_uptr", c_uint64),
    )


class VdeviceAlloc(Structure):
    """iommu_vdevice_alloc."""

    _fields_ = (
        ("size", c_uint32),
        ("viommu_id", c_uint32),
        ("dev_id", c_uint32),
        ("out_vdevice_id", c_uint32),
        ("virt_id", c_uint64),
    )


class VeventqAlloc(Structure):
    """iommu_veventq_alloc."""

    _fields_ = (
        ("size", c_uint32),
        ("flags", c_uint32),
        ("viommu_id", c_uint32),
        ("type", c_uint32),
        ("veventq_depth", c_uint32),
        ("out_veventq_id", c_uint32),
        ("out_veventq_fd", c_uint32),
        ("reserved", c_uint32),
    )


class HwQueueAlloc(Structure):
    """iommu_hw_queue_alloc."""

    _fields_ = (
        ("size", c_uint32),
        ("flags", c_uint32),
        ("viommu_id", c_uint32),
        ("type", c_uint32),
        ("index", c_uint32),
        ("out_hw_queue_id", c_uint32),
        ("nesting_parent_iova", c_uint64),
        ("length", c_uint64),
    )

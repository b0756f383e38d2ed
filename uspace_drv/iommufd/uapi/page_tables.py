"""Structures for page tables and the hardware: Linux include/uapi/linux/iommufd.h, HWPT, INFO."""

from __future__ import annotations

from ctypes import Structure, c_uint8, c_uint32, c_uint64
from enum import IntEnum, IntFlag


class HwptFlag(IntFlag):
    """enum iommufd_hwpt_alloc_flags, without FAULT_ID_VALID: a fault queue says it by being there.

    NEST_PARENT: others may be nested in it. DIRTY_TRACKING: the kernel makes sure that every
    device attached can say what it wrote. PASID: it may stand behind one PASID of a device.
    """

    NONE = 0
    NEST_PARENT = 1
    DIRTY_TRACKING = 2
    PASID = 8


FAULT_ID_VALID = 4


class HwptData(IntEnum):
    """enum iommu_hwpt_data_type: whose structure describes a nested page table."""

    NONE = 0
    VTD_S1 = 1
    ARM_SMMUV3 = 2
    AMD_GUEST = 3


class InvalidateData(IntEnum):
    """enum iommu_hwpt_invalidate_data_type."""

    VTD_S1 = 0
    ARM_SMMUV3 = 1


class HwInfoType(IntEnum):
    """enum iommu_hw_info_type."""

    NONE = 0
    INTEL_VTD = 1
    ARM_SMMUV3 = 2
    TEGRA241_CMDQV = 3
    AMD = 4


class HwCapability(IntFlag):
    """enum iommufd_hw_capabilities."""

    DIRTY_TRACKING = 1
    PCI_PASID_EXEC = 2
    PCI_PASID_PRIV = 4
    PCI_ATS_NOT_SUPPORTED = 8


TRACK_DIRTY = 1
"""iommu_hwpt_set_dirty_tracking.flags: on."""
NO_CLEAR = 1
"""iommu_hwpt_get_dirty_bitmap.flags: what is dirty stays so."""


class HwptAlloc(Structure):
    """iommu_hwpt_alloc."""

    _fields_ = (
        ("size", c_uint32),
        ("flags", c_uint32),
        ("dev_id", c_uint32),
        ("pt_id", c_uint32),
        ("out_hwpt_id", c_uint32),
        ("reserved", c_uint32),
        ("data_type", c_uint32),
        ("data_len", c_uint32),
        ("data_uptr", c_uint64),
        ("fault_id", c_uint32),
        ("reserved2", c_uint32),
    )


class HwInfo(Structure):
    """iommu_hw_info; `data_type` is what is asked for, then what came."""

    _fields_ = (
        ("size", c_uint32),
        ("flags", c_uint32),
        ("dev_id", c_uint32),
        ("data_len", c_uint32),
        ("data_uptr", c_uint64),
        ("data_type", c_uint32),
        ("out_max_pasid_log2", c_uint8),
        ("reserved", c_uint8 * 3),
        ("out_capabilities", c_uint64),
    )


class HwptSetDirtyTracking(Structure):
    """iommu_hwpt_set_dirty_tracking."""

    _fields_ = (
        ("size", c_uint32),
        ("flags", c_uint32),
        ("hwpt_id", c_uint32),
        ("reserved", c_uint32),
    )


class HwptGetDirtyBitmap(Structure):
    """iommu_hwpt_get_dirty_bitmap."""

    _fields_ = (
        ("size", c_uint32),
        ("hwpt_id", c_uint32),
        ("flags", c_uint32),
        ("reserved", c_uint32),
        ("iova", c_uint64),
        ("length", c_uint64),
        ("page_size", c_uint64),
        ("data", c_uint64),
    )


class HwptInvalidate(Structure):
    """iommu_hwpt_invalidate; the kernel answers with the number of entries that it handled."""

    _fields_ = (
        ("size", c_uint32),
        ("hwpt_id", c_uint32),
        ("data_uptr", c_uint64),
        ("data_type", c_uint32),
        ("entry_len", c_uint32),
        ("entry_num", c_uint32),
        ("reserved", c_uint32),
    )


class HwInfoVtd(Structure):
    """iommu_hw_info_vtd: registers of the Intel VT-d specification 11.4.2 and 11.4.3."""

    _fields_ = (
        ("flags", c_uint32),
        ("reserved", c_uint32),
        ("cap_reg", c_uint64),
        ("ecap_reg", c_uint64),
    )


class HwInfoSmmuv3(Structure):
    """iommu_hw_info_arm_smmuv3: registers of the Arm SMMUv3 specification 6.3.1 to 6.3.6."""

    _fields_ = (
        ("flags", c_uint32),
        ("reserved", c_uint32),
        ("idr", c_uint32 * 6),
        ("iidr", c_uint32),
        ("aidr", c_uint32),
    )


class HwInfoAmd(Structure):
    """iommu_hw_info_amd: MMIO offsets 0x30 and 0x1A0 of the AMD IOMMU specification."""

    _fields_ = (("efr", c_uint64), ("efr2", c_uint64))

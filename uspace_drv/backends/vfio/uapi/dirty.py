"""The structures by which a type1 container says what devices wrote, and ends many mappings.

Linux include/uapi/linux/vfio.h, VFIO_IOMMU_DIRTY_PAGES and VFIO_IOMMU_UNMAP_DMA.
"""

from __future__ import annotations

import ctypes
from enum import IntFlag


class UnmapFlag(IntFlag):
    """vfio_iommu_type1_dma_unmap.flags."""

    GET_DIRTY_BITMAP = 1
    ALL = 2
    VADDR = 4


class DirtyFlag(IntFlag):
    """vfio_iommu_type1_dirty_bitmap.flags: one of them in each call."""

    START = 1
    STOP = 2
    GET_BITMAP = 4


class Bitmap(ctypes.Structure):
    """vfio_bitmap: `size` bytes at the address `data`, a bit for each page of `pgsize`."""

    _fields_ = (
        ("pgsize", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("data", ctypes.c_uint64),
    )


class DirtySwitch(ctypes.Structure):
    """vfio_iommu_type1_dirty_bitmap alone, to start and to stop."""

    _fields_ = (("argsz", ctypes.c_uint32), ("flags", ctypes.c_uint32))


class DirtyGet(ctypes.Structure):
    """vfio_iommu_type1_dirty_bitmap with vfio_iommu_type1_dirty_bitmap_get behind it."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("iova", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("bitmap", Bitmap),
    )


class UnmapWithBitmap(ctypes.Structure):
    """vfio_iommu_type1_dma_unmap with a vfio_bitmap behind it."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("iova", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("bitmap", Bitmap),
    )

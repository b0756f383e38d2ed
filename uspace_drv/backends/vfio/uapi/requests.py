"""VFIO's request numbers, and what goes with a container and a group.

Linux include/uapi/linux/vfio.h. The structures carry their own size, so the numbers do not; the
header uses the numbers from 12 on twice, for devices and for the type1 IOMMU, and so do we.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum, IntFlag

API_VERSION = 0

_BASE = 0x3B64  # _IO(';', 100)


class Request(IntEnum):
    """What a container, a group, a device and the data file of a migration take."""

    GET_API_VERSION = _BASE + 0
    CHECK_EXTENSION = _BASE + 1
    SET_IOMMU = _BASE + 2
    GROUP_GET_STATUS = _BASE + 3
    GROUP_SET_CONTAINER = _BASE + 4
    GROUP_UNSET_CONTAINER = _BASE + 5
    GROUP_GET_DEVICE_FD = _BASE + 6
    DEVICE_GET_INFO = _BASE + 7
    DEVICE_GET_REGION_INFO = _BASE + 8
    DEVICE_GET_IRQ_INFO = _BASE + 9
    DEVICE_SET_IRQS = _BASE + 10
    DEVICE_RESET = _BASE + 11
    DEVICE_GET_PCI_HOT_RESET_INFO = _BASE + 12
    DEVICE_PCI_HOT_RESET = _BASE + 13
    DEVICE_QUERY_GFX_PLANE = _BASE + 14
    DEVICE_GET_GFX_DMABUF = _BASE + 15
    DEVICE_IOEVENTFD = _BASE + 16
    DEVICE_FEATURE = _BASE + 17
    DEVICE_BIND_IOMMUFD = _BASE + 18
    DEVICE_ATTACH_IOMMUFD_PT = _BASE + 19
    DEVICE_DETACH_IOMMUFD_PT = _BASE + 20
    MIG_GET_PRECOPY_INFO = _BASE + 21


class Type1Request(IntEnum):
    """What a container takes once its IOMMU is type1."""

    IOMMU_GET_INFO = _BASE + 12
    IOMMU_MAP_DMA = _BASE + 13
    IOMMU_UNMAP_DMA = _BASE + 14
    IOMMU_ENABLE = _BASE + 15
    IOMMU_DISABLE = _BASE + 16
    IOMMU_DIRTY_PAGES = _BASE + 17


class Extension(IntEnum):
    """Kinds and abilities of an IOMMU, for CHECK_EXTENSION; SET_IOMMU takes the kinds."""

    TYPE1 = 1
    TYPE1V2 = 3
    DMA_CC = 4
    NOIOMMU = 8
    UNMAP_ALL = 9
    UPDATE_VADDR = 10


class GroupFlag(IntFlag):
    """vfio_group_status.flags."""

    VIABLE = 1
    CONTAINER_SET = 2


class GroupStatus(ctypes.Structure):
    """vfio_group_status."""

    _fields_ = (("argsz", ctypes.c_uint32), ("flags", ctypes.c_uint32))

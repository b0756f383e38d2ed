"""The requests of /dev/iommu, and the kernels that brought them.

Linux include/uapi/linux/iommufd.h; versions and options are those of the commits that added the
requests to drivers/iommu/iommufd/main.c.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

_BASE = 0x3B80  # _IO(';', 0x80)


class Request(IntEnum):
    """ioctl requests. The structures carry their own size, so the numbers do not."""

    DESTROY = _BASE + 0x00
    IOAS_ALLOC = _BASE + 0x01
    IOAS_ALLOW_IOVAS = _BASE + 0x02
    IOAS_COPY = _BASE + 0x03
    IOAS_IOVA_RANGES = _BASE + 0x04
    IOAS_MAP = _BASE + 0x05
    IOAS_UNMAP = _BASE + 0x06
    OPTION = _BASE + 0x07
    VFIO_IOAS = _BASE + 0x08
    HWPT_ALLOC = _BASE + 0x09
    GET_HW_INFO = _BASE + 0x0A
    HWPT_SET_DIRTY_TRACKING = _BASE + 0x0B
    HWPT_GET_DIRTY_BITMAP = _BASE + 0x0C
    HWPT_INVALIDATE = _BASE + 0x0D
    FAULT_QUEUE_ALLOC = _BASE + 0x0E
    IOAS_MAP_FILE = _BASE + 0x0F
    VIOMMU_ALLOC = _BASE + 0x10
    VDEVICE_ALLOC = _BASE + 0x11
    IOAS_CHANGE_PROCESS = _BASE + 0x12
    VEVENTQ_ALLOC = _BASE + 0x13
    HW_QUEUE_ALLOC = _BASE + 0x14
    IOAS_NOIOMMU_GET_PA = _BASE + 0x15


FIRST_KERNEL = "Linux 6.2 with CONFIG_IOMMUFD"
"""The kernel that brought /dev/iommu itself."""

NEEDS: Mapping[Request, str] = {
    Request.HWPT_ALLOC: "Linux 6.6",
    Request.GET_HW_INFO: "Linux 6.6",
    Request.HWPT_SET_DIRTY_TRACKING: "Linux 6.7",
    Request.HWPT_GET_DIRTY_BITMAP: "Linux 6.7",
    Request.HWPT_INVALIDATE: "Linux 6.8",
    Request.FAULT_QUEUE_ALLOC: "Linux 6.11",
    Request.IOAS_MAP_FILE: "Linux 6.13",
    Request.VIOMMU_ALLOC: "Linux 6.13",
    Request.VDEVICE_ALLOC: "Linux 6.13",
    Request.IOAS_CHANGE_PROCESS: "Linux 6.14",
    Request.VEVENTQ_ALLOC: "Linux 6.15",
    Request.HW_QUEUE_ALLOC: "Linux 6.17",
    Request.IOAS_NOIOMMU_GET_PA: "Linux 7.3 with CONFIG_IOMMUFD_NOIOMMU",
}
"""What a later request needs; those that are not named came with /dev/iommu itself."""

"""What a hot reset takes along, and what it takes to be allowed.

Linux include/uapi/linux/vfio.h, "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO", "VFIO_DEVICE_PCI_HOT_RESET".
"""

from __future__ import annotations

import ctypes
from enum import IntFlag

DEVID_OWNED = 0
DEVID_NOT_OWNED = 0xFFFF_FFFF


class HotResetFlag(IntFlag):
    """vfio_pci_hot_reset_info.flags: whether functions come with a devid, and if all are ours."""

    DEV_ID = 1
    DEV_ID_OWNED = 2


class HotResetInfo(ctypes.Structure):
    """vfio_pci_hot_reset_info without its functions, which follow."""

    _fields_ = (("argsz", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("count", ctypes.c_uint32))


class DependentDevice(ctypes.Structure):
    """vfio_pci_dependent_device; `id` is a group's number, or a devid."""

    _fields_ = (
        ("id", ctypes.c_uint32),
        ("segment", ctypes.c_uint16),
        ("bus", ctypes.c_uint8),
        ("devfn", ctypes.c_uint8),
    )


class HotResetHeader(ctypes.Structure):
    """vfio_pci_hot_reset without the descriptors of groups, which follow."""

    _fields_ = (("argsz", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("count", ctypes.c_uint32))

"""The structure of a doorbell: Linux include/uapi/linux/vfio.h, "VFIO_DEVICE_IOEVENTFD"."""

from __future__ import annotations

import ctypes
from enum import IntFlag


class IoEventFdFlag(IntFlag):
    """vfio_device_ioeventfd.flags: how wide the store is."""

    WIDTH_8 = 1
    WIDTH_16 = 2
    WIDTH_32 = 4
    WIDTH_64 = 8


class IoEventFd(ctypes.Structure):
    """vfio_device_ioeventfd; `offset` counts in the device's descriptor, `fd` -1 ends it."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("offset", ctypes.c_uint64),
        ("data", ctypes.c_uint64),
        ("fd", ctypes.c_int32),
        ("reserved", ctypes.c_uint32),
    )

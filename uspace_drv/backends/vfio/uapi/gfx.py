"""The picture that a mediated display device shows.

Linux include/uapi/linux/vfio.h, "VFIO_DEVICE_QUERY_GFX_PLANE".
"""

from __future__ import annotations

import ctypes
from enum import IntEnum, IntFlag


class PlaneFlag(IntFlag):
    """vfio_device_gfx_plane_info.flags: how the picture is to be had, or whether it can be."""

    PROBE = 1
    DMABUF = 2
    REGION = 4


class PlaneType(IntEnum):
    """Kinds of plane, as the kernel's DRM numbers them (drm_plane.h, enum drm_plane_type)."""

    OVERLAY = 0
    PRIMARY = 1
    CURSOR = 2


class GfxPlaneInfo(ctypes.Structure):
    """vfio_device_gfx_plane_info; `source` is the index of a region or the id of a dma-buf."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("drm_plane_type", ctypes.c_uint32),
        ("drm_format", ctypes.c_uint32),
        ("drm_format_mod", ctypes.c_uint64),
        ("width", ctypes.c_uint32),
        ("height", ctypes.c_uint32),
        ("stride", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("x_pos", ctypes.c_uint32),
        ("y_pos", ctypes.c_uint32),
        ("x_hot", ctypes.c_uint32),
        ("y_hot", ctypes.c_uint32),
        ("source", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    )

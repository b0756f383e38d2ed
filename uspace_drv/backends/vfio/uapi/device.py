"""The structures of a VFIO device: what it is made of, interrupts, and the way to an iommufd.

Linux include/uapi/linux/vfio.h, "VFIO_DEVICE_*".
"""

from __future__ import annotations

import ctypes
from enum import IntFlag


class CapabilityHeader(ctypes.Structure):
    """vfio_info_cap_header; `next` counts from the start of the information, 0 ends the list."""

    _fields_ = (
        ("id", ctypes.c_uint16),
        ("version", ctypes.c_uint16),
        ("next", ctypes.c_uint32),
    )


class DeviceInfo(ctypes.Structure):
    """vfio_device_info."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("num_regions", ctypes.c_uint32),
        ("num_irqs", ctypes.c_uint32),
        ("cap_offset", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
    )


class RegionInfo(ctypes.Structure):
    """vfio_region_info."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("index", ctypes.c_uint32),
        ("cap_offset", ctypes.c_uint32),
        ("size", ctypes.c_uint64),
        ("offset", ctypes.c_uint64),
    )


class IrqInfo(ctypes.Structure):
    """vfio_irq_info."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("index", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
    )


class IrqSetHeader(ctypes.Structure):
    """vfio_irq_set without its data, which follows: one int32 for each eventfd."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("index", ctypes.c_uint32),
        ("start", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
    )


class BindFlag(IntFlag):
    """vfio_device_bind_iommufd.flags."""

    TOKEN = 1


class BindIommufd(ctypes.Structure):
    """vfio_device_bind_iommufd; `token_uuid_ptr` came with Linux 6.18, `argsz` says if it is there.

    `token_uuid_ptr` is the address of the 16 bytes of a UUID.
    """

    _fields_ = (
        ("argsz", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("iommufd", ctypes.c_int32),
        ("out_devid", ctypes.c_uint32),
        ("token_uuid_ptr", ctypes.c_uint64),
    )


class AttachIommufd(ctypes.Structure):
    """vfio_device_attach_iommufd_pt; the kernel answers with the page table that it took."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("pt_id", ctypes.c_uint32),
        ("pasid", ctypes.c_uint32),
    )


class DetachIommufd(ctypes.Structure):
    """vfio_device_detach_iommufd_pt."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("pasid", ctypes.c_uint32),
    )

"""The features of a VFIO device: their numbers, and the data that each one takes or gives.

Linux include/uapi/linux/vfio.h, "VFIO_DEVICE_FEATURE_*" and "VFIO_MIG_GET_PRECOPY_INFO". What is
done with a feature (`FeatureFlag`) and the states of a migration are in `uspace_drv.vfio_numbers`.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum, IntFlag


class Feature(IntEnum):
    """The low 16 bits of vfio_device_feature.flags."""

    PCI_VF_TOKEN = 0
    MIGRATION = 1
    MIG_DEVICE_STATE = 2
    LOW_POWER_ENTRY = 3
    LOW_POWER_ENTRY_WITH_WAKEUP = 4
    LOW_POWER_EXIT = 5
    DMA_LOGGING_START = 6
    DMA_LOGGING_STOP = 7
    DMA_LOGGING_REPORT = 8
    MIG_DATA_SIZE = 9
    BUS_MASTER = 10
    DMA_BUF = 11
    MIG_PRECOPY_INFO_V2 = 12


class FeatureHeader(ctypes.Structure):
    """vfio_device_feature without its data, which follows."""

    _fields_ = (("argsz", ctypes.c_uint32), ("flags", ctypes.c_uint32))


class MigrationSupport(ctypes.Structure):
    """vfio_device_feature_migration."""

    _fields_ = (("flags", ctypes.c_uint64),)


class MigrationStateData(ctypes.Structure):
    """vfio_device_feature_mig_state; `data_fd` is -1 where no session begins."""

    _fields_ = (("device_state", ctypes.c_uint32), ("data_fd", ctypes.c_int32))


class MigrationDataSize(ctypes.Structure):
    """vfio_device_feature_mig_data_size: bytes that STOP_COPY may have to move."""

    _fields_ = (("stop_copy_length", ctypes.c_uint64),)


class PrecopyFlag(IntFlag):
    """vfio_precopy_info.flags; only where MIG_PRECOPY_INFO_V2 was set."""

    REINIT = 1


class PrecopyInfo(ctypes.Structure):
    """vfio_precopy_info."""

    _fields_ = (
        ("argsz", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("initial_bytes", ctypes.c_uint64),
        ("dirty_bytes", ctypes.c_uint64),
    )


class LowPowerWakeup(ctypes.Structure):
    """vfio_device_low_power_entry_with_wakeup."""

    _fields_ = (("wakeup_eventfd", ctypes.c_int32), ("reserved", ctypes.c_uint32))


class DmaLoggingControl(ctypes.Structure):
    """vfio_device_feature_dma_logging_control; `ranges` is the address of the ranges."""

    _fields_ = (
        ("page_size", ctypes.c_uint64),
        ("num_ranges", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("ranges", ctypes.c_uint64),
    )


class DmaLoggingRange(ctypes.Structure):
    """vfio_device_feature_dma_logging_range."""

    _fields_ = (("iova", ctypes.c_uint64), ("length", ctypes.c_uint64))


class DmaLoggingReport(ctypes.Structure):
    """vfio_device_feature_dma_logging_report; `bitmap` is the address of 64-bit words."""

    _fields_ = (
        ("iova", ctypes.c_uint64),
        ("length", ctypes.c_uint64),
        ("page_size", ctypes.c_uint64),
        ("bitmap", ctypes.c_uint64),
    )


class BusMaster(ctypes.Structure):
    """vfio_device_feature_bus_master: 0 clears, 1 sets."""

    _fields_ = (("op", ctypes.c_uint32),)


class DmaBufHeader(ctypes.Structure):
    """vfio_device_feature_dma_buf without its ranges, which follow."""

    _fields_ = (
        ("region_index", ctypes.c_uint32),
        ("open_flags", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("nr_ranges", ctypes.c_uint32),
    )


class RegionDmaRange(ctypes.Structure):
    """vfio_region_dma_range: a piece of a region, in whole pages."""

    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))

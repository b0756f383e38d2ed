"""vfio-user's numbers: QEMU docs/interop/vfio-user.rst, and Linux linux/vfio.h where it says so."""

from __future__ import annotations

from enum import IntEnum, IntFlag

PAGE = 4096
"""Bytes of the pages that DMA_MAP and dirty logs are about; everybody has them."""


class Command(IntEnum):
    """What a message asks for or answers. The server sends DMA_READ and DMA_WRITE."""

    VERSION = 1
    DMA_MAP = 2
    DMA_UNMAP = 3
    DEVICE_GET_INFO = 4
    DEVICE_GET_REGION_INFO = 5
    DEVICE_GET_REGION_IO_FDS = 6
    DEVICE_GET_IRQ_INFO = 7
    DEVICE_SET_IRQS = 8
    REGION_READ = 9
    REGION_WRITE = 10
    DMA_READ = 11
    DMA_WRITE = 12
    DEVICE_RESET = 13
    DIRTY_PAGES = 14  # of drafts; dropped from the specification
    REGION_WRITE_MULTI = 15
    DEVICE_FEATURE = 16
    MIG_DATA_READ = 17
    MIG_DATA_WRITE = 18


class Flag(IntFlag):
    """Header flags; a command is a message without REPLY."""

    REPLY = 1
    NO_REPLY = 0x10
    ERROR = 0x20


class UnmapFlag(IntFlag):
    """Flags of DMA_UNMAP, as vfio_iommu_type1_dma_unmap; libvfio-user knows them."""

    GET_DIRTY_BITMAP = 1
    ALL = 2


class IoFdType(IntEnum):
    """What a descriptor of GET_REGION_IO_FDS is."""

    IOEVENTFD = 0
    IOREGIONFD = 1
    IOEVENTFD_SHADOW = 2  # libvfio-user's: written values are in shared memory


class Feature(IntEnum):
    """Features of DEVICE_FEATURE that vfio-user has, in the low 16 bits of its flags."""

    MIGRATION = 1
    MIG_DEVICE_STATE = 2
    DMA_LOGGING_START = 6
    DMA_LOGGING_STOP = 7
    DMA_LOGGING_REPORT = 8


FEATURE_MASK = 0xFFFF

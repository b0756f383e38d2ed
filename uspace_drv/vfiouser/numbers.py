"""vfio-user's numbers: QEMU docs/interop/vfio-user.rst, and Linux linux/vfio.h where it says so."""

from __future__ import annotations

from enum import IntEnum, IntFlag

HEADER_SIZE = 16


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


class DmaFlag(IntFlag):
    """Flags of DMA_MAP: what the device may do."""

    READ = 1
    WRITE = 2


class UnmapFlag(IntFlag):
    """Flags of DMA_UNMAP, as vfio_iommu_type1_dma_unmap; libvfio-user knows them."""

    GET_DIRTY_BITMAP = 1
    ALL = 2


class DeviceFlag(IntFlag):
    """vfio_device_info.flags."""

    RESET = 1
    PCI = 2


class Region(IntEnum):
    """Region numbers of a PCI device; BAR n is region n."""

    BAR0 = 0
    BAR5 = 5
    ROM = 6
    CONFIG = 7
    VGA = 8


REGION_COUNT = 9


class RegionFlag(IntFlag):
    """vfio_region_info.flags."""

    READ = 1
    WRITE = 2
    MMAP = 4
    CAPS = 8


SPARSE_MMAP = 1  # vfio_info_cap_header.id


class IoFdType(IntEnum):
    """What a descriptor of GET_REGION_IO_FDS is."""

    IOEVENTFD = 0
    IOREGIONFD = 1
    IOEVENTFD_SHADOW = 2  # libvfio-user's: written values are in shared memory


class IrqIndex(IntEnum):
    """Interrupt indexes of a PCI device."""

    INTX = 0
    MSI = 1
    MSIX = 2
    ERR = 3
    REQ = 4


IRQ_COUNT = 5


class IrqFlag(IntFlag):
    """vfio_irq_info.flags."""

    EVENTFD = 1
    MASKABLE = 2
    AUTOMASKED = 4
    NORESIZE = 8


class IrqAction(IntFlag):
    """vfio_irq_set.flags: one DATA flag says what comes, one other what is to be done."""

    DATA_NONE = 1
    DATA_BOOL = 2
    DATA_EVENTFD = 4
    MASK = 8
    UNMASK = 0x10
    TRIGGER = 0x20


class Feature(IntEnum):
    """Features of DEVICE_FEATURE that vfio-user has, in the low 16 bits of its flags."""

    MIGRATION = 1
    MIG_DEVICE_STATE = 2
    DMA_LOGGING_START = 6
    DMA_LOGGING_STOP = 7
    DMA_LOGGING_REPORT = 8


FEATURE_MASK = 0xFFFF


class FeatureFlag(IntFlag):
    """What is to be done with the feature."""

    GET = 1 << 16
    SET = 1 << 17
    PROBE = 1 << 18


class MigrationFlag(IntFlag):
    """vfio_device_feature_migration.flags."""

    STOP_COPY = 1
    P2P = 2
    PRE_COPY = 4


class MigrationState(IntEnum):
    """vfio_device_mig_state."""

    ERROR = 0
    STOP = 1
    RUNNING = 2
    STOP_COPY = 3
    RESUMING = 4
    RUNNING_P2P = 5
    PRE_COPY = 6
    PRE_COPY_P2P = 7

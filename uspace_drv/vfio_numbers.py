"""VFIO's numbers that vfio-user has too: Linux include/uapi/linux/vfio.h."""

from __future__ import annotations

from enum import IntEnum, IntFlag


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


class RegionCapability(IntEnum):
    """Capabilities behind vfio_region_info."""

    SPARSE_MMAP = 1
    TYPE = 2
    MSIX_MAPPABLE = 3


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


class DmaFlag(IntFlag):
    """vfio_iommu_type1_dma_map.flags, and those of DMA_MAP: what the device may do."""

    READ = 1
    WRITE = 2


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

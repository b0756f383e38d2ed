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

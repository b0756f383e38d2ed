"""A BAR as a dma-buf: memory of one device that another device, or program, can be shown.

Linux include/uapi/linux/vfio.h, "VFIO_DEVICE_FEATURE_DMA_BUF".
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Sequence

from uspace_drv.backends.vfio.feature_call import FeatureCall
from uspace_drv.backends.vfio.uapi.features import DmaBufHeader, Feature, RegionDmaRange
from uspace_drv.errors import DeviceGone, RegisterValueError, UnsupportedError

_FLAGS = os.O_RDWR | os.O_CLOEXEC


def export_bar(features: FeatureCall, bar: int, ranges: Sequence[tuple[int, int]]) -> int:
    """Return a new descriptor of a dma-buf, made of (offset, size) pieces of a BAR, in whole pages.

    The caller closes it. Hand it to `DmaSpace.map_file()` of another device, which then reaches
    this one directly. The kernel takes the access back while this device is reset, is in low power,
    or has its memory switched off in the command register, and when it is closed.

    `UnsupportedError` before Linux 6.19, without CONFIG_VFIO_PCI_DMABUF, and for a BAR of I/O ports
    or one that the function does not have.
    """
    where = f"{features.address} bar {bar}"
    for offset, size in ranges:
        if offset % mmap.PAGESIZE or size % mmap.PAGESIZE or size <= 0:
            raise RegisterValueError(
                f"{where}: a dma-buf is made of whole pages of {mmap.PAGESIZE:#x} bytes; got "
                f"{size:#x} bytes at {offset:#x}"
            )
    pieces = b"".join(bytes(RegionDmaRange(*piece)) for piece in ranges)
    header = DmaBufHeader(bar, _FLAGS, 0, len(ranges))
    try:
        return features.get_descriptor(Feature.DMA_BUF, bytes(header) + pieces)
    except DeviceGone as error:
        # The kernel answers so for a BAR that is not there or was not claimed.
        if getattr(error.__cause__, "errno", None) != errno.ENODEV:
            raise
        raise UnsupportedError(
            f"{where}: the kernel makes no dma-buf of it; it takes a memory BAR, of "
            f"{mmap.PAGESIZE:#x} bytes or more"
        ) from error

"""Which memory a device wrote, noted by the device itself.

Linux include/uapi/linux/vfio.h, "VFIO_DEVICE_FEATURE_DMA_LOGGING_START" and what follows it.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence

from uspace_drv.backends.vfio.feature_call import FeatureCall
from uspace_drv.backends.vfio.uapi.features import (
    DmaLoggingControl,
    DmaLoggingRange,
    DmaLoggingReport,
    Feature,
)
from uspace_drv.errors import RegisterValueError
from uspace_drv.port import Iova, IovaRange


class DmaLogging:
    """The log of one device; each method raises `UnsupportedError` where it keeps none.

    It knows what this device wrote; dirty tracking by the IOMMU (`DmaSpace`) knows what anybody
    wrote who shares its mappings.
    """

    def __init__(self, features: FeatureCall) -> None:
        self._features = features

    def start(self, ranges: Sequence[IovaRange], page_size: int = mmap.PAGESIZE) -> int:
        """Note the pages written in these IOVAs, whole pages each, until `stop()`.

        Returns the size in bytes of the pages that the device can tell apart. `HostError` where
        ranges overlap, are not whole pages, are more than the device takes, or a log runs already.
        """
        if not ranges:
            raise RegisterValueError(f"{self._features.address}: no IOVA to log; give a range")
        pieces = [DmaLoggingRange(one.start, one.end - one.start + 1) for one in ranges]
        array = (DmaLoggingRange * len(pieces))(*pieces)
        control = DmaLoggingControl(page_size, len(pieces), 0, ctypes.addressof(array))
        return int(self._features.set(Feature.DMA_LOGGING_START, control).page_size)

    def stop(self) -> None:
        """Note nothing any more."""
        self._features.apply(Feature.DMA_LOGGING_STOP)

    def dirty_pages(self, iova: Iova, size: int, page_size: int = mmap.PAGESIZE) -> bytes:
        """Which pages were written: a bit for each page from `iova` on, lowest bit first.

        Asking clears them. `size` is in bytes, the answer is whole words of 8 bytes. After an
        error every page has to be taken for written.
        """
        words = -(-size // (page_size * 64))
        bitmap = (ctypes.c_uint64 * words)()  # the kernel sets bits and clears none
        report = DmaLoggingReport(iova, size, page_size, ctypes.addressof(bitmap))
        self._features.get(Feature.DMA_LOGGING_REPORT, report)
        return bytes(bitmap)

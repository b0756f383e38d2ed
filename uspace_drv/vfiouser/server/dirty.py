"""Which pages of the client's memory the device has written, while the client asks for it.

QEMU docs/interop/vfio-user.rst, VFIO_DEVICE_FEATURE_DMA_LOGGING_*.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

from uspace_drv.vfiouser.numbers import PAGE
from uspace_drv.vfiouser.server.refusal import invalid
from uspace_drv.vfiouser.wire import DmaRange, DmaReport

LARGEST_BITMAP = 1 << 20
"""Bytes of one report."""


class DirtyLog:
    """Pages written inside of `ranges` (none: everywhere) since they were last reported."""

    def __init__(self, ranges: Sequence[DmaRange]) -> None:
        self._ranges = ranges or [DmaRange(0, 1 << 64)]
        self._pages: set[int] = set()
        self._turn = Lock()

    def mark(self, iova: int, size: int) -> None:
        """The device has written `size` bytes."""
        for part in self._ranges:
            first, end = max(iova, part.iova), min(iova + size, part.iova + part.length)
            if first < end:
                with self._turn:
                    self._pages.update(range(first // PAGE, (end - 1) // PAGE + 1))

    def report(self, wanted: DmaReport, room: int) -> bytes:
        """Return the bitmap of a range, in words of 64 bits, and forget those pages.

        One that is larger than `room` bytes is empty, and says only how much is needed.
        """
        iova, length, page = wanted.iova, wanted.length, wanted.page_size
        if page == 0 or page & (page - 1) or iova % page or length == 0 or iova + length > 1 << 64:
            raise invalid(f"dirty pages of {length:#x} bytes at {iova:#x}, page size {page:#x}")
        bits = -(-length // page)
        if bits > 8 * LARGEST_BITMAP:
            raise invalid(f"{bits} dirty pages at once, at most {8 * LARGEST_BITMAP} are reported")
        bitmap = bytearray(-(-bits // 64) * 8)
        if len(bitmap) > room:
            return bytes(bitmap)
        for number in self._take(iova, iova + length):
            first = max(0, number * PAGE - iova) // page
            last = min(length - 1, (number + 1) * PAGE - 1 - iova) // page
            for bit in range(first, last + 1):
                bitmap[bit // 8] |= 1 << bit % 8
        return bytes(bitmap)

    def _take(self, start: int, end: int) -> set[int]:
        with self._turn:
            found = {n for n in self._pages if n * PAGE < end and start < (n + 1) * PAGE}
            self._pages -= found
        return found

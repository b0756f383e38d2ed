"""DMA by physical address, for a device without an IOMMU: huge pages, whose addresses stay.

Linux Documentation/admin-guide/mm/pagemap.rst and hugetlbpage.rst. Nothing here protects the
machine; a backend uses it only behind the opt-in with the ugly name, and says why with
`without_iommu` where that was not given.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Sequence
from weakref import WeakValueDictionary

from uspace_drv.errors import HostError, UnsupportedError
from uspace_drv.huge_pages import HUGE_PAGE, map_huge_pages
from uspace_drv.port import BareDmaSpace, Direction, Iova, IovaRange

PAGEMAP = "/proc/self/pagemap"
FRAME_BITS = (1 << 55) - 1
PRESENT = 1 << 63


def without_iommu(name: str, way: str) -> UnsupportedError:
    """Why there is no DMA without the opt-in; `name` is the device's address, `way` how it came."""
    return UnsupportedError(
        f"{name}: DMA through {way} has no IOMMU to stop a wrong address from overwriting any "
        "memory of this machine; use VFIO with an IOMMU, or accept that with "
        "unsafe_dma_without_iommu=True (--unsafe-dma-without-iommu)"
    )


class PhysicalMemory(BareDmaSpace):
    """Fills the port's `DmaSpace`: a mapping is where its huge page is, and cannot be chosen.

    `name` is the device's address, for errors.
    """

    page_size = mmap.PAGESIZE
    ranges: Sequence[IovaRange] | None = None
    entry_limit: int | None = None

    def __init__(self, name: str) -> None:
        self.name = name
        self._pages: WeakValueDictionary[int, mmap.mmap] = WeakValueDictionary()

    def memory(self, size: int, reach: int) -> mmap.mmap:
        """One huge page whose physical address the device reaches."""
        if size > HUGE_PAGE:
            raise UnsupportedError(
                f"{self.name}: {size:#x} bytes without an IOMMU need adjacent huge pages, which "
                f"nobody promises; allocate at most {HUGE_PAGE:#x} bytes at once, or use VFIO with "
                "an IOMMU"
            )
        # Held until one fits, so that the kernel hands out another one each time.
        passed_over: list[mmap.mmap] = []
        try:
            while True:
                page = self._huge_page(len(passed_over), reach)
                address = ctypes.addressof(ctypes.c_char.from_buffer(page))
                if self._physical(address, size) + size - 1 <= reach:
                    self._pages[address] = page
                    return page
                passed_over.append(page)
        finally:
            for page in passed_over:
                page.close()

    def map(self, address: int, size: int, iova: Iova | None, direction: Direction) -> Iova:
        """Where the memory is for the device: its physical address."""
        if not any(page <= address and address + size <= page + HUGE_PAGE for page in self._pages):
            raise UnsupportedError(
                f"{self.name}: without an IOMMU only memory from dma.alloc() can be mapped: the "
                "kernel may move any other at any time"
            )
        return Iova(self._physical(address, size))

    def unmap(self, iova: Iova, size: int) -> None:
        """Nothing can take it away: without an IOMMU the device reaches all memory anyway."""

    def unmap_all(self) -> None:
        """Nothing can."""

    def _huge_page(self, passed_over: int, reach: int) -> mmap.mmap:
        try:
            page = map_huge_pages(HUGE_PAGE, populate=True)
        except OSError as error:
            if passed_over:
                raise HostError(
                    f"{self.name}: {passed_over} huge pages are free, and all lie past the "
                    f"device's reach of {reach:#x}; reserve more of them early, with hugepages=N "
                    "on the kernel's command line",
                    cause=error,
                ) from error
            raise HostError(
                f"{self.name}: no huge page of {HUGE_PAGE >> 20} MiB is free; run: "
                "echo 8 | sudo tee /proc/sys/vm/nr_hugepages (and 0 when you are done)",
                cause=error,
            ) from error
        page[0] = 0
        return page

    def _physical(self, address: int, size: int) -> int:
        """The physical address of a virtual one of this process; a huge page has no gaps."""
        hidden = (
            f"{self.name}: the kernel does not show physical addresses ({PAGEMAP}); "
            "that takes CAP_SYS_ADMIN: run it as root"
        )
        try:
            with open(PAGEMAP, "rb", buffering=0) as pagemap:  # noqa: PTH123 - unbuffered
                raw = os.pread(pagemap.fileno(), 8, address // self.page_size * 8)
        except OSError as error:
            raise HostError(hidden, cause=error) from error
        entry = int.from_bytes(raw, "little")
        frame = entry & FRAME_BITS
        if not entry & PRESENT or frame == 0:
            raise HostError(hidden)
        return frame * self.page_size + address % self.page_size

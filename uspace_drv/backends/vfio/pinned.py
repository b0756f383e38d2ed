"""DMA by physical address that the kernel tells: an iommufd without an IOMMU pins the memory.

Linux include/uapi/linux/iommufd.h, IOMMU_IOAS_NOIOMMU_GET_PA. Unlike /proc/self/pagemap it keeps
the pages where they are, so that ordinary memory serves too, as far as it lies in one piece.
"""

from __future__ import annotations

import mmap

from uspace_drv.backends.physical import PhysicalMemory
from uspace_drv.errors import UnsupportedError
from uspace_drv.iommufd import Ioas
from uspace_drv.port import Direction, Iova


class PinnedMemory(PhysicalMemory):
    """Fills the port's `DmaSpace`; the IOVAs of the address space only name what is pinned there.

    `name` is the device's address, for errors.
    """

    def __init__(self, name: str, ioas: Ioas) -> None:
        super().__init__(name)
        self._ioas = ioas
        self._pins: dict[tuple[Iova, int], list[int]] = {}
        """By physical address and size the keys of the pins: memory may be mapped twice."""

    def memory(self, size: int, reach: int) -> mmap.mmap:
        """One page where that does and the device reaches everything, else a huge page."""
        if size <= self.page_size and reach >= _EVERYWHERE:
            return mmap.mmap(-1, size)
        return super().memory(size, reach)

    def map(self, address: int, size: int, iova: Iova | None, direction: Direction) -> Iova:
        """Pin the memory; returns where it is."""
        pin = self._ioas.map(address, size, None, direction)
        try:
            where = Iova(self._where(pin, size))
        except BaseException:
            self._ioas.unmap(pin, size)
            raise
        self._pins.setdefault((where, size), []).append(pin)
        return where

    def unmap(self, iova: Iova, size: int) -> None:
        """Unpin it; the device reaches it all the same."""
        pins = self._pins[iova, size]
        self._ioas.unmap(pins.pop(), size)
        if not pins:
            del self._pins[iova, size]

    def unmap_all(self) -> None:
        """Unpin everything."""
        self._pins.clear()
        self._ioas.unmap_all()

    def _where(self, pin: int, size: int) -> int:
        address, length = self._ioas.physical(pin, size)
        if length < size:
            raise UnsupportedError(
                f"{self.name}: only {length:#x} of {size:#x} bytes lie in one piece of physical "
                "memory; take memory from dma.alloc(), or a device with an IOMMU"
            )
        return address

    def _physical(self, address: int, size: int) -> int:
        """Where memory is now, to see if the device reaches it; `map` asks again."""
        pin = self._ioas.map(address, size, None, Direction.BOTH)
        try:
            return self._where(pin, size)
        finally:
            self._ioas.unmap(pin, size)


_EVERYWHERE = (1 << 64) - 1

"""DMA through an address space of an iommufd: the port's `DmaSpace` on top of `Ioas`.

Linux Documentation/userspace-api/iommufd.rst.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from functools import cached_property

from uspace_drv.errors import HostError
from uspace_drv.iommufd import Ioas
from uspace_drv.port import BareDmaSpace, Direction, DmaCalls, DmaKernel, Iova, IovaRange


class IoasSpace(BareDmaSpace):
    """Fills the port's `DmaSpace`; `name` is the device's address, for errors."""

    entry_limit: int | None = None

    def __init__(self, name: str, ioas: Ioas) -> None:
        self.name = name
        self._ioas = ioas

    @cached_property
    def page_size(self) -> int:
        """Bytes: the smallest page that this process and the IOMMU share."""
        return max(mmap.PAGESIZE, self._ioas.alignment)

    @cached_property
    def ranges(self) -> Sequence[IovaRange] | None:
        """What the device's IOMMU can map."""
        return self._ioas.ranges()

    def memory(self, size: int, reach: int) -> mmap.mmap:
        """Anonymous shared memory: a fork keeps both sides on the same pages."""
        return mmap.mmap(-1, size)

    def map(self, address: int, size: int, iova: Iova | None, direction: Direction) -> Iova:
        """Pin the memory and show it to the device at `iova`."""
        return Iova(self._ioas.map(address, size, self._fixed(iova), direction))

    def map_file(
        self, fd: int, offset: int, size: int, iova: Iova | None, direction: Direction
    ) -> Iova:
        """Pin a part of a memfd or dma-buf and show it to the device at `iova`."""
        return Iova(self._ioas.map_file(fd, offset, size, self._fixed(iova), direction))

    def unmap(self, iova: Iova, size: int) -> None:
        """Take it away from the device and unpin the memory."""
        unmapped = self._ioas.unmap(iova, size)
        if unmapped != size:
            raise HostError(f"{self.name}: unmapped {unmapped:#x} of {size:#x} bytes at {iova:#x}")

    def unmap_all(self) -> None:
        """Take everything away, in one call."""
        self._ioas.unmap_all()

    @property
    def dma_calls(self) -> DmaCalls:
        """Mapping is one ioctl on the iommufd."""
        return DmaCalls(DmaKernel.IOAS, self._ioas.fd, self._ioas.id)

    def _fixed(self, iova: Iova | None) -> Iova:
        """The caller keeps the account of what is free, as on every other way."""
        if iova is None:
            raise HostError(f"{self.name}: a mapping through VFIO needs an IOVA")
        return iova

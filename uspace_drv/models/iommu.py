"""The model's view of memory: an IOMMU that knows every mapping and says what was wrong.

A model reaches memory only through it, so a driver that hands out an address that it never mapped,
or that was unmapped, fails with the name of the register that carried the address.
"""

from __future__ import annotations

import ctypes
import mmap
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock

from uspace_drv.errors import DeviceError
from uspace_drv.port import Direction, Iova, IovaRange

REMEMBERED = 64
"""Unmapped ranges that are still known by name when the device uses them."""


@dataclass(frozen=True, order=True)
class Mapping:
    """`size` bytes at `address` of this process, which the device sees at `iova`."""

    iova: Iova
    size: int
    address: int
    direction: Direction = field(compare=False)

    def covers(self, iova: int, size: int) -> bool:
        """Whether all of that range lies inside."""
        return self.iova <= iova and iova + size <= self.iova + self.size


class Iommu:
    """Fills the port's `DmaSpace`; `read` and `write` are the device's side.

    `is_bus_master` says whether the function may reach memory at all. An unmap in one thread waits
    for the device's access in another, because the memory may go right after it.
    """

    page_size = mmap.PAGESIZE
    entry_limit: int | None = None

    def __init__(self, name: str, is_bus_master: Callable[[], bool]) -> None:
        self._name = name
        self._is_bus_master = is_bus_master
        self._mappings: list[Mapping] = []  # ascending, none overlaps another
        self._unmapped: deque[Mapping] = deque(maxlen=REMEMBERED)
        self._turn = Lock()

    @property
    def ranges(self) -> Sequence[IovaRange] | None:
        """All but what a PC's IOMMU keeps for interrupts (Intel VT-d 4.1, section 3.14)."""
        return [IovaRange(0, 0xFEDF_FFFF), IovaRange(0xFEF0_0000, (1 << 64) - 1)]

    def memory(self, size: int, reach: int) -> mmap.mmap:
        """Anonymous shared memory."""
        return mmap.mmap(-1, size)

    def map(self, address: int, size: int, iova: Iova | None, direction: Direction) -> Iova:
        """Show memory of this process to the device."""
        if iova is None:
            raise DeviceError(f"{self._name}: a mapping needs an IOVA")
        with self._turn:
            nearest = self._last_from(iova + size - 1)
            if nearest is not None and nearest.iova + nearest.size > iova:
                raise DeviceError(f"{self._name}: IOVA {iova:#x} is mapped already")
            insort(self._mappings, Mapping(iova, size, address, direction))
        return iova

    def unmap(self, iova: Iova, size: int) -> None:
        """Take it away; type1v2 unmaps what was mapped, and nothing less."""
        with self._turn:
            mapping = self._last_from(iova)
            if mapping is None or (mapping.iova, mapping.size) != (iova, size):
                raise DeviceError(
                    f"{self._name}: nothing of {size:#x} bytes is mapped at {iova:#x}"
                )
            self._mappings.remove(mapping)
            self._unmapped.append(mapping)

    def read(self, iova: int, size: int, carrier: str) -> bytes:
        """What the device reads; `carrier` is the register that told it the address."""
        with self._turn:
            return ctypes.string_at(self._find(iova, size, Direction.TO_DEVICE, carrier), size)

    def write(self, iova: int, data: bytes, carrier: str) -> None:
        """What the device writes; `carrier` is the register that told it the address."""
        with self._turn:
            address = self._find(iova, len(data), Direction.FROM_DEVICE, carrier)
            ctypes.memmove(address, data, len(data))

    def _last_from(self, iova: int) -> Mapping | None:
        """The last mapping that begins there or before."""
        place = bisect_right(self._mappings, iova, key=lambda mapping: mapping.iova)
        return self._mappings[place - 1] if place else None

    def _find(self, iova: int, size: int, direction: Direction, carrier: str) -> int:
        where = f"{self._name}: {carrier} carried IOVA {iova:#x} for {size:#x} bytes"
        if not self._is_bus_master():
            raise DeviceError(f"{where}, but bus mastering is off")
        mapping = self._last_from(iova)
        if mapping is None or not mapping.covers(iova, size):
            raise DeviceError(f"{where}, which {self._what_is_there(iova, size)}")
        if direction not in mapping.direction:
            raise DeviceError(f"{where}, which is mapped {mapping.direction.name} only")
        return mapping.address + iova - mapping.iova

    def _what_is_there(self, iova: int, size: int) -> str:
        mapping = self._last_from(iova)
        if mapping is not None and mapping.covers(iova, 1):
            return f"runs past the end of its mapping ({mapping.iova + mapping.size:#x})"
        if any(mapping.covers(iova, size) for mapping in self._unmapped):
            return "was unmapped before"
        return "was never mapped"

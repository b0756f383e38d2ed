"""The model's view of memory: an IOMMU that knows every mapping and says what was wrong.

A model reaches memory only through it, so a driver that hands out an address that it never mapped,
or that was unmapped, fails with the name of the register that carried the address. Memory is that
of this process (`map`), or a peer's (`attach`).
"""

from __future__ import annotations

import ctypes
import mmap
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from struct import Struct
from typing import Protocol

from uspace_drv.errors import DeviceError
from uspace_drv.models.turn import Turn
from uspace_drv.native import faults
from uspace_drv.port import BareDmaSpace, Direction, Iova, IovaRange

REMEMBERED = 64
"""Unmapped ranges that are still known by name when the device uses them."""

LAST = (1 << 64) - 1

ENTRY = Struct("=QQQQ")
"""One mapping as C reads it: `struct uspace_mapping` of uspace_drv.h."""


class Memory(Protocol):
    """Memory that a peer has given: shared, or reached by messages."""

    @property
    def address(self) -> int:
        """Where it lies in this process, as long as it is mapped; 0: it does not, or is gone."""

    def read(self, offset: int, size: int, /) -> bytes:
        """Bytes from `offset` of the mapping; exactly `size` of them."""

    def write(self, offset: int, data: bytes, /) -> None:
        """Put bytes there."""


class OwnMemory:
    """Memory of this process from a virtual address on."""

    __slots__ = ("address",)

    def __init__(self, address: int) -> None:
        self.address = address

    def read(self, offset: int, size: int) -> bytes:
        """Copy it."""
        return ctypes.string_at(self.address + offset, size)

    def write(self, offset: int, data: bytes) -> None:
        """Copy it there."""
        ctypes.memmove(self.address + offset, data, len(data))


GONE = OwnMemory(0)
"""In place of memory that was given back, so that nothing holds it."""


@dataclass(frozen=True, order=True)
class Mapping:
    """`size` bytes of memory that the device sees at `iova`."""

    iova: Iova
    size: int
    memory: Memory = field(compare=False)
    direction: Direction = field(compare=False)

    @property
    def end(self) -> int:
        """The IOVA after the last byte."""
        return self.iova + self.size

    def covers(self, iova: int, size: int) -> bool:
        """Whether all of that range lies inside."""
        return self.iova <= iova and iova + size <= self.end


class Iommu(BareDmaSpace):
    """Fills the port's `DmaSpace`; `read` and `write` are the device's side.

    `is_bus_master` says whether the function may reach memory at all. An unmap in one thread waits
    for the device's access in another, because the memory may go right after it: `turn` is held.
    `table` has the mappings as C reads them (`struct uspace_mapping` of uspace_drv.h), for a data
    path that holds the turn while it does.
    """

    faults = faults()
    """Counts in C what was cut off in this process; when it moves, `refresh` is wanted."""
    page_size = mmap.PAGESIZE
    entry_limit: int | None = None

    def __init__(self, name: str, is_bus_master: Callable[[], bool]) -> None:
        self.table = bytearray()
        self.turn = Turn()
        self.name = name
        self._is_bus_master = is_bus_master
        self._on_write: Callable[[int, int], None] | None = None
        self._mappings: list[Mapping] = []  # ascending, none overlaps another
        self._unmapped: deque[Mapping] = deque(maxlen=REMEMBERED)

    @property
    def ranges(self) -> Sequence[IovaRange] | None:
        """All but what a PC's IOMMU keeps for interrupts (Intel VT-d 4.1, section 3.14)."""
        return [IovaRange(0, 0xFEDF_FFFF), IovaRange(0xFEF0_0000, LAST)]

    @property
    def is_bus_master(self) -> bool:
        """Whether the device may reach memory at all."""
        return self._is_bus_master()

    @property
    def on_write(self) -> Callable[[int, int], None] | None:
        """Is called with IOVA and size of what the device has written, where a record is kept.

        While there is one, a data path leaves what writes to memory to Python.
        """
        return self._on_write

    @on_write.setter
    def on_write(self, record: Callable[[int, int], None] | None) -> None:
        with self.turn:
            self._on_write = record

    @property
    def mappings(self) -> Sequence[Mapping]:
        """What the device reaches now, ascending."""
        return tuple(self._mappings)

    def memory(self, size: int, reach: int) -> mmap.mmap:
        """Anonymous shared memory."""
        return mmap.mmap(-1, size)

    def map(self, address: int, size: int, iova: Iova | None, direction: Direction) -> Iova:
        """Show memory of this process to the device."""
        if iova is None:
            raise DeviceError(f"{self.name}: a mapping needs an IOVA")
        self.attach(iova, size, OwnMemory(address), direction)
        return iova

    def unmap(self, iova: Iova, size: int) -> None:
        """Take it away; type1v2 unmaps what was mapped, and nothing less."""
        with self.turn:
            mapping = self._last_from(iova)
            if mapping is None or (mapping.iova, mapping.size) != (iova, size):
                raise DeviceError(f"{self.name}: nothing of {size:#x} bytes is mapped at {iova:#x}")
            self._forget([mapping])

    def unmap_all(self) -> None:
        """Take everything away."""
        with self.turn:
            self._forget(list(self._mappings))

    def attach(self, iova: int, size: int, memory: Memory, direction: Direction) -> None:
        """Show somebody's memory to the device, as much as `size`; nothing may be there yet."""
        if size <= 0 or not 0 <= iova <= LAST + 1 - size:
            raise DeviceError(
                f"{self.name}: a mapping of {size:#x} bytes at IOVA {iova:#x}: expected 1 byte or "
                "more, and an end within 64 bits"
            )
        with self.turn:
            nearest = self._last_from(iova + size - 1)
            if nearest is not None and nearest.end > iova:
                raise DeviceError(f"{self.name}: IOVA {iova:#x} is mapped already")
            mapping = Mapping(Iova(iova), size, memory, direction)
            entry = ENTRY.pack(iova, size, memory.address, direction.value)
            insort(self._mappings, mapping)
            place = bisect_left(self._mappings, mapping) * ENTRY.size
            self.table[place:place] = entry

    def detach(self, iova: int, size: int) -> Sequence[Mapping]:
        """Take away everything inside of a range, and return it; a part of a mapping stays whole.

        Raises `DeviceError`, and changes nothing, where the range cuts a mapping.
        """
        with self.turn:
            nearest = self._last_from(iova)
            first = bisect_left(self._mappings, iova, key=lambda mapping: mapping.iova)
            if nearest is not None and nearest.iova < iova < nearest.end:
                first -= 1
            end = bisect_left(self._mappings, iova + size, key=lambda mapping: mapping.iova)
            found = self._mappings[first:end]
            for each in found:
                if each.iova < iova or each.end > iova + size:
                    raise DeviceError(
                        f"{self.name}: unmapping {size:#x} bytes at IOVA {iova:#x} would cut the "
                        f"mapping of {each.size:#x} bytes at {each.iova:#x}"
                    )
            self._forget(found)
            return found

    def refresh(self) -> None:
        """Ask each memory again where it lies: what a peer has cut off is no longer for C."""
        with self.turn:
            for place, each in enumerate(self._mappings):
                entry = each.iova, each.size, each.memory.address, each.direction.value
                ENTRY.pack_into(self.table, place * ENTRY.size, *entry)

    def read(self, iova: int, size: int, carrier: str) -> bytes:
        """What the device reads; `carrier` is the register that told it the address."""
        with self.turn:
            pieces = self._pieces(iova, size, Direction.TO_DEVICE, carrier)
            return b"".join(each.memory.read(offset, length) for each, offset, length in pieces)

    def write(self, iova: int, data: bytes, carrier: str) -> None:
        """What the device writes; `carrier` is the register that told it the address."""
        with self.turn:
            done = 0
            for each, offset, length in self._pieces(
                iova, len(data), Direction.FROM_DEVICE, carrier
            ):
                each.memory.write(offset, data[done : done + length])
                done += length
            if self._on_write is not None and data:
                self._on_write(iova, len(data))

    def check(self, iova: int, size: int, direction: Direction, carrier: str) -> None:
        """Raise what `read` (`Direction.TO_DEVICE`) or `write` would raise, and move nothing."""
        with self.turn:
            self._pieces(iova, size, direction, carrier)

    def _pieces(
        self, iova: int, size: int, direction: Direction, carrier: str
    ) -> list[tuple[Mapping, int, int]]:
        """Which mappings a range touches, and offset and size in each; all of it is checked first.

        An operating system's buffer may lie in several mappings of a peer, side by side. In this
        process one buffer is one mapping, and what runs past its end is an error.
        """
        where = f"{self.name}: {carrier} carried IOVA {iova:#x} for {size:#x} bytes"
        if not self._is_bus_master():
            raise DeviceError(f"{where}, but bus mastering is off")
        pieces: list[tuple[Mapping, int, int]] = []
        at, end = iova, iova + size
        while at < end or not pieces:
            mapping = self._last_from(at)
            if mapping is None or not mapping.covers(at, min(1, size)):
                raise DeviceError(f"{where}, which {self._what_is_there(iova, size)}")
            if isinstance(mapping.memory, OwnMemory) and not mapping.covers(iova, size):
                raise DeviceError(f"{where}, which {self._what_is_there(iova, size)}")
            if direction not in mapping.direction:
                raise DeviceError(f"{where}, which is mapped {mapping.direction.name} only")
            length = min(end, mapping.end) - at
            pieces.append((mapping, at - mapping.iova, length))
            at += length
        return pieces

    def _last_from(self, iova: int) -> Mapping | None:
        """The last mapping that begins there or before."""
        place = bisect_right(self._mappings, iova, key=lambda mapping: mapping.iova)
        return self._mappings[place - 1] if place else None

    def _forget(self, mappings: Sequence[Mapping]) -> None:
        """Drop some that lie side by side."""
        if mappings:
            place = bisect_left(self._mappings, mappings[0])
            del self._mappings[place : place + len(mappings)]
            del self.table[place * ENTRY.size : (place + len(mappings)) * ENTRY.size]
        self._unmapped.extend(replace(each, memory=GONE) for each in mappings[-REMEMBERED:])

    def _what_is_there(self, iova: int, size: int) -> str:
        mapping = self._last_from(iova)
        if mapping is not None and mapping.covers(iova, 1):
            return f"runs past the end of its mapping ({mapping.end:#x})"
        if any(mapping.covers(iova, size) for mapping in self._unmapped):
            return "was unmapped before"
        return "was never mapped"

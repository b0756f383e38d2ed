"""The MSI-X table and pending bits of a model, as they lie in one of its BARs.

PCI Express Base Specification 6.0, section 7.7.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from uspace_drv.errors import LayoutError
from uspace_drv.models.bars import Bar, free_bar
from uspace_drv.models.capabilities import Msix
from uspace_drv.models.space import Space
from uspace_drv.pci.capability_registers import MsixVector, VectorControl

MASKED = VectorControl(mask=True)
OWN_BAR_LEAST = 4096
"""A page of its own, so that a host can map what else the function has."""


class MsixTable:
    """Vectors that software programs, and bits of those that wait behind a mask.

    After a reset every vector is masked. `place` says where both are.
    """

    def __init__(self, place: Msix, count: int, turn: AbstractContextManager[Any]) -> None:
        self.place = place
        self.count = count
        self._vectors = Space(_table_size(count), turn)
        self._pending = Space(_pending_size(count), turn)
        for index in range(count):
            base = index * MsixVector.SIZE
            self._vectors.put(MsixVector.message_address, 0, writable=0xFFFF_FFFC, base=base)
            self._vectors.put(MsixVector.message_upper_address, 0, writable=0xFFFF_FFFF, base=base)
            self._vectors.put(MsixVector.message_data, 0, writable=0xFFFF_FFFF, base=base)
            self._vectors.put(MsixVector.vector_control, MASKED, writable=MASKED, base=base)

    def on_change(self, react: Callable[[], None]) -> None:
        """Call `react` after software has written a vector's control."""
        for index in range(self.count):
            self._vectors.watch(MsixVector.vector_control, react, index * MsixVector.SIZE)

    def is_masked(self, index: int) -> bool:
        """Whether software holds back a vector."""
        return self._vectors.has(MsixVector.vector_control, MASKED.raw, index * MsixVector.SIZE)

    def set_masked(self, index: int, masked: bool) -> None:
        """Hold it back, or not, as a host's kernel does when a driver asks for a vector."""
        control = VectorControl(mask=masked)
        self._vectors.set(MsixVector.vector_control, control, index * MsixVector.SIZE)

    def set_pending(self, index: int, pending: bool) -> None:
        """Let a message wait, or not."""
        byte = self._pending.read(index // 8, 1) & ~(1 << index % 8)
        self._pending.put_bytes(index // 8, bytes([byte | pending << index % 8]))

    def space_at(self, bar: int, offset: int) -> tuple[Space, int] | None:
        """What lies at a place of a BAR, if it is a part of this, and the offset in it."""
        if bar == self.place.bar:
            for space, start in self._spaces():
                if start <= offset < start + space.size:
                    return space, offset - start
        return None

    def reset(self) -> None:
        """Mask all, and let nothing wait."""
        self._vectors.reset()
        for index in range(self.count):
            self.set_pending(index, False)

    def _spaces(self) -> tuple[tuple[Space, int], tuple[Space, int]]:
        return (self._vectors, self.place.table), (self._pending, self.place.pending or 0)


def place_msix(
    declared: Msix, count: int, bars: Mapping[int, Bar]
) -> tuple[Msix, Mapping[int, Bar]]:
    """Where table and pending bits are, and the BARs with the one that was made for them."""
    table_size, pending_size = _table_size(count), _pending_size(count)
    if declared.bar is None:
        half = max(OWN_BAR_LEAST // 2, 1 << (table_size - 1).bit_length())
        number = free_bar(bars.items())
        return Msix(number, 0, half), {**bars, number: Bar(size=2 * half)}
    pending = declared.table + table_size if declared.pending is None else declared.pending
    spans = (declared.table, table_size), (pending, pending_size)
    bar = bars.get(declared.bar)
    if bar is None:
        raise LayoutError(f"{declared}: there is no BAR {declared.bar}")
    first = bar.registers.SIZE if bar.registers else 0
    for start, size in spans:
        shared = any(area.offset < start + size and start < area.end for area in bar.memory)
        if start % 8 or start < first or start + size > bar.size or shared:
            raise LayoutError(
                f"{declared}: {size:#x} bytes at {start:#x} of BAR {declared.bar}; expected a "
                f"multiple of 8 from {first:#x} up to {bar.size:#x}, outside of its memory"
            )
    if declared.table < pending + pending_size and pending < declared.table + table_size:
        raise LayoutError(f"{declared}: the pending bits lie in the table of {table_size:#x} bytes")
    return replace(declared, pending=pending), bars


def _table_size(count: int) -> int:
    return count * MsixVector.SIZE


def _pending_size(count: int) -> int:
    return -(-count // 64) * 8

"""Bytes that software programs: some can be written, some are cleared by ones, some are watched.

Configuration space and the MSI-X table of a model are made of it, by the same register tables that
read those of a real device.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, SupportsInt, TypeVar

from uspace_drv.registers import Declaration

T = TypeVar("T")

ALL_ONES = (1 << 64) - 1
"""What a bus reads where nobody answers."""


class Space:
    """`size` bytes; `put` declares what they hold after a reset and what of it can be changed.

    `turn` is the lock that a write and what watches it hold: that of the model.
    """

    def __init__(self, size: int, turn: AbstractContextManager[Any] | None = None) -> None:
        self.size = size
        self._turn = turn or threading.RLock()
        self._data = bytearray(size)
        self._after_reset = bytearray(size)
        self._writable = bytearray(size)
        self._clearable = bytearray(size)
        self._watchers: list[tuple[int, int, Callable[[], None]]] = []

    def put(
        self,
        register: Declaration[Any, Any],
        value: SupportsInt,
        *,
        writable: SupportsInt = 0,
        clearable: SupportsInt = 0,
        base: int = 0,
    ) -> None:
        """Declare a register: its value after a reset, and which bits can be changed and how."""
        size, offset = register.width // 8, base + register.offset
        images = (self._after_reset, self._writable, self._clearable)
        for image, bits in zip(images, (value, writable, clearable), strict=True):
            image[offset : offset + size] = int(bits).to_bytes(size, "little")
        self._data[offset : offset + size] = self._after_reset[offset : offset + size]

    def put_bytes(self, offset: int, data: bytes) -> None:
        """Declare bytes that nobody can write."""
        self._after_reset[offset : offset + len(data)] = data
        self._data[offset : offset + len(data)] = data

    def get(self, register: Declaration[Any, T], base: int = 0) -> T:
        """What a register holds."""
        return register.decode(self.read(base + register.offset, register.width // 8))

    def set(self, register: Declaration[Any, Any], value: SupportsInt, base: int = 0) -> None:
        """Make a register hold a value, be it one that software cannot write."""
        size, offset = register.width // 8, base + register.offset
        self._data[offset : offset + size] = int(value).to_bytes(size, "little")

    def has(self, register: Declaration[Any, Any], bits: int, base: int = 0) -> bool:
        """Whether any of some bits is set: quicker than decoding the register."""
        start = base + register.offset
        held = self._data[start : start + register.width // 8]
        return int.from_bytes(held, "little") & bits != 0

    def watch(
        self, register: Declaration[Any, Any], react: Callable[[], None], base: int = 0
    ) -> None:
        """Call `react` after each write that touches a register."""
        offset = base + register.offset
        self._watchers.append((offset, offset + register.width // 8, react))

    def read(self, offset: int, width: int) -> int:
        """What `width` bytes hold; all ones past the end."""
        if not 0 <= offset <= self.size - width:
            return ALL_ONES >> (64 - 8 * width)
        return int.from_bytes(self._data[offset : offset + width], "little")

    def write(self, offset: int, width: int, value: int) -> None:
        """Change the bits that can be written, and no others."""
        if not 0 <= offset <= self.size - width:
            return
        with self._turn:
            for place, byte in enumerate(value.to_bytes(width, "little"), offset):
                mask = self._writable[place]
                kept = self._data[place] & ~(byte & self._clearable[place])
                self._data[place] = kept & ~mask | byte & mask
            for start, end, react in self._watchers:
                if offset < end and start < offset + width:
                    react()

    def reset(self) -> None:
        """Go back to what was declared; nobody who watches is called."""
        self._data[:] = self._after_reset

"""BARs of a model: registers that react, plain memory that a peer may map, or both in one.

PCI Express Base Specification 6.0, section 7.5.1.2.1 (Base Address Registers).
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from uspace_drv.errors import LayoutError, UnsupportedError
from uspace_drv.native import Window
from uspace_drv.registers import RegisterBlock


class BarKind(Enum):
    """Where a BAR is placed, and the number of bytes that it has at least."""

    MEMORY = "memory"
    MEMORY_64 = "memory, 64 bits"
    PORTS = "I/O ports"


SMALLEST = {BarKind.MEMORY: 16, BarKind.MEMORY_64: 16, BarKind.PORTS: 4}
LARGEST = {BarKind.MEMORY: 1 << 31, BarKind.MEMORY_64: 1 << 63, BarKind.PORTS: 256}


@dataclass(frozen=True)
class Area:
    """Whole pages of a BAR that are plain memory: a client may map them."""

    offset: int
    size: int

    @property
    def end(self) -> int:
        """The offset after the last byte."""
        return self.offset + self.size


@dataclass(frozen=True)
class Bar:
    """A BAR of `size` bytes (a power of two).

    It begins with a table of registers, if there is one; `memory` lists the pages that are plain
    memory. What is neither is the model's `read_other` and `write_other`.
    """

    registers: type[RegisterBlock] | None = None
    size: int = 0
    memory: tuple[Area, ...] = ()
    kind: BarKind = BarKind.MEMORY
    prefetchable: bool = False

    def __post_init__(self) -> None:
        name = self.registers.__name__ if self.registers else "no registers"
        least = max(self._table_size, SMALLEST[self.kind])
        most = LARGEST[self.kind]
        if not least <= self.size <= most or self.size & (self.size - 1):
            raise LayoutError(
                f"a BAR of {self.size:#x} bytes for {name} ({self._table_size:#x}): expected a "
                f"power of two that holds it, from {SMALLEST[self.kind]} up to {most:#x}"
            )
        self._check_areas()

    @property
    def is_memory(self) -> bool:
        """Whether it lies in memory space, and not among the I/O ports."""
        return self.kind is not BarKind.PORTS

    def holds(self, offset: int, size: int) -> bool:
        """Whether these bytes are plain memory."""
        return any(area.offset <= offset and offset + size <= area.end for area in self.memory)

    @property
    def _table_size(self) -> int:
        return self.registers.SIZE if self.registers else 0

    def _check_areas(self) -> None:
        end = self._table_size
        for area in self.memory:
            if not self.is_memory:
                raise LayoutError("a BAR of I/O ports has no memory that could be mapped")
            if (area.offset | area.size) % mmap.PAGESIZE or area.size <= 0:
                raise LayoutError(f"{area} is not made of whole pages of {mmap.PAGESIZE:#x} bytes")
            if area.offset < end or area.end > self.size:
                raise LayoutError(
                    f"{area}: expected one from {end:#x} (after the registers and the area before) "
                    f"up to the end of the BAR ({self.size:#x})"
                )
            end = area.end


class BarView:
    """A BAR as clients see it: size, kind, and the file that holds its memory.

    The file is made when it is first asked for, and lives until `close()`; memory is zero then.
    """

    def __init__(self, bar: Bar, name: str) -> None:
        self.bar = bar
        self.name = name
        self.size = bar.size
        self.is_memory = bar.is_memory
        self.areas = bar.memory
        self._fd = -1
        self._window: Window | None = None

    @property
    def is_all_memory(self) -> bool:
        """Whether every byte of it is plain memory."""
        return self.areas == (Area(0, self.size),)

    @property
    def fd(self) -> int:
        """The file that holds the areas; an offset in the BAR is an offset in the file.

        Nobody can make it shorter or longer. Whoever was given it may keep what it has mapped of
        it, after it has left too. `UnsupportedError` where there is no memory.
        """
        if not self.areas:
            raise UnsupportedError(f"{self.name}: no part of it is memory, so there is no file")
        if self._fd < 0:
            self._fd = sealed_file(self.name, self.size)
        return self._fd

    @property
    def window(self) -> Window:
        """The model's own view of that file."""
        if self._window is None:
            self._window = Window.map(self.name, self.fd, 0, self.size)
        return self._window

    def read(self, offset: int, width: int) -> int:
        """Load from the memory of an area."""
        return getattr(self.window, f"read{8 * width}")(offset)  # type: ignore[no-any-return]

    def write(self, offset: int, width: int, value: int) -> None:
        """Store to the memory of an area."""
        getattr(self.window, f"write{8 * width}")(offset, value)

    def close(self) -> None:
        """Give the memory back. Twice is fine; using it again makes a new one."""
        if self._window is not None:
            self._window.close()
            self._window = None
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def sealed_file(name: str, size: int) -> int:
    """Shared memory whose size stays as it is, whoever else is given the descriptor."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd


def free_bar(bars: Iterable[tuple[int, Bar]]) -> int:
    """The first BAR number that nobody has; the upper half of a 64-bit BAR is taken too."""
    taken: set[int] = set()
    for number, bar in bars:
        taken |= {number, number + 1} if bar.kind is BarKind.MEMORY_64 else {number}
    for number in range(6):
        if number not in taken:
            return number
    raise LayoutError("no BAR is left for the MSI-X table; say msix = Msix(bar=…, table=…)")

"""Memory that the device reaches: numpy arrays with an IOVA, and the order in which it sees them.

The C memory model of the kernel's documentation (Documentation/memory-barriers.txt, "Kernel I/O
barrier effects") in two verbs: `publish` makes descriptors visible ahead of the doorbell, `collect`
reads an index ahead of the entries that it covers.
"""

from __future__ import annotations

import logging
import math
import mmap
from collections.abc import Callable
from operator import index
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Self, TypeVar

from uspace_drv.dma_memory import (
    check_array,
    huge_memory,
    huge_page_advice,
    map_file_here,
    plain_dtype,
)
from uspace_drv.errors import ClosedError, HostError, RegisterValueError, UnsupportedError
from uspace_drv.huge_pages import HUGE_PAGE
from uspace_drv.iova import IovaAllocator
from uspace_drv.native import DmaMapping, DmaTable, full_barrier, read_barrier, write_barrier
from uspace_drv.port import Direction, DmaCalls, DmaSpace, HasDmaCalls, Iova

# numpy takes as long to load as all the rest, and who serves a model needs no arrays.
if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_log = logging.getLogger(__name__)

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Doorbell(Protocol[T_contra]):
    """Anything with a `write` that is one store: a writable register."""

    def write(self, value: T_contra, /) -> None:
        """Store."""


def publish(doorbell: Doorbell[T], value: T) -> None:
    """Ring `doorbell` after everything that was stored to memory before this call."""
    write_barrier()
    doorbell.write(value)


def collect(read_index: Callable[[], T], *, after_stores: bool = False) -> T:
    """Read an index, and nothing that comes after this call before it.

    `after_stores`: nor the index before all that was stored ahead of this call is seen by others.
    A driver that has asked in memory to be interrupted, and looks once more before it sleeps, needs
    that: else device and driver could each look before they see what the other has stored.
    """
    if after_stores:
        full_barrier()
    found = read_index()
    read_barrier()
    return found


class DmaBuffer(DmaMapping):
    """A numpy array that the device reaches at `iova`, until `close()`.

    `array` has the dtype and shape asked for, C-contiguous; it may outlive the buffer and is then
    ordinary memory. `size` is in bytes, as the array has them; `direction` says what the device
    may do; `page_size` is the size in bytes of the memory's pages, huge ones or ordinary ones.
    """

    __slots__ = ()  # nothing of its own, so that one is made and freed as fast as the C type

    def at(self, offset: int) -> Iova:
        """The device's address of the byte at `offset`, checked against the size."""
        if not 0 <= offset < self.size:
            raise RegisterValueError(
                f"offset {offset:#x} is outside of the DMA buffer ({self.size:#x} bytes)"
            )
        return Iova(self.iova + offset)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        where = "closed" if self.closed else f"IOVA {self.last_iova:#x}"
        return f"<DmaBuffer {where}, {self.size:#x} bytes, {self.direction.name}>"

    def _refuse_closed(self) -> NoReturn:
        raise ClosedError(f"the DMA buffer at IOVA {self.last_iova:#x} is closed")

    def _refuse_array(self) -> NoReturn:
        raise UnsupportedError(
            f"the DMA buffer at IOVA {self.last_iova:#x} is a file's memory, and this process "
            "cannot map that file"
        )


class Dma(DmaTable[DmaBuffer]):
    """The DMA memory of one device (`device.dma`): what it has mapped, and where.

    `dma_bits` is how many address bits the device drives; `name` is for errors; `check_alive` says
    why the device was left, if it was not its driver that left it. Mapping an array
    (`map`) and closing a buffer are in C, in `uspace_drv.native.DmaTable`, and cost little more
    than the kernel's own work; so does `close`, which takes everything away in one call.
    """

    def __init__(
        self,
        space: DmaSpace,
        name: str,
        dma_bits: int,
        check_alive: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self._check_alive = check_alive
        self._space = space
        self._reach = (1 << dma_bits) - 1
        self._limit = space.entry_limit
        self._page = space.page_size
        ranges = space.ranges
        self._iovas = (
            None if ranges is None else IovaAllocator(ranges, self._page, self._reach, name)
        )
        super().__init__(
            space,
            self._iovas,
            DmaBuffer,
            (Direction.TO_DEVICE, Direction.FROM_DEVICE, Direction.BOTH),
            self._page,
            self._reach,
            -1 if self._limit is None else self._limit,
            space.dma_calls if isinstance(space, HasDmaCalls) else DmaCalls(),
        )

    def alloc(
        self,
        dtype: npt.DTypeLike,
        count: int | tuple[int, ...] = 1,
        direction: Direction = Direction.BOTH,
        *,
        huge_pages: bool = False,
    ) -> DmaBuffer:
        """Map new zeroed memory: an array of `count` items (or of that shape) of `dtype`.

        With `huge_pages`, in pages of 2 MiB, which an IOMMU translates with fewer steps. Where the
        host has none free the memory is ordinary: a warning in the log says so and how to get
        them, and `buffer.page_size` tells. Raises `HostError` where there is no memory, no IOVA or
        no right to pin it, `RegisterValueError` for a dtype or count that makes no memory.
        """
        import numpy as np  # noqa: PLC0415 - see above

        item = plain_dtype(dtype, self.name)
        shape = tuple(map(index, count if isinstance(count, tuple) else (count,)))
        size = math.prod(shape) * item.itemsize
        if size <= 0 or min(shape, default=1) < 0:
            raise RegisterValueError(f"{self.name}: a DMA buffer of {count!r} items has no memory")
        memory, page = self._memory(size, huge_pages)
        array = np.ndarray(shape, item, memory)
        self._require_direction(direction)
        # All of a huge page is its buffer's own; only so can it be mapped as one, at an IOVA that
        # is as far into a huge page as the memory (`IovaAllocator.alloc`).
        shown = array.nbytes if page == self._page else len(memory)
        return self._map_checked(
            array, direction, array.ctypes.data, array.nbytes, shown, page, None
        )

    def map_file(
        self, fd: int, size: int, offset: int = 0, direction: Direction = Direction.BOTH
    ) -> DmaBuffer:
        """Map `size` bytes of a memfd or dma-buf from `offset` on; the descriptor stays yours.

        `array` is bytes (uint8), where this process can map the file too. By the file itself where
        the way in has that, else by the address that the file's memory has here. Offset and size
        are multiples of the page. Raises `HostError` where the kernel refuses, and
        `UnsupportedError` where neither is possible.
        """
        self._require_direction(direction)
        if size <= 0 or offset < 0 or (size | offset) % self._page:
            raise RegisterValueError(
                f"{self.name}: {size:#x} bytes from {offset:#x} on: expected multiples of the page "
                f"({self._page:#x})"
            )
        array = map_file_here(fd, offset, size, self.name)

        def by_file(_: int, size: int, iova: Iova | None, direction: Direction) -> Iova:
            return self._space.map_file(fd, offset, size, iova, direction)

        try:
            return self._map_checked(array, direction, offset, size, size, self._page, by_file)
        except UnsupportedError:
            if array is None:
                raise
            return self.map(array, direction)

    def start_dirty_tracking(self) -> None:
        """From now on have the host remember which pages the device writes.

        Raises `UnsupportedError`, with what it would take, where the host cannot.
        """
        self._space.start_dirty_tracking()

    def stop_dirty_tracking(self) -> None:
        """Forget it."""
        self._space.stop_dirty_tracking()

    def dirty_pages(self, buffer: DmaBuffer) -> npt.NDArray[np.bool_]:
        """Which pages of a buffer the device has written since the last call: one bool for each.

        True may also mean that the host does not know: type1 says it of every page that it pinned.
        """
        import numpy as np  # noqa: PLC0415 - see above

        count = -(-buffer.size // self._page)
        mapped = -(-buffer.size // buffer.page_size) * buffer.page_size  # a host wants whole ones
        bitmap = self._space.dirty_pages(Iova(buffer.iova), mapped)
        bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little")
        return bits[:count].astype(np.bool_)

    def _memory(self, size: int, huge_pages: bool) -> tuple[mmap.mmap, int]:
        """Memory, and the size of its pages."""
        if self._closed:
            self._refuse_closed()
        if huge_pages and (memory := self._huge_memory(size)) is not None:
            return memory, HUGE_PAGE
        try:
            return self._space.memory(-(-size // self._page) * self._page, self._reach), self._page
        except HostError:
            raise
        except (OSError, OverflowError) as error:
            reason = f"{self.name}: this machine has no {size:#x} bytes of memory to give: {error}"
            raise HostError(reason) from error

    def _huge_memory(self, size: int) -> mmap.mmap | None:
        """Huge pages, or None and a warning."""
        if not isinstance(self._space, HasDmaCalls):
            reason = "huge pages are for memory that the kernel maps (VFIO): took ordinary ones"
            _log.warning("%s: %s", self.name, reason)
            return None
        memory = huge_memory(size)
        if memory is None:
            _log.warning("%s: %s", self.name, huge_page_advice(size))
        return memory

    def _check(
        self, array: npt.NDArray[Any], direction: Direction
    ) -> tuple[int, int, type[npt.NDArray[Any]]]:
        """Address and size in bytes of an array that may be mapped; asked by the C side.

        And the type whose instances the C side may look into: no class that is derived from it.
        """
        import numpy as np  # noqa: PLC0415 - see above

        self._require_direction(direction)
        check_array(array, direction, self._page, self.name)
        return array.ctypes.data, array.nbytes, np.ndarray

    def _require_direction(self, direction: Direction) -> None:
        if not direction:
            raise RegisterValueError(f"{self.name}: memory that the device may not use at all")

    def _let_go(self, buffer: DmaBuffer) -> NoReturn:
        buffer.close()
        raise UnsupportedError(
            f"{self.name}: the memory is at {buffer.last_iova:#x}, past the device's reach "
            f"{self._reach:#x}"
        )

    def _refuse_more(self) -> NoReturn:
        raise HostError(
            f"{self.name}: {len(self.buffers)} DMA mappings, and the kernel allows {self._limit}; "
            "close some, or map fewer and larger ones"
        )

    def _refuse_closed(self) -> NoReturn:
        self._check_alive()
        raise ClosedError(f"{self.name}: its DMA memory was unmapped when the device was left")

"""DMA memory that the queues of one controller may show to it, and buffers to bounce through.

NVMe Base Specification 1.4, section 4.3: data is described by the IOVAs of pages of memory.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Self

from uspace_drivers.nvme.engine.hot import Memory
from uspace_drv import Device, Direction, DmaBuffer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike, NDArray

SLAB = 256 << 10
"""The least that a pool of bounce buffers maps at a time, in bytes."""


class SharedBuffer:
    """A numpy array that the controller reaches at `iova`: reads and writes of it copy nothing.

    `array` has the dtype and shape asked for; `close()` takes it away from the controller, after
    which it is ordinary memory. Close it when nothing is in flight that uses it.
    """

    def __init__(self, memory: DmaMemory, buffer: DmaBuffer) -> None:
        self._memory = memory
        self._buffer = buffer
        self.array: NDArray[Any] = buffer.array
        self.iova = int(buffer.iova)
        self.size = buffer.size

    @property
    def closed(self) -> bool:
        """Whether it was taken away, by `close()` or because the device was left."""
        return self._buffer.closed

    def close(self) -> None:
        """Take it away from the controller. Twice is fine."""
        self._memory.forget(self)
        self._buffer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        where = "closed" if self.closed else f"IOVA {self.iova:#x}"
        return f"<SharedBuffer {where}, {self.size:#x} bytes>"


class DmaMemory:
    """What one controller reaches: `alloc` gives memory, `table` tells the engine where it is."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._buffers: dict[int, SharedBuffer] = {}
        self.table = Memory()
        """Asked by the queues for the IOVA of an array."""

    def alloc(
        self,
        dtype: DTypeLike,
        count: int | tuple[int, ...] = 1,
        direction: Direction = Direction.BOTH,
        *,
        huge_pages: bool = False,
    ) -> SharedBuffer:
        """Map new zeroed memory, as `device.dma.alloc` does, for data of commands."""
        dma = self._device.dma
        return self._share(dma.alloc(dtype, count, direction, huge_pages=huge_pages))

    def map(self, array: NDArray[Any], direction: Direction = Direction.BOTH) -> SharedBuffer:
        """Map an array of whole pages that is there already, as `device.dma.map` does."""
        return self._share(self._device.dma.map(array, direction))

    def forget(self, buffer: SharedBuffer) -> None:
        """Let the queues no longer find it."""
        if self._buffers.get(buffer.iova) is buffer:
            del self._buffers[buffer.iova]
            self.table.remove(buffer.iova)

    def close(self) -> None:
        """Take everything away. Twice is fine."""
        for buffer in tuple(self._buffers.values()):
            buffer.close()

    def _share(self, mapped: DmaBuffer) -> SharedBuffer:
        buffer = SharedBuffer(self, mapped)
        self.table.add(buffer.array, buffer.iova)
        self._buffers[buffer.iova] = buffer
        return buffer


class Bounce:
    """Page-aligned DMA buffers for data that lies elsewhere; they are kept and used again.

    Sizes are rounded up to a power of two. It belongs to one thread.
    """

    def __init__(self, memory: DmaMemory, page_size: int) -> None:
        self._memory = memory
        self._page_size = page_size
        self._slabs: list[SharedBuffer] = []
        self._free: defaultdict[int, list[NDArray[np.uint8]]] = defaultdict(list)

    @property
    def is_used(self) -> bool:
        """Whether anything ever had to be copied."""
        return bool(self._slabs)

    def take(self, size: int) -> NDArray[np.uint8]:
        """At least `size` bytes that nobody else has until `give`."""
        step = self._step(size)
        free = self._free[step]
        if not free:
            slab = self._memory.alloc("u1", max(step, SLAB))
            self._slabs.append(slab)
            free.extend(slab.array[start : start + step] for start in range(0, slab.size, step))
        return free.pop()

    def free(self, size: int) -> list[NDArray[np.uint8]]:
        """Pieces that `take` would choose from, the next one last."""
        return list(self._free[self._step(size)])

    def give(self, piece: NDArray[np.uint8]) -> None:
        """Take it back, as `take` gave it, once the controller has answered."""
        self._free[piece.nbytes].append(piece)

    def close(self) -> None:
        """Unmap them all."""
        self._free.clear()
        while self._slabs:
            self._slabs.pop().close()

    def _step(self, size: int) -> int:
        return max(self._page_size, 1 << (size - 1).bit_length())

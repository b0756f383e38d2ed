"""Memory that the device reaches: numpy arrays with an IOVA, and the order in which it sees them.

The C memory model of the kernel's documentation (Documentation/memory-barriers.txt, "Kernel I/O
barrier effects") in two verbs: `publish` makes descriptors visible ahead of the doorbell, `collect`
reads an index ahead of the entries that it covers.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Sequence
from operator import index
from threading import RLock
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from uspace_drv.errors import ClosedError, HostError, RegisterValueError, UnsupportedError
from uspace_drv.iova import IovaAllocator
from uspace_drv.native import read_barrier, write_barrier
from uspace_drv.port import Direction, DmaSpace, Iova
from uspace_drv.teardown import Teardown

# numpy takes as long to load as all the rest, and who serves a model needs no arrays.
if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

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


def collect(read_index: Callable[[], T]) -> T:
    """Read an index, and nothing that comes after this call before it."""
    found = read_index()
    read_barrier()
    return found


class DmaBuffer:
    """A numpy array that the device reaches at `iova`, until `close()`.

    `array` has the dtype and shape asked for, C-contiguous; it may outlive the buffer and is then
    ordinary memory. `size` is in bytes, as the array has them; `direction` says what the device
    may do.
    """

    def __init__(
        self,
        array: npt.NDArray[Any],
        iova: Iova,
        direction: Direction,
        unmap: Callable[[DmaBuffer], None],
    ) -> None:
        self._array = array
        self.size = array.nbytes
        self.direction = direction
        self._iova = iova
        self._unmap = unmap
        self._closed = False

    @property
    def array(self) -> npt.NDArray[Any]:
        """The memory; while the device reaches it, the buffer keeps it alive."""
        return self._array

    @property
    def iova(self) -> Iova:
        """The address of the first byte for the device; `ClosedError` once it has none."""
        if self._closed:
            raise ClosedError(f"the DMA buffer at IOVA {self._iova:#x} is closed")
        return self._iova

    def at(self, offset: int) -> Iova:
        """The device's address of the byte at `offset`, checked against the size."""
        if not 0 <= offset < self.size:
            raise RegisterValueError(
                f"offset {offset:#x} is outside of the DMA buffer ({self.size:#x} bytes)"
            )
        return Iova(self.iova + offset)

    @property
    def closed(self) -> bool:
        """Whether the device has lost its access."""
        return self._closed

    def close(self) -> None:
        """Take the memory away from the device, at once. Twice is fine."""
        if not self._closed:
            self._closed = True
            self._unmap(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        where = "closed" if self._closed else f"IOVA {self._iova:#x}"
        return f"<DmaBuffer {where}, {self.size:#x} bytes, {self.direction.name}>"


class Dma:
    """The DMA memory of one device (`device.dma`): what it has mapped, and where.

    `dma_bits` is how many address bits the device drives; `name` is for errors.
    """

    def __init__(self, space: DmaSpace, name: str, dma_bits: int) -> None:
        self.name = name
        self._space = space
        self._reach = (1 << dma_bits) - 1
        ranges = space.ranges
        self._iovas = (
            None if ranges is None else IovaAllocator(ranges, space.page_size, self._reach, name)
        )
        # By buffer and not by IOVA: memory that is mapped twice by physical address has one IOVA.
        self._buffers: dict[DmaBuffer, int] = {}
        self._closed = False
        self._turn = RLock()  # so that nothing is mapped behind the back of `close`

    @property
    def buffers(self) -> Sequence[DmaBuffer]:
        """The buffers that the device reaches now, oldest first."""
        return tuple(self._buffers)

    def alloc(
        self,
        dtype: npt.DTypeLike,
        count: int | tuple[int, ...] = 1,
        direction: Direction = Direction.BOTH,
    ) -> DmaBuffer:
        """Map new zeroed memory: an array of `count` items (or of that shape) of `dtype`."""
        import numpy as np  # noqa: PLC0415 - see above

        item = _plain(dtype, self.name)
        shape = tuple(map(index, count if isinstance(count, tuple) else (count,)))
        size = math.prod(shape) * item.itemsize
        if size <= 0 or min(shape, default=1) < 0:
            raise RegisterValueError(f"{self.name}: a DMA buffer of {count!r} items has no memory")
        memory = self._memory(self._in_pages(size))
        return self._map(np.ndarray(shape, item, memory), direction)

    def map(self, array: npt.NDArray[Any], direction: Direction = Direction.BOTH) -> DmaBuffer:
        """Map an existing array, without a copy.

        It must be C-contiguous and own whole pages, because the device is shown whole pages: the
        array of a closed buffer does, and so does one over an `mmap`.
        """
        _check_mappable(array, self._space.page_size, self.name)
        if Direction.FROM_DEVICE in direction and not array.flags.writeable:
            raise RegisterValueError(
                f"{self.name}: the array is read-only, and the device would write to it; "
                "map it with Direction.TO_DEVICE"
            )
        return self._map(array, direction)

    def close(self) -> None:
        """Unmap everything. Twice is fine."""
        way_out = Teardown()
        with self._turn:
            self._closed = True
            for buffer in self.buffers:
                way_out.push(f"unmap {buffer!r}", buffer.close)
            way_out.run()

    def _memory(self, size: int) -> mmap.mmap:
        self._check_open()
        try:
            return self._space.memory(size, self._reach)
        except HostError:
            raise
        except (OSError, OverflowError) as error:
            reason = f"{self.name}: this machine has no {size:#x} bytes of memory to give: {error}"
            raise HostError(reason) from error

    def _map(self, array: npt.NDArray[Any], direction: Direction) -> DmaBuffer:
        if not direction:
            raise RegisterValueError(f"{self.name}: memory that the device may not use at all")
        with self._turn:
            self._check_open()
            return self._map_in_turn(array, direction)

    def _map_in_turn(self, array: npt.NDArray[Any], direction: Direction) -> DmaBuffer:
        limit = self._space.entry_limit
        if limit is not None and len(self._buffers) >= limit:
            raise HostError(
                f"{self.name}: {len(self._buffers)} DMA mappings, and the kernel allows {limit}; "
                "close some, or map fewer and larger ones"
            )
        size = self._in_pages(array.nbytes)
        wanted = self._iovas.take(size) if self._iovas else None
        try:
            iova = self._space.map(array.ctypes.data, size, wanted, direction)
        except BaseException:
            if self._iovas and wanted is not None:
                self._iovas.give_back(wanted, size)
            raise
        buffer = DmaBuffer(array, iova, direction, self._unmap)
        self._buffers[buffer] = size
        if iova + size - 1 > self._reach:
            buffer.close()
            raise UnsupportedError(
                f"{self.name}: the memory is at {iova:#x}, past the device's reach {self._reach:#x}"
            )
        return buffer

    def _unmap(self, buffer: DmaBuffer) -> None:
        with self._turn:
            size = self._buffers.pop(buffer, None)
            if size is None:  # another thread closes it too
                return
            self._space.unmap(buffer._iova, size)
            if self._iovas:
                self._iovas.give_back(buffer._iova, size)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"{self.name}: its DMA memory was unmapped when the device was left")

    def _in_pages(self, size: int) -> int:
        page = self._space.page_size
        return -(-size // page) * page


def _plain(dtype: npt.DTypeLike, name: str) -> np.dtype[Any]:
    """The dtype, if its items are all in the array: a pointer would mean nothing to the device."""
    import numpy as np  # noqa: PLC0415 - see above

    try:
        item = np.dtype(dtype)
    except (TypeError, ValueError) as error:
        raise RegisterValueError(f"{name}: {dtype!r} is no dtype of numpy: {error}") from error
    if item.hasobject:
        raise RegisterValueError(f"{name}: {item} holds Python objects, which no device can read")
    return item


def _check_mappable(array: npt.NDArray[Any], page: int, name: str) -> None:
    cure = "use dma.alloc(), or an array over an mmap"
    _plain(array.dtype, name)
    if not array.flags.c_contiguous or array.nbytes == 0:
        raise RegisterValueError(f"{name}: only a C-contiguous array with memory can be mapped")
    if array.ctypes.data % page:
        raise RegisterValueError(
            f"{name}: the array starts {array.ctypes.data % page:#x} bytes into a page, and its "
            f"neighbours there would be shown to the device; {cure}"
        )
    if array.nbytes % page and not isinstance(_owner(array), mmap.mmap):
        raise RegisterValueError(
            f"{name}: the array ends {array.nbytes % page:#x} bytes into a page, and what follows "
            f"would be shown to the device; {cure}"
        )


def _owner(array: npt.NDArray[Any]) -> object:
    """Whose memory it is, behind all views."""
    import numpy as np  # noqa: PLC0415 - see above

    owner: Any = array
    while isinstance(owner, np.ndarray | memoryview):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    return owner

"""Memory that a device may be shown: which arrays can be mapped, huge pages, memory of a file.

Linux Documentation/admin-guide/mm/hugetlbpage.rst.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, Any

from uspace_drv.errors import HostError, RegisterValueError
from uspace_drv.huge_pages import HUGE_PAGE, map_huge_pages
from uspace_drv.port import Direction

# numpy takes as long to load as all the rest, and who serves a model needs no arrays.
if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def plain_dtype(dtype: npt.DTypeLike, name: str) -> np.dtype[Any]:
    """The dtype, if its items are all in the array: a pointer would mean nothing to the device."""
    import numpy as np  # noqa: PLC0415 - see above

    try:
        item = np.dtype(dtype)
    except (TypeError, ValueError) as error:
        raise RegisterValueError(f"{name}: {dtype!r} is no dtype of numpy: {error}") from error
    if item.hasobject:
        raise RegisterValueError(f"{name}: {item} holds Python objects, which no device can read")
    return item


def check_array(array: npt.NDArray[Any], direction: Direction, page: int, name: str) -> None:
    """Raise `RegisterValueError`, with the cure, unless all of its pages may be shown."""
    cure = "use dma.alloc(), or an array over an mmap"
    plain_dtype(array.dtype, name)
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
    if Direction.FROM_DEVICE in direction and not array.flags.writeable:
        raise RegisterValueError(
            f"{name}: the array is read-only, and the device would write to it; "
            "map it with Direction.TO_DEVICE"
        )


def huge_memory(size: int) -> mmap.mmap | None:
    """New zeroed memory in huge pages of 2 MiB, or None where too few are free.

    The kernel reserves them now, so a first access cannot fail for want of one.
    """
    try:
        return map_huge_pages(size)
    except OSError:
        return None


def huge_page_advice(size: int) -> str:
    """How to get enough of them."""
    count = -(-size // HUGE_PAGE)
    return (
        f"fewer than {count} huge pages of {HUGE_PAGE >> 20} MiB are free: took ordinary ones; "
        f"run: echo {count} | sudo tee /proc/sys/vm/nr_hugepages (and 0 when you are done)"
    )


def map_file_here(fd: int, offset: int, size: int, name: str) -> npt.NDArray[np.uint8] | None:
    """See a file's memory in this process, as bytes; None where the file cannot be mapped.

    Huge pages are mapped whole, because the kernel unmaps nothing less. Raises `HostError` for a
    descriptor that is not open, `RegisterValueError` for more bytes than a regular file or memfd
    has.
    """
    import numpy as np  # noqa: PLC0415 - see above

    try:
        file = os.fstat(fd)
    except OSError as error:
        raise HostError(f"{name}: file descriptor {fd}: {error.strerror}", cause=error) from error
    page = file.st_blksize if file.st_blksize % mmap.PAGESIZE == 0 else mmap.PAGESIZE
    inside, end = offset % page, offset + size
    end = max(end, min(-(-end // page) * page, file.st_size))
    try:
        memory = mmap.mmap(fd, end - (offset - inside), offset=offset - inside)
        return np.frombuffer(memory, np.uint8, size, inside)
    except OSError:
        return None
    except ValueError as error:
        raise RegisterValueError(
            f"{name}: the file has no {size:#x} bytes from {offset:#x} on: {error}"
        ) from error


def _owner(array: npt.NDArray[Any]) -> object:
    """Whose memory it is, behind all views."""
    import numpy as np  # noqa: PLC0415 - see above

    owner: Any = array
    while isinstance(owner, np.ndarray | memoryview):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    return owner

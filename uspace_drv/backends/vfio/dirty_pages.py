"""What a type1 container knows of the pages that its devices wrote.

Linux include/uapi/linux/vfio.h, VFIO_IOMMU_DIRTY_PAGES (Linux 5.8). Without a device that says so
itself, the kernel calls every page dirty that is pinned for one that may write it.
"""

from __future__ import annotations

import ctypes
import errno

from uspace_drv.backends.vfio.call import call
from uspace_drv.backends.vfio.uapi import Type1Request
from uspace_drv.backends.vfio.uapi.dirty import (
    Bitmap,
    DirtyFlag,
    DirtyGet,
    DirtySwitch,
    UnmapFlag,
    UnmapWithBitmap,
)
from uspace_drv.errors import DeviceError, HostError, UnsupportedError

_WORD_BITS = 64
"""The kernel fills whole words of 64 bits."""


def switch(name: str, fd: int, on: bool) -> None:
    """Start or stop remembering; starting anew forgets what was written before."""
    flag = DirtyFlag.START if on else DirtyFlag.STOP
    try:
        call(
            name, fd, Type1Request.IOMMU_DIRTY_PAGES, DirtySwitch(ctypes.sizeof(DirtySwitch), flag)
        )
    except HostError as error:
        if error.errno in {errno.ENOTTY, errno.EINVAL, errno.EACCES}:
            raise UnsupportedError(
                f"{name}: this container does not track what the device writes; that takes Linux "
                "5.8 or newer and type1v2 (--via vfio-type1), not an iommufd in its place"
            ) from error
        raise


def read(name: str, fd: int, iova: int, size: int, page: int) -> bytes:
    """Return a bit for each page of the range, lowest first, and clear them."""
    bits, bitmap = _bitmap(size, page)
    argument = DirtyGet(ctypes.sizeof(DirtyGet), DirtyFlag.GET_BITMAP, iova, size, bitmap)
    try:
        call(name, fd, Type1Request.IOMMU_DIRTY_PAGES, argument)
    except HostError as error:
        if error.errno == errno.EINVAL:
            raise HostError(
                f"{name}: no dirty pages are known of {size:#x} bytes at IOVA {iova:#x}: track "
                "them first (dma.start_dirty_tracking()), and ask for whole mappings",
                cause=error,
            ) from error
        raise
    return bytes(bits)


def unmap(name: str, fd: int, iova: int, size: int, page: int) -> bytes:
    """Unmap one mapping while its pages are tracked; return which of them were written."""
    bits, bitmap = _bitmap(size, page)
    flag = UnmapFlag.GET_DIRTY_BITMAP
    argument = UnmapWithBitmap(ctypes.sizeof(UnmapWithBitmap), flag, iova, size, bitmap)
    call(name, fd, Type1Request.IOMMU_UNMAP_DMA, argument)
    if argument.size != size:
        raise DeviceError(f"{name}: unmapped {argument.size:#x} of {size:#x} bytes at {iova:#x}")
    return bytes(bits)


def _bitmap(size: int, page: int) -> tuple[ctypes.Array[ctypes.c_uint64], Bitmap]:
    """Room for the bits of a range, and what tells the kernel of it; keep both while it fills."""
    words = -(-size // page // _WORD_BITS)
    bits = (ctypes.c_uint64 * words)()
    return bits, Bitmap(page, ctypes.sizeof(bits), ctypes.addressof(bits))

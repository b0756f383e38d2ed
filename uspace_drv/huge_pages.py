"""Huge pages of 2 MiB (Linux Documentation/admin-guide/mm/hugetlbpage.rst)."""

from __future__ import annotations

import gc
import mmap

HUGE_PAGE = 2 << 20
MAP_HUGETLB = 0x40000
MAP_HUGE_2MB = 21 << 26


def map_huge_pages(size: int, *, populate: bool = False) -> mmap.mmap:
    """New zeroed memory of `size` bytes, rounded up to whole huge pages.

    The kernel reserves them now, so a first access cannot fail for want of one; `populate` has
    them there at once. They are few, and a driver that was left may still hold some: its objects
    refer to one another, and nothing but the garbage collector frees those. Raises `OSError` where
    too few are free even after that.
    """
    flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB
    flags |= mmap.MAP_POPULATE if populate else 0
    whole = -(-size // HUGE_PAGE) * HUGE_PAGE
    try:
        return mmap.mmap(-1, whole, flags)
    except OSError:
        gc.collect()
    return mmap.mmap(-1, whole, flags)

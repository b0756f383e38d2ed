"""Huge pages for a test: few, for as long as it runs, and given back.

Linux Documentation/admin-guide/mm/hugetlbpage.rst.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from uspace_drv.huge_pages import HUGE_PAGE

POOL = Path(f"/sys/kernel/mm/hugepages/hugepages-{HUGE_PAGE >> 10}kB")


def free_huge_pages() -> int:
    """How many are there that nobody has a right to."""
    return _count("free_hugepages") - _count("resv_hugepages")


@contextmanager
def huge_pages(count: int) -> Iterator[None]:
    """Have so many free: what the machine has, or some reserved meanwhile; else skip, and say why.

    One process at a time changes their number, so that each gives back what it found.
    """
    if not POOL.exists():
        pytest.skip(f"this kernel has no huge pages of {HUGE_PAGE >> 20} MiB")
    size = POOL / "nr_hugepages"
    with size.open(encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before, missing = _reserved(), max(0, count - free_huge_pages())
        try:
            if missing:
                _reserve(size, before + missing)
            if free_huge_pages() < count:
                pytest.skip(f"fewer than {count} huge pages are to be had, even by reserving some")
            yield
        finally:
            if missing and _reserved() != before:
                _reserve(size, before)


def _reserve(size: Path, count: int) -> None:
    try:
        size.write_text(f"{count}\n", encoding="ascii")
    except OSError as error:
        pytest.skip(f"{size} cannot be set to {count}: {error.strerror}; run as root, or set it")


def _reserved() -> int:
    """Without those that go by themselves when whoever holds them ends."""
    return _count("nr_hugepages") - _count("surplus_hugepages")


def _count(name: str) -> int:
    return int((POOL / name).read_text(encoding="ascii"))

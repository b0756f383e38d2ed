"""Which IOVA a mapping gets: inside what the host's IOMMU allows and the device reaches."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from threading import Lock

from uspace_drv.errors import HostError
from uspace_drv.port import Iova, IovaRange


class IovaAllocator:
    """Hands out page-aligned ranges of IOVAs, each to one owner at a time; any thread may ask.

    `ranges` are ascending; `reach` is the last address that the device drives. Page 0 is never
    handed out: a device that was given no address at all uses it. The search goes on where the last
    one ended, so that a freed IOVA rests and a late access of the device faults instead of hitting
    what came after.
    """

    def __init__(self, ranges: Sequence[IovaRange], page: int, reach: int, name: str) -> None:
        self._name = name
        self._reach = reach
        self._usable = [
            (max(page, -(-r.start // page) * page), min(r.end, reach) + 1) for r in ranges
        ]
        self._taken: list[tuple[int, int]] = []
        self._next = 0
        self._turn = Lock()

    def take(self, size: int) -> Iova:
        """The start of `size` bytes (a multiple of the page) that nobody has."""
        with self._turn:
            for low in (self._next, 0):
                for start, end in self._usable:
                    found = self._first_gap(max(start, low), end, size)
                    if found is not None:
                        insort(self._taken, (found, found + size))
                        self._next = found + size
                        return Iova(found)
            count = len(self._taken)
        raise HostError(
            f"{self._name}: no {size:#x} bytes of IOVA are free up to {self._reach:#x}; "
            f"{count} mappings exist: {'close some' if count else 'ask for less'}"
        )

    def give_back(self, iova: Iova, size: int) -> None:
        """Free what `take` returned."""
        with self._turn:
            del self._taken[bisect_left(self._taken, (iova, iova + size))]

    def _first_gap(self, start: int, end: int, size: int) -> int | None:
        # No mapping reaches past `start`: a range begins there, or the last mapping ends there.
        for index in range(bisect_left(self._taken, (start, 0)), len(self._taken)):
            taken_start, taken_end = self._taken[index]
            if taken_start >= start + size or start + size > end:
                break
            start = taken_end
        return start if start + size <= end else None

"""Which IOVA a mapping gets: inside what the host's IOMMU allows and the device reaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from uspace_drv.errors import HostError
from uspace_drv.native import IovaTable
from uspace_drv.port import Iova, IovaRange


class IovaAllocator(IovaTable):
    """Hands out page-aligned ranges of IOVAs, each to one owner at a time; any thread may ask.

    `ranges` are ascending; `reach` is the last address that the device drives; `page` is in bytes.
    Page 0 is never handed out: a device that was given no address at all uses it. The search goes
    on where the last one ended, so that a freed IOVA rests and a late access of the device faults
    instead of hitting what came after. The search itself is in C, one for every mapping.
    """

    def __init__(self, ranges: Sequence[IovaRange], page: int, reach: int, name: str) -> None:
        usable = [
            (max(page, -(-each.start // page) * page), min(each.end, reach)) for each in ranges
        ]
        super().__init__([(first, last) for first, last in usable if first <= last])
        self._name = name
        self._reach = reach

    def alloc(self, size: int, address: int = 0) -> Iova:
        """The start of `size` bytes (a multiple of the page) that nobody has.

        They are for memory at `address` (in this process, or in a file; a multiple of the page).
        An IOMMU can map a huge page of it as one only where its IOVA is a multiple of its size; so
        the place lies as far into 1 GiB or 2 MiB as the address, where whole ones can be in the
        memory and there is room. Raises `HostError` where no gap is large enough.
        """
        found = self.take(size, address)
        return self.refuse(size) if found is None else Iova(found)

    def refuse(self, size: int) -> NoReturn:
        """Say that no gap is large enough."""
        raise HostError(
            f"{self._name}: no {size:#x} bytes of IOVA are free up to {self._reach:#x}; "
            f"{self.count} mappings exist: {'close some' if self.count else 'ask for less'}"
        )

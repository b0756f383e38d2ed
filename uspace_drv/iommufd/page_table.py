"""A hardware page table: the translation that a device is attached to.

Linux include/uapi/linux/iommufd.h, IOMMU_HWPT_ALLOC to IOMMU_HWPT_INVALIDATE.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uspace_drv.errors import HostError
from uspace_drv.iommufd.fault_queue import FaultQueue
from uspace_drv.iommufd.objects import Object, OpenFile
from uspace_drv.iommufd.uapi import page_tables
from uspace_drv.iommufd.uapi.page_tables import FAULT_ID_VALID, HwptData, HwptFlag
from uspace_drv.iommufd.uapi.requests import Request
from uspace_drv.layout import Layout, u32, u64


class VtdInvalidation(Layout, size=24):
    """iommu_hwpt_vtd_s1_invalidate: `npages` pages of 4 KiB; `flags` 1 spares the upper levels."""

    addr = u64(0, "a multiple of 4096")
    npages = u64(8)
    flags = u32(16)
    reserved = u32(20)


class Smmuv3Command(Layout, size=16):
    """iommu_viommu_arm_smmuv3_invalidate: one command of the SMMU's queue."""

    cmd = u64(0, count=2)


@dataclass(frozen=True)
class Nesting:
    """How the first stage looks that user space keeps: the vendor's structure, as bytes."""

    kind: HwptData | int
    data: bytes


class Hwpt(Object):
    """One page table of the IOMMU. The kernel fills it from an address space, or it is nested."""

    @classmethod
    def alloc(  # noqa: PLR0913 - one more than is usual; the call has them all
        cls,
        file: OpenFile,
        device: int,
        parent: Object,
        *,
        flags: HwptFlag,
        nesting: Nesting | None,
        faults: FaultQueue | None,
    ) -> Hwpt:
        """Make one for the IOMMU behind `device`; see `Iommufd.alloc_hwpt`."""
        argument = page_tables.HwptAlloc(flags=flags, dev_id=device, pt_id=parent.id)
        data = nesting.data if nesting else b""
        buffer = ctypes.create_string_buffer(data, len(data)) if data else None
        if nesting and buffer:
            argument.data_type = nesting.kind
            argument.data_len = len(data)
            argument.data_uptr = ctypes.addressof(buffer)
        if faults is None:
            file.call(Request.HWPT_ALLOC, argument)
            return cls(file, argument.out_hwpt_id, parent)
        argument.flags |= FAULT_ID_VALID
        argument.fault_id = faults.id
        file.call(Request.HWPT_ALLOC, argument)
        return cls(file, argument.out_hwpt_id, parent, faults)

    def start_dirty_tracking(self) -> None:
        """From now on keep in mind which pages devices write. Made with DIRTY_TRACKING only."""
        self._track_dirty(page_tables.TRACK_DIRTY)

    def stop_dirty_tracking(self) -> None:
        """Forget it, and keep it in mind no more."""
        self._track_dirty(0)

    def dirty_pages(
        self, iova: int, size: int, page_size: int, *, clear: bool = True
    ) -> NDArray[np.bool_]:
        """Which pages devices wrote since tracking started, or since they were last asked for.

        One element for each `page_size` bytes from `iova` on; all of it must be mapped. With
        `clear=False` they stay dirty: for what is unmapped right after.
        """
        count = size // page_size
        words = np.zeros(-(-count // 64), np.uint64)  # the kernel writes whole words
        argument = page_tables.HwptGetDirtyBitmap(
            hwpt_id=self.id,
            flags=0 if clear else page_tables.NO_CLEAR,
            iova=iova,
            length=size,
            page_size=page_size,
            data=words.ctypes.data,
        )
        self._file.call(Request.HWPT_GET_DIRTY_BITMAP, argument)
        bits = np.unpackbits(words.view(np.uint8), count=count, bitorder="little")
        return bits.astype(np.bool_)

    def invalidate(self, kind: int, entries: NDArray[Any]) -> None:
        """Tell the IOMMU which cached translations are stale: see `invalidate`."""
        invalidate(self._file, self.id, kind, entries)

    def _track_dirty(self, flags: int) -> None:
        argument = page_tables.HwptSetDirtyTracking(flags=flags, hwpt_id=self.id)
        self._file.call(Request.HWPT_SET_DIRTY_TRACKING, argument)


def invalidate(file: OpenFile, number: int, kind: int, entries: NDArray[Any]) -> None:
    """Hand invalidations to the nested page table or virtual IOMMU `number`, in order.

    `entries` is an array of `VtdInvalidation`, `Smmuv3Command` or what else `kind` (an
    `InvalidateData`) says; an empty one asks whether the kernel knows that kind. Raises
    `HostError` that tells how many were done before one was refused.
    """
    packed = np.ascontiguousarray(entries)
    argument = page_tables.HwptInvalidate(
        hwpt_id=number,
        data_uptr=packed.ctypes.data if len(packed) else 0,
        data_type=kind,
        entry_len=packed.itemsize,
        entry_num=len(packed),
    )
    try:
        file.call(Request.HWPT_INVALIDATE, argument)
    except HostError as error:
        done = f"{argument.entry_num} of {len(packed)} entries were done before"
        raise HostError(f"{error}; {done}", cause=error) from error

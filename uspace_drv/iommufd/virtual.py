"""A virtual IOMMU: a slice of the real one for one guest, with its devices and queues.

Linux include/uapi/linux/iommufd.h, IOMMU_VIOMMU_ALLOC to IOMMU_HW_QUEUE_ALLOC.
"""

from __future__ import annotations

import ctypes
from typing import Any

from numpy.typing import NDArray

from uspace_drv.iommufd.event_queue import EventQueue
from uspace_drv.iommufd.objects import Object, OpenFile
from uspace_drv.iommufd.page_table import Hwpt, invalidate
from uspace_drv.iommufd.uapi import queues
from uspace_drv.iommufd.uapi.queues import HwQueueType, ViommuType
from uspace_drv.iommufd.uapi.requests import Request


class Vdevice(Object):
    """What a device is called inside the guest. Close it before the device."""


class HwQueue(Object):
    """A queue in the guest's memory that the hardware itself reads. Its mapping stays pinned."""


class Viommu(Object):
    """One virtual IOMMU. `data` is what the vendor's structure said after it was made."""

    def __init__(self, file: OpenFile, number: int, parent: Hwpt, data: bytes) -> None:
        super().__init__(file, number, parent)
        self.data = data

    @classmethod
    def alloc(
        cls, file: OpenFile, device: int, parent: Hwpt, kind: ViommuType | int, data: bytes
    ) -> Viommu:
        """Make one; see `Iommufd.alloc_viommu`."""
        buffer = ctypes.create_string_buffer(data, len(data)) if data else None
        argument = queues.ViommuAlloc(
            type=kind,
            dev_id=device,
            hwpt_id=parent.id,
            data_len=len(data),
            data_uptr=ctypes.addressof(buffer) if buffer else 0,
        )
        file.call(Request.VIOMMU_ALLOC, argument)
        return cls(file, argument.out_viommu_id, parent, buffer.raw if buffer else b"")

    def alloc_vdevice(self, device: int, virtual_id: int) -> Vdevice:
        """Give `device` the number by which the guest's driver calls it (StreamID, DeviceID)."""
        argument = queues.VdeviceAlloc(viommu_id=self.id, dev_id=device, virt_id=virtual_id)
        self._file.call(Request.VDEVICE_ALLOC, argument)
        return Vdevice(self._file, argument.out_vdevice_id, self)

    def alloc_event_queue(
        self, kind: ViommuType | int, depth: int, event_size: int | None = None
    ) -> EventQueue:
        """Make the queue for events of one kind. It holds `depth`, and loses what comes then.

        `event_size` is in bytes; it is known for the kinds of `ViommuType`.
        """
        return EventQueue.alloc(self._file, self, kind, depth, event_size)

    def alloc_hw_queue(self, kind: HwQueueType | int, index: int, iova: int, size: int) -> HwQueue:
        """Let the hardware read queue `index` at `iova` of the parent's address space.

        The memory must be contiguous: take it from one huge page, aligned to its `size` in bytes.
        """
        argument = queues.HwQueueAlloc(
            viommu_id=self.id, type=kind, index=index, nesting_parent_iova=iova, length=size
        )
        self._file.call(Request.HW_QUEUE_ALLOC, argument)
        return HwQueue(self._file, argument.out_hw_queue_id, self)

    def invalidate(self, kind: int, entries: NDArray[Any]) -> None:
        """Hand over the guest's invalidations: see `page_table.invalidate`."""
        invalidate(self._file, self.id, kind, entries)

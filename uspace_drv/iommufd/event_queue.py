"""Events of a virtual IOMMU: faults and errors that its guest has to hear of.

Linux include/uapi/linux/iommufd.h, struct iommufd_vevent_header.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from uspace_drv.errors import PeerError, UnsupportedError
from uspace_drv.iommufd.objects import Object, OpenFile
from uspace_drv.iommufd.queue import Queue
from uspace_drv.iommufd.uapi import queues
from uspace_drv.iommufd.uapi.queues import ViommuType
from uspace_drv.iommufd.uapi.requests import Request

SIZES: Mapping[int, int] = {ViommuType.ARM_SMMUV3: 32, ViommuType.TEGRA241_CMDQV: 16}
"""Bytes of an event, by kind."""

_HEADER = struct.Struct("=II")  # flags, sequence
_LAST_SEQUENCE = 0x7FFF_FFFF  # 0 follows
_ROOM = 1 << 16


@dataclass(frozen=True)
class Event:
    """One event as the IOMMU wrote it, and how many were lost right before it."""

    sequence: int
    data: bytes
    lost: int


class EventQueue(Queue):
    """Readable while an event is there, or while some were lost that nobody has heard of."""

    def __init__(
        self, file: OpenFile, number: int, viommu: Object, fd: int, event_size: int
    ) -> None:
        super().__init__(file, number, fd, viommu)
        self._event_size = event_size
        self._next = 0
        self.lost = 0
        """Events that were lost so far, because nobody took them in time."""

    @classmethod
    def alloc(
        cls, file: OpenFile, viommu: Object, kind: int, depth: int, event_size: int | None
    ) -> EventQueue:
        """Make one; see `Viommu.alloc_event_queue`."""
        size = SIZES.get(kind) if event_size is None else event_size
        if size is None:
            raise UnsupportedError(
                f"{file.name}: event queue of kind {kind:#x}: give event_size; "
                f"known are {', '.join(each.name for each in ViommuType)}"
            )
        argument = queues.VeventqAlloc(viommu_id=viommu.id, type=kind, veventq_depth=depth)
        file.call(Request.VEVENTQ_ALLOC, argument)
        return cls(file, argument.out_veventq_id, viommu, argument.out_veventq_fd, size)

    def take(self) -> list[Event]:
        """Every event that is there; never blocks. Counts in `lost` those that are not."""
        return list(self._events(self._read(_ROOM)))

    def _events(self, data: bytes) -> Iterator[Event]:
        place = 0
        while place < len(data):
            if len(data) - place < _HEADER.size:
                raise PeerError(
                    f"{self._file.name}: {len(data) - place} bytes follow the last event: "
                    "event_size does not fit the kind of queue"
                )
            flags, sequence = _HEADER.unpack_from(data, place)
            place += _HEADER.size
            lost = sequence - self._next & _LAST_SEQUENCE
            self._next = sequence + 1
            if flags & queues.LOST_EVENTS:  # it stands for one that was lost, and has no data
                self.lost += lost + 1
                continue
            end = place + self._event_size
            if end > len(data):
                raise PeerError(
                    f"{self._file.name}: event {sequence} ends after {len(data) - place} bytes; "
                    f"expected {self._event_size}: event_size does not fit the kind of queue"
                )
            self.lost += lost
            yield Event(sequence, data[place:end], lost)
            place = end

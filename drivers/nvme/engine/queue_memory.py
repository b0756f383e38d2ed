"""The memory of a queue pair: two rings, and a page of PRPs for each command in flight.

NVMe Base Specification 1.4, sections 4.1 and 4.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from uspace_drivers.nvme.spec.commands import Command, Completion
from uspace_drv import Device

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uspace_drivers.nvme.engine.controller_memory import ControllerMemory

    Bytes = NDArray[np.uint8]


class QueueMemory:
    """Rings of `entries` entries, all in one piece: where pages are huge, each would take one.

    The submission queue lies in `nearby`, the controller's own memory, where that has room.
    """

    def __init__(
        self, device: Device, entries: int, page: int, nearby: ControllerMemory | None
    ) -> None:
        commands, size = entries * Command.SIZE, (entries - 1) * page
        submission = -(-commands // page) * page
        completion = -(-entries * Completion.SIZE // page) * page
        self._nearby = nearby
        self._is_nearby = False
        self._buffer = device.dma.alloc("u1", size + submission + completion)
        memory: Bytes = self._buffer.array
        self.lists, rest = memory[:size], memory[size:]
        self.lists_iova = int(self._buffer.iova)
        self.submission, self.submission_iova = rest[:commands], self.lists_iova + size
        self.completion: Bytes = rest[submission:][: entries * Completion.SIZE]
        self.completion_iova = self.lists_iova + size + submission
        try:
            self._move_nearby(commands)
        except BaseException:  # a signal's handler may raise, too
            self.close()
            raise

    def _move_nearby(self, size: int) -> None:
        own = self._nearby.take(size) if self._nearby else None
        if own is not None:
            self.submission, self.submission_iova = own
            self._is_nearby = True

    def clear(self) -> None:
        """Empty the rings."""
        self.submission[:] = 0
        self.completion[:] = 0

    def close(self) -> None:
        """Give it back. Twice is fine."""
        self._buffer.close()
        if self._nearby is not None and self._is_nearby:
            self._is_nearby = False
            self._nearby.give(self.submission_iova)

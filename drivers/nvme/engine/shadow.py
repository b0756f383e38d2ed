"""Doorbells in memory, for controllers whose registers are slow to reach (emulated ones).

NVMe Base Specification 1.4, sections 5.7 and 7.13. The engine rings in memory and asks the event
index whether the controller wants to hear of it by the register as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uspace_drivers.nvme.spec.registers import DOORBELLS, doorbell

if TYPE_CHECKING:
    from uspace_drivers.nvme.control.controller import Controller
    from uspace_drivers.nvme.engine.hot import Queue


class ShadowDoorbells:
    """Two pages, one for doorbells and one for event indexes. The admin queue does without them."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._stride = controller.capabilities.dstrd
        self._page = controller.page_size
        self._buffer = controller.device.dma.alloc("u1", 2 * self._page)

    def announce(self) -> None:
        """Tell the controller of them, as after each of its resets."""
        self._buffer.array[:] = 0
        iova = int(self._buffer.iova)
        self._controller.configure_doorbell_buffers(iova, iova + self._page)

    def serve(self, queue: Queue, number: int) -> None:
        """Let the engine of a new queue ring there, if its doorbells are on the page.

        The controller must not have the queue yet, or have it unused: what a queue of the same
        number left there is forgotten, as its event index would keep this one from being heard.
        """
        tail = doorbell(number, False, self._stride) - DOORBELLS
        head = doorbell(number, True, self._stride) - DOORBELLS
        if head + 4 <= self._page:
            pages = self._buffer.array
            for place in (tail, head, self._page + tail, self._page + head):
                pages[place : place + 4] = 0
            queue.use_shadow(pages[: self._page], pages[self._page :], tail, head)

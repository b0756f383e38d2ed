"""Memory of the controller's own, in a BAR, for submission queues: it fetches no command by DMA.

NVMe Base Specification 1.4, sections 3.1.11, 3.1.12, 3.1.16 and 4.7. Only controllers that let the
host choose the addresses (CAP.CMBS) are served: the others mean addresses of the bus, which a
program behind an IOMMU does not know.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from uspace_drivers.nvme.spec.registers import CmbMemorySpaceControl
from uspace_drv import UnsupportedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uspace_drivers.nvme.control.controller import Controller

_log = logging.getLogger(__name__)

ADDRESS = 1 << 62
"""Where commands find it: no memory of a driver has such an address."""

PIECE = 16 << 10
"""Bytes for one submission queue: 256 entries."""


class ControllerMemory:
    """Shares the buffer out to submission queues; without a usable one it has nothing to give."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._memory: NDArray[np.uint8] | None = None
        self._free: list[int] = []
        if controller.capabilities.cmbs:
            self._open()

    def announce(self) -> None:
        """Say where it is to be found, as after each reset of the function."""
        if self._memory is not None:
            self._switch_on()

    def take(self, size: int) -> tuple[NDArray[np.uint8], int] | None:
        """Memory for a queue of `size` bytes and its address, or None."""
        if self._memory is None or size > PIECE or not self._free:
            return None
        start = self._free.pop()
        return self._memory[start : start + size], ADDRESS + start

    def give(self, address: int) -> None:
        """Take it back."""
        self._free.append(address - ADDRESS)

    def _open(self) -> None:
        registers = self._controller.registers
        registers.cmbmsc.write(CmbMemorySpaceControl(cre=True))
        location, found = registers.cmbloc.read(), registers.cmbsz.read()
        unit = 4096 << 4 * found.szu
        if not found.sqs or not found.sz or not self._switch_on():
            return
        try:
            window = self._controller.device.bar(location.bir).memory()
        except UnsupportedError as error:
            _log.info("%s: controller memory buffer: %s", self._controller.name, error)
            return
        whole = np.frombuffer(window, np.uint8)[location.ofst * unit :]
        self._memory = whole[: found.sz * unit]
        self._free = list(range(0, self._memory.nbytes - PIECE + 1, PIECE))[::-1]

    def _switch_on(self) -> bool:
        registers = self._controller.registers
        registers.cmbmsc.write(CmbMemorySpaceControl(cba=ADDRESS >> 12, cmse=True, cre=True))
        return not registers.cmbsts.read().cbai

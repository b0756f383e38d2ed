"""The controller memory buffer: memory of the device that queues, lists and data may lie in.

NVM Express Base Specification 1.4, sections 3.1.11, 3.1.12, 3.1.16 and 4.7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from uspace_drivers.nvme.model.options import CMB_BAR, PAGE
from uspace_drivers.nvme.spec.registers import (
    CmbLocation,
    CmbMemorySpaceControl,
    CmbSize,
    CmbStatus,
    NvmeRegisters,
)
from uspace_drv import DeviceError, Direction, Iova
from uspace_drv.models.iommu import OwnMemory

if TYPE_CHECKING:
    from uspace_drivers.nvme.model.model import NvmeModel


class ControllerMemory:
    """`size` bytes in a BAR; commands find them where CMBMSC says, as one more mapping."""

    def __init__(self, model: NvmeModel, size: int) -> None:
        self.size = size
        self._model = model
        self._mapped: tuple[int, OwnMemory] | None = None

    def configure(self, value: CmbMemorySpaceControl) -> None:
        """CMBMSC was written: show the registers, and put the buffer where it is to be."""
        model = self._model
        if not self.size:
            return
        model.set(NvmeRegisters.cmbmsc, value)
        location = CmbLocation(
            bir=CMB_BAR, cqmms=True, cqpds=True, cdpmls=True, cdpcils=True, cdmmms=True, cqda=True
        )
        size = CmbSize(sz=self.size // PAGE, wds=True, rds=True, lists=True, cqs=True, sqs=True)
        model.set(NvmeRegisters.cmbloc, location if value.cre else CmbLocation())
        model.set(NvmeRegisters.cmbsz, size if value.cre else CmbSize())
        self.detach()
        is_good = not value.cmse or self._attach(value.cba * PAGE)
        model.set(NvmeRegisters.cmbsts, CmbStatus(cbai=not is_good))

    def reset(self) -> None:
        """A reset of the function: nowhere. A reset by CC.EN leaves it where it is."""
        self.detach()

    def detach(self) -> None:
        """Commands do not find it any more. An unmap of everything may have come before."""
        mapped, self._mapped = self._mapped, None
        if mapped is None:
            return
        place, own = mapped
        if any(each.memory is own for each in self._model.memory.mappings):
            self._model.memory.unmap(Iova(place), self.size)

    def _attach(self, place: int) -> bool:
        """False where something else is there already, or the end is past all addresses."""
        memory = np.frombuffer(self._model.bar_memory(CMB_BAR), np.uint8)
        try:
            own = OwnMemory(int(memory.ctypes.data))
            self._model.memory.attach(place, self.size, own, Direction.BOTH)
        except DeviceError:
            return False
        self._mapped = place, own
        return True

"""A device model in the driver's own process."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from uspace_drv.models.interrupts import ModelIrqLine
from uspace_drv.models.model import DeviceModel
from uspace_drv.native import Window
from uspace_drv.port import DmaSpace, IrqKind


class VirtualDevice:
    """Fills the port's `Backend` with a model."""

    via = "virtual"
    can_reset = True

    def __init__(self, model: DeviceModel) -> None:
        self.address = model.name
        self._model = model
        self.config = Window.over_calls(
            f"{self.address} config", model.config.size, model.config.read, model.config.write
        )

    @property
    def bar_sizes(self) -> Mapping[int, int]:
        """Number and size in bytes of every BAR that the model declares."""
        return {number: bar.size for number, bar in self._model.bars.items()}

    def bar(self, number: int) -> Window:
        """A window whose every access is a call of the model."""
        return Window.over_calls(
            f"{self.address} bar {number}",
            self.bar_sizes[number],
            partial(self._model.read_bar, number),
            partial(self._model.write_bar, number),
        )

    @property
    def irq_counts(self) -> Mapping[IrqKind, int]:
        """How many interrupts of each kind the model declares."""
        return self._model.irqs

    def irq_line(self, kind: IrqKind, index: int) -> ModelIrqLine:
        """Switch one interrupt on."""
        return self._model.interrupts.line(kind, index)

    @property
    def dma(self) -> DmaSpace:
        """The model's IOMMU."""
        return self._model.memory

    def reset(self) -> None:
        """Reset the model."""
        self._model.reset()

    def close(self) -> None:
        """Close configuration space; the model stays with whoever made it."""
        self.config.close()

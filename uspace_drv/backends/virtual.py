"""A device model in the driver's own process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from uspace_drv.models import DeviceModel
from uspace_drv.models.interrupts import ModelIrqLine
from uspace_drv.native import Window
from uspace_drv.port import DmaSpace, IrqKind, Notice
from uspace_drv.regions import Area, Calls, open_in_parts


class VirtualDevice:
    """Fills the port's `Backend` with a model, which is switched off when this is closed."""

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
        """Number and size in bytes of every BAR that the model has."""
        return {number: view.size for number, view in self._model.bar_list.items()}

    def bar(self, number: int) -> Window:
        """A window that calls the model for its registers, and maps what of the BAR is memory."""
        view = self._model.bar_list[number]
        if view.is_all_memory:
            return Window.map(view.name, view.fd, 0, view.size)
        calls = Calls(partial(self._model.read_bar, number), partial(self._model.write_bar, number))
        areas = [Area(area.offset, area.size) for area in view.areas]

        def map_area(name: str, area: Area) -> Window:
            return Window.map(name, view.fd, area.offset, area.size)

        return open_in_parts(view.name, view.size, areas, map_area, calls)

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

    def watch(self, tell: Callable[[Notice], None]) -> Callable[[], None]:
        """Hear what a test lets the host say: `fail_bus()`, `request_back()` of the model."""
        return self._model.watch(tell)

    def reset(self) -> None:
        """Reset the model."""
        self._model.reset()

    def close(self) -> None:
        """Close configuration space and end what the model has running; its registers stay."""
        self.config.close()
        self._model.close()

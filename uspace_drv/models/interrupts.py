"""Interrupts of a model: a level on INTx, a message on MSI and MSI-X, an eventfd for the driver.

They behave as through VFIO (Linux, drivers/vfio/pci/vfio_pci_intrs.c): INTx is masked when it fires
and fires again on unmask if it is still asserted; a message is lost while bus mastering is off.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from uspace_drv.errors import BusyError, UnsupportedError
from uspace_drv.eventfd import EventFd
from uspace_drv.port import IrqKind


class ModelIrqLine:
    """Fills the port's `IrqLine` for one interrupt of a model."""

    def __init__(self, kind: IrqKind, name: str, on_close: Callable[[], object]) -> None:
        self.kind = kind
        self._name = name
        self._on_close = on_close
        self._event = EventFd()
        self.fileno = self._event.fileno
        self.take = self._event.take
        self._asserted = False
        self._masked = False

    def fire(self) -> None:
        """Tell the driver."""
        if not self._masked:
            self._masked = self.kind is IrqKind.INTX
            self._event.signal()

    def set_level(self, asserted: bool) -> None:
        """Assert or release INTx; it fires when it goes up."""
        rising = asserted and not self._asserted
        self._asserted = asserted
        if rising:
            self.fire()

    def mask(self) -> None:
        """INTx can be held back; vfio-pci cannot mask a message, so neither does this."""
        if self.kind is not IrqKind.INTX:
            raise UnsupportedError(f"{self._name}: {self.kind.value} cannot be masked; INTx can")
        self._masked = True

    def unmask(self) -> None:
        """Let it fire; at once, if the level is still up."""
        self._masked = False
        if self._asserted:
            self.fire()

    def close(self) -> None:
        """Switch it off."""
        if self._event.fileno() >= 0:
            self._on_close()
            self._event.close()


class ModelIrqs:
    """All interrupts of one model: what the driver has switched on, and what the model raises."""

    def __init__(self, name: str, is_bus_master: Callable[[], bool]) -> None:
        self._name = name
        self._is_bus_master = is_bus_master
        self._lines: dict[int, ModelIrqLine] = {}
        self._level = False

    @property
    def kind(self) -> IrqKind:
        """How the function signals now: INTx until the driver switches messages on."""
        return next((line.kind for line in self._lines.values()), IrqKind.INTX)

    def line(self, kind: IrqKind, index: int) -> ModelIrqLine:
        """Switch on one interrupt; one kind at a time."""
        if self._lines and self.kind is not kind:
            raise BusyError(f"{self._name}: {self.kind.value} is on; close it before {kind.value}")
        if index in self._lines:
            raise BusyError(f"{self._name}: {kind.value} {index} is on already")
        line = ModelIrqLine(kind, self._name, partial(self._lines.pop, index, None))
        self._lines[index] = line
        if kind is IrqKind.INTX:
            line.set_level(self._level)
        return line

    def send(self, index: int = 0) -> None:
        """Send message `index`, if the driver has switched it on and the function may write."""
        line = self._lines.get(index)
        if line is not None and line.kind is not IrqKind.INTX and self._is_bus_master():
            line.fire()

    def set_level(self, asserted: bool) -> None:
        """Set the function's INTx level."""
        self._level = asserted
        line = self._lines.get(0)
        if line is not None and line.kind is IrqKind.INTX:
            line.set_level(asserted)

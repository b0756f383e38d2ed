"""Interrupts of a model: a level on INTx, a message on MSI and MSI-X, an eventfd for the driver.

They behave as through VFIO (Linux, drivers/vfio/pci/vfio_pci_intrs.c): INTx is masked when it fires
and fires again on unmask if it is still asserted; a message is lost while bus mastering is off. A
message that is masked (by configuration space, by the MSI-X table or by the client) waits, and its
pending bit shows (PCI Express Base Specification 6.0, sections 7.7.1 and 7.7.2).
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from typing import Any

from uspace_drv.errors import BusyError, UnsupportedError
from uspace_drv.eventfd import EventFd
from uspace_drv.models.config import ModelConfig
from uspace_drv.models.msix import MsixTable
from uspace_drv.port import IrqKind


class ModelIrqLine:
    """Fills the port's `IrqLine` for one interrupt of a model; it owns its eventfd."""

    def __init__(self, irqs: ModelIrqs, kind: IrqKind, index: int, event: EventFd) -> None:
        self.kind = kind
        self.index = index
        self._irqs = irqs
        self._event = event
        self.fileno = event.fileno
        self.take = event.take
        self.signal = event.signal
        self.trigger = event.signal

    def mask(self) -> None:
        """INTx can be held back; vfio-pci cannot mask a message, so neither does this."""
        if self.kind is not IrqKind.INTX:
            raise UnsupportedError(
                f"{self._irqs.name}: {self.kind.value} cannot be masked; INTx can"
            )
        self._irqs.set_masked(self.kind, self.index, True)

    def unmask(self) -> None:
        """Let it fire; at once, if the level is still up."""
        self._irqs.set_masked(self.kind, self.index, False)

    def close(self) -> None:
        """Switch it off."""
        if self._event.fileno() >= 0:
            self._irqs._drop(self)
            self._event.close()


class ModelIrqs:
    """All interrupts of one model: what the driver has switched on, and what the model raises.

    `turn` is the lock of the model.
    """

    def __init__(
        self,
        name: str,
        config: ModelConfig,
        table: MsixTable | None = None,
        turn: AbstractContextManager[Any] | None = None,
    ) -> None:
        self.name = name
        self._config = config
        self._table = table
        self._turn = turn or threading.RLock()
        self._lines: dict[int, ModelIrqLine] = {}
        self._held: set[tuple[IrqKind, int]] = set()
        self._waiting: set[int] = set()  # messages behind a mask
        self._level = False

    @property
    def kind(self) -> IrqKind:
        """How the function signals now: INTx until the driver switches messages on."""
        return next((line.kind for line in list(self._lines.values())), IrqKind.INTX)

    def is_on(self, kind: IrqKind) -> bool:
        """Whether the driver has switched on an interrupt of that kind."""
        return any(line.kind is kind for line in list(self._lines.values()))

    def line(self, kind: IrqKind, index: int, event: EventFd | None = None) -> ModelIrqLine:
        """Switch on one interrupt; one kind at a time.

        With an `event` the line signals that one, closes it at the end, and takes the place of a
        line that is on already; without one, a line that is on is a `BusyError`.
        """
        with self._turn:
            if self._lines and self.kind is not kind:
                raise BusyError(
                    f"{self.name}: {self.kind.value} is on; close it before {kind.value}"
                )
            if index in self._lines:
                if event is None:
                    raise BusyError(f"{self.name}: {kind.value} {index} is on already")
                self._lines[index].close()
            line = ModelIrqLine(self, kind, index, event or EventFd())
            self._lines[index] = line
            self._config.set_enabled(kind, True)
            if kind is IrqKind.MSIX and self._table is not None:
                self._table.set_masked(index, False)
            self.refresh()
            return line

    def send(self, index: int = 0) -> None:
        """Send message `index`, if the driver has switched it on and the function may write."""
        with self._turn:
            line = self._lines.get(index)
            if line is None:
                # A vector that nobody asked for is masked: the message waits, if MSI-X is on.
                if self._config.is_msix_enabled and self._is_message(index):
                    self._set_waiting(IrqKind.MSIX, index, True)
            elif line.kind is IrqKind.INTX or not self._config.is_bus_master:
                return
            elif self._is_masked(line.kind, index):
                self._set_waiting(line.kind, index, True)
            else:
                line.signal()

    def set_level(self, asserted: bool) -> None:
        """Set the function's INTx level."""
        with self._turn:
            self._level = asserted
            self._config.set_interrupt_status(asserted)
            self._update_level()

    def set_masked(self, kind: IrqKind, index: int, masked: bool) -> None:
        """Hold an interrupt back for the client, or let it through; what waits fires then."""
        with self._turn:
            if masked:
                self._held.add((kind, index))
            else:
                self._held.discard((kind, index))
                self.refresh()

    def refresh(self) -> None:
        """Look again at what is masked and what is not, and fire what waits."""
        with self._turn:
            self._update_level()
            for index in sorted(self._waiting):
                line = self._lines.get(index)
                if line is not None and not self._is_masked(line.kind, index):
                    self._set_waiting(line.kind, index, False)
                    line.signal()

    def reset(self) -> None:
        """Lower the level and forget what waits; lines stay on, as through VFIO."""
        with self._turn:
            self.set_level(False)
            for index in list(self._waiting):
                self._set_waiting(IrqKind.MSI, index, False)
                self._set_waiting(IrqKind.MSIX, index, False)

    def close(self) -> None:
        """Switch every line off and forget the client's masks."""
        with self._turn:
            for line in list(self._lines.values()):
                line.close()
            self._held.clear()

    def _drop(self, line: ModelIrqLine) -> None:
        with self._turn:
            if self._lines.get(line.index) is line:
                del self._lines[line.index]
                self._held.discard((line.kind, line.index))
                if line.kind is IrqKind.MSIX and self._table is not None:
                    self._table.set_masked(line.index, True)
                if not self._lines:
                    self._config.set_enabled(line.kind, False)

    def _update_level(self) -> None:
        """INTx fires where it is asserted and nothing holds it; then the line is held."""
        line = self._lines.get(0)
        held = (IrqKind.INTX, 0) in self._held or self._config.is_intx_disabled
        if line is not None and line.kind is IrqKind.INTX and self._level and not held:
            self._held.add((IrqKind.INTX, 0))
            line.signal()

    def _is_message(self, index: int) -> bool:
        return self._table is not None and 0 <= index < self._table.count

    def _is_masked(self, kind: IrqKind, index: int) -> bool:
        if (kind, index) in self._held or self._config.is_masked(kind, index):
            return True
        return kind is IrqKind.MSIX and self._table is not None and self._table.is_masked(index)

    def _set_waiting(self, kind: IrqKind, index: int, waits: bool) -> None:
        """Remember it, and show it where software looks."""
        if waits:
            self._waiting.add(index)
        else:
            self._waiting.discard(index)
        if kind is IrqKind.MSIX and self._table is not None:
            self._table.set_pending(index, waits)
        elif kind is IrqKind.MSI:
            self._config.set_msi_pending(index, waits)

"""Which interrupt each I/O queue signals by (NVMe Base Specification 1.4, section 7.5.1).

Vector 0 is the admin queue's. With more, I/O queues take the others in turn; with that one alone,
they share it.
"""

from __future__ import annotations

from dataclasses import dataclass

from uspace_drivers.nvme.engine.interrupts import SharedInterrupt
from uspace_drv import Device, Irq, IrqKind


@dataclass(frozen=True)
class Vector:
    """One interrupt as a queue sees it.

    `index` is what the command says that creates the completion queue, `interrupt` is slept on,
    and `irq` is the interrupt itself where no other queue uses it: an event loop may watch that.
    """

    index: int
    interrupt: SharedInterrupt
    irq: Irq | None = None


class Vectors:
    """Shares the vectors of a device out; `shared` is that of the admin queue."""

    def __init__(self, device: Device, shared: SharedInterrupt) -> None:
        self._device = device
        self._shared = Vector(0, shared)
        own = device.irq_count > 1 and device.irq_kind is IrqKind.MSIX
        self._free = list(range(device.irq_count - 1, 0, -1)) if own else []

    def take(self) -> Vector | None:
        """A vector for one more queue, switched on; None where the device can only be polled."""
        if self._free:
            index = self._free[-1]
            irq = self._device.irq(index)
            self._free.pop()
            return Vector(index, SharedInterrupt(irq), irq)
        return self._shared if self._device.irq_count else None

    def give(self, vector: Vector) -> None:
        """Take one back from a queue that is no more."""
        if vector.irq is not None:
            self._free.append(vector.index)

"""The device as a driver holds it: windows, interrupts, DMA memory, configuration, reset.

It is handed an open backend and does not know which one. It owns what it hands out: `close()` ends
interrupts, then DMA, then windows.
"""

from __future__ import annotations

from collections.abc import Mapping

from uspace_drv.dma import Dma
from uspace_drv.errors import (
    ClosedError,
    DeviceGone,
    NoDevice,
    RegisterValueError,
    UnsupportedError,
)
from uspace_drv.irq import Irq
from uspace_drv.pci import config as pci_config
from uspace_drv.port import Backend, IrqKind, Window
from uspace_drv.teardown import Teardown


class Device:
    """One open device; `dma_bits` is what its driver says that it reaches.

    `irq_kind` forces a way to signal; without it the best that the device has is taken.
    """

    def __init__(
        self, backend: Backend, *, dma_bits: int = 64, irq_kind: IrqKind | None = None
    ) -> None:
        self._backend = backend
        self._dma_bits = dma_bits
        self._irq_kind = irq_kind
        self._windows: dict[int, Window] = {}
        self._irqs: dict[int, Irq] = {}
        self._dma: Dma | None = None
        self._closed = False

    @property
    def address(self) -> str:
        """As the user wrote it."""
        return self._backend.address

    @property
    def via(self) -> str:
        """What it was opened through: 'vfio', 'uio', 'virtual'."""
        return self._backend.via

    @property
    def bar_sizes(self) -> Mapping[int, int]:
        """Number and size in bytes of every BAR that is implemented."""
        return self._backend.bar_sizes

    def bar(self, number: int) -> Window:
        """The window on a BAR: the same one each time, open as long as the device."""
        self._check_open()
        if number not in self._windows:
            if number not in self.bar_sizes:
                raise NoDevice(
                    f"{self.address}: no BAR {number}; it has {_numbers(self.bar_sizes)}"
                )
            self._windows[number] = self._backend.bar(number)
        return self._windows[number]

    @property
    def config(self) -> Window:
        """PCI configuration space."""
        if self._backend.config is None:
            raise UnsupportedError(f"{self.address}: no PCI configuration space through {self.via}")
        return self._backend.config

    @property
    def irq_kind(self) -> IrqKind:
        """How it signals: what was forced, else the best that it has."""
        counts = self._backend.irq_counts
        if self._irq_kind is not None and self._irq_kind not in counts:
            offered = ", ".join(kind.value for kind in counts) or "none"
            raise UnsupportedError(
                f"{self.address}: no {self._irq_kind.value} interrupts through {self.via}; "
                f"it offers {offered}"
            )
        for kind in (IrqKind.MSIX, IrqKind.MSI, IrqKind.INTX):
            if kind in counts and self._irq_kind in {kind, None}:
                return kind
        raise UnsupportedError(f"{self.address}: no interrupts through {self.via}: poll instead")

    @property
    def irq_count(self) -> int:
        """How many interrupts it has, 0 where it can only be polled."""
        counts = self._backend.irq_counts
        return counts[self.irq_kind] if counts else 0

    def irq(self, index: int = 0) -> Irq:
        """Interrupt `index`, switched on: the same object each time, open as long as the device."""
        self._check_open()
        if index not in self._irqs:
            kind = self.irq_kind
            if not 0 <= index < self.irq_count:
                raise RegisterValueError(
                    f"{self.address}: no interrupt {index}; {kind.value} has {self.irq_count}"
                )
            line = self._backend.irq_line(kind, index)
            name = f"{self.address} {kind.value} {index}"
            self._irqs[index] = Irq(line, name, self.check_present)
        return self._irqs[index]

    @property
    def dma(self) -> Dma:
        """Its view of memory, or `UnsupportedError` where it may not have any."""
        self._check_open()
        if self._dma is None:
            self._dma = Dma(self._backend.dma, self.address, self._dma_bits)
        return self._dma

    @property
    def can_reset(self) -> bool:
        """Whether there is a reset through this backend."""
        return self._backend.can_reset

    def reset(self) -> None:
        """Reset the function; `UnsupportedError` where there is no way to."""
        self.require_reset()
        self._backend.reset()

    def require_reset(self) -> None:
        """Raise `UnsupportedError` where there is no way to reset it."""
        if not self.can_reset:
            raise UnsupportedError(f"{self.address}: no reset through {self.via}")

    def set_bus_master(self, on: bool) -> None:
        """Let it reach memory and send MSI, or stop both; nothing where there is no PCI."""
        if self._backend.config is not None:
            pci_config.set_bus_master(self._backend.config, on)

    def check_present(self) -> None:
        """Raise `DeviceGone` if configuration space answers all ones."""
        if self._backend.config is not None and not pci_config.is_present(self._backend.config):
            raise DeviceGone(f"{self.address}: configuration space reads all ones: it is gone")

    def close(self) -> None:
        """End interrupts, unmap DMA memory, close windows, in this order. Twice is fine."""
        self._closed = True
        way_out = Teardown()
        for number, window in self._windows.items():
            way_out.push(f"close BAR {number}", window.close)
        if self._dma is not None:
            way_out.push("unmap DMA memory", self._dma.close)
        for index, irq in self._irqs.items():
            way_out.push(f"switch off interrupt {index}", irq.close)
        self._windows, self._irqs, self._dma = {}, {}, None
        way_out.run()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"{self.address} is closed")


def _numbers(numbers: Mapping[int, int]) -> str:
    return ", ".join(str(number) for number in sorted(numbers)) or "none"

"""Interrupt vectors of the model: messages, or the one level of INTx behind INTMS and INTMC.

NVM Express Base Specification 1.4, sections 3.1.3, 3.1.4 and 7.5.
"""

from __future__ import annotations

from collections.abc import Callable

from uspace_drv.models.config import ModelConfig
from uspace_drv.models.interrupts import ModelIrqs

PINS = 32
"""Vectors that INTMS and INTMC can mask."""


class Vectors:
    """What the vectors of one controller signal; `parts` gives those of the model's function."""

    def __init__(self, parts: Callable[[], tuple[ModelConfig, ModelIrqs]]) -> None:
        self._parts = parts
        self.mask = 0
        """What INTMS and INTMC read: a 1 holds the vector back."""
        self.are_lost = False
        """For tests: nothing is signalled."""
        self._pending = 0

    def raise_(self, vector: int) -> None:
        """A completion was posted to a queue of this vector."""
        config, interrupts = self._parts()
        if self.are_lost:
            return
        if config.is_msix_enabled:
            interrupts.send(vector)
        elif vector < PINS:
            self._pending |= 1 << vector
            self._show()

    def lower(self, vector: int) -> None:
        """Nothing is left to take in any queue of this vector."""
        if vector < PINS and self._pending >> vector & 1:
            self._pending &= ~(1 << vector)
            self._show()

    def hold(self, bits: int) -> None:
        """Mask these: a write to INTMS."""
        self.mask |= bits
        self._show()

    def let(self, bits: int) -> None:
        """Unmask these: a write to INTMC."""
        self.mask &= ~bits
        self._show()

    def reset(self) -> None:
        """Nothing is pending, and nothing masked."""
        self._pending = self.mask = 0
        self._show()

    def _show(self) -> None:
        self._parts()[1].set_level(self._pending & ~self.mask != 0)

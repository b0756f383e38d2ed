"""What the host has said against a device, for everything that waits for it: a `registers.Link`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from uspace_drv.errors import DeviceError, DeviceGone


class Health:
    """Well until `fail()`, and again after `recover()`, unless the device is gone for good.

    `name` is the device's address, for errors. `check_present` asks the device itself, and raises
    `DeviceGone` where it does not answer.
    """

    timeout_note = ""

    def __init__(self, name: str, check_present: Callable[[], None] = lambda: None) -> None:
        self._name = name
        self.check_present = check_present
        self._fault: tuple[type[DeviceError], str] | None = None
        self._spared: int | None = None
        self._verdict = threading.Lock()  # the host speaks while a reset ends

    @property
    def is_well(self) -> bool:
        """Whether a wait may begin or go on, in whatever thread."""
        return self._fault is None

    def fail(self, kind: type[DeviceError], reason: str) -> None:
        """From now on raise such an error; what is gone stays so."""
        with self._verdict:
            if not self._is_gone:
                self._fault = kind, reason

    def recover(self) -> None:
        """Be well again, after a reset."""
        with self._verdict:
            if not self._is_gone:
                self._fault = None

    def check_alive(self) -> None:
        """Raise what `fail()` said, except to a thread that is spared."""
        if self._fault is not None and self._spared != threading.get_ident():
            kind, reason = self._fault
            raise kind(f"{self._name}: {reason}")

    @contextmanager
    def sparing(self) -> Iterator[None]:
        """Let this thread wait all the same: it quiets the device before that is given back."""
        self._spared = threading.get_ident()
        try:
            yield
        finally:
            self._spared = None

    @property
    def _is_gone(self) -> bool:
        return self._fault is not None and issubclass(self._fault[0], DeviceGone)

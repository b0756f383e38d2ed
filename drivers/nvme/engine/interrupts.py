"""Interrupt 0: the admin queue's, and that of every queue that has no vector of its own.

With INTx, or with a single message, all queues of a controller signal by the same interrupt (NVM
Express Base Specification 1.4, section 7.5.1), and without any they can only be asked. So there may
be many who wait, in many threads, and what they wait for is not the interrupt but their own queue:
each looks, sleeps, and looks again.
"""

from __future__ import annotations

import threading

from uspace_drv import BusyError, Deadline, DeviceTimeout, Irq

LOOK_AGAIN = 0.1
"""Seconds: the longest that anyone sleeps on an interrupt, for one may get lost."""

FIRST_NAP, LAST_NAP = 50e-6, 1e-3
"""Seconds between two looks where nothing interrupts; they double."""


class SharedInterrupt:
    """An interrupt that many may wait for; `irq` is None where there is none.

        mark = shared.mark
        while not queue_has_something():
            shared.sleep(mark, deadline)
            mark = shared.mark

    Once the driver's handler runs it calls `tell`, and those who wait are woken by that. Before
    and after (in `probe` and `remove`) the one who waits takes the interrupt itself.
    """

    def __init__(self, irq: Irq | None) -> None:
        self._irq = irq
        self._told = threading.Condition()
        self._count = 0
        self._teller: int | None = None
        self._nap = FIRST_NAP

    @property
    def mark(self) -> int:
        """To be taken before one looks: what fires after it ends the `sleep` at once."""
        return self._count

    def tell(self) -> None:
        """Say that it fired; the driver's handler does."""
        with self._told:
            self._teller = threading.get_ident()
            self._count += 1
            self._told.notify_all()

    def sleep(self, mark: int, deadline: Deadline) -> None:
        """Sleep until it fires, or it did since `mark`; for `LOOK_AGAIN` or what is left at most.

        Raises `DeviceGone` or `ClosedError` where there is nothing to wait for any more.
        """
        seconds = min(LOOK_AGAIN, deadline.remaining())
        if self._irq is None or self._teller == threading.get_ident():
            self._take_nap(mark, seconds)
            return
        try:
            self._irq.wait(seconds)
        except DeviceTimeout:
            return
        except BusyError:  # the handlers' thread waits for it, and tells
            with self._told:
                self._told.wait_for(lambda: self._count != mark, seconds)

    def _take_nap(self, mark: int, seconds: float) -> None:
        """Without an interrupt, or in the very thread that would be told of it."""
        with self._told:
            self._told.wait(min(self._nap, seconds))
        self._nap = FIRST_NAP if self._count != mark else min(2 * self._nap, LAST_NAP)

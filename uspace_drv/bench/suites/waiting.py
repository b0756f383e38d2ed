"""Ways to wait for an interrupt: each gives the time from the moment that it was raised.

That is until the first line of the driver that waited. Before the next one is raised the cause is
quieted, which is not counted.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from uspace_drv.bench.histogram import Histogram
from uspace_drv.bench.setting import Setting
from uspace_drv.bench.stopwatch import Stopwatch
from uspace_drv.bench.suite import Sample, Way
from uspace_drv.bench.suites.bell import Bell
from uspace_drv.bench.suites.processors import PATIENCE, alarm, on
from uspace_drv.errors import HostError
from uspace_drv.irq import Irq

SHORT = 50e-6
"""Seconds that the way which polls a little polls before it sleeps."""

EVENTFD_BYTES, UIO_BYTES = 8, 4
"""What a read of either has to ask for."""


def nothing() -> None:
    """Quiet what needs no quieting."""


class Listener:
    """Who waits for `irq` on `processor`, while `bell` raises it; `quiet` takes the cause away."""

    def __init__(
        self, setting: Setting, irq: Irq, bell: Bell, processor: int, quiet: Callable[[], None]
    ) -> None:
        self._setting = setting
        self._irq = irq
        self._bell = bell
        self._processor = processor
        self._quiet = quiet
        self._taken: list[int] = []

    def asleep(self) -> Way:
        """Block until it comes."""
        return self._by(lambda: self._irq.wait(PATIENCE))

    def polling(self) -> Way:
        """Keep the processor busy until it comes, in C."""
        return self._by(lambda: self._irq.wait(PATIENCE, spin=PATIENCE))

    def polling_first(self) -> Way:
        """Keep the processor busy for a moment, then sleep."""
        return self._by(lambda: self._irq.wait(PATIENCE, spin=SHORT))

    def in_a_loop(self) -> Way:
        """Ask again and again, in Python."""

        def wait() -> None:
            end = time.monotonic() + PATIENCE
            while not self._irq.poll():
                if time.monotonic() > end:
                    raise HostError(f"{self._irq.name}: no interrupt within {PATIENCE:g} s")

        return self._by(wait)

    def awaiting(self) -> Way:
        """Await it in asyncio."""

        async def listen() -> None:
            async with asyncio.timeout(self._setting.seconds + PATIENCE):
                for _ in self._rounds():
                    await self._irq
                    self._came(time.monotonic_ns())

        return self._measured(lambda: asyncio.run(listen()))

    def reading(self, size: int = EVENTFD_BYTES) -> Way:
        """Read `size` bytes of the bare descriptor, which blocks: what the kernel alone takes."""
        fd = self._irq.fileno()

        def listen() -> None:
            patience = self._setting.seconds + PATIENCE
            with _blocking(fd), alarm(patience, f"{self._irq.name}: a bare read"):
                for _ in self._rounds():
                    os.read(fd, size)
                    self._came(time.monotonic_ns())

        return self._measured(listen)

    def _by(self, wait: Callable[[], object]) -> Way:
        def listen() -> None:
            for _ in self._rounds():
                wait()
                self._came(time.monotonic_ns())

        return self._measured(listen)

    def _measured(self, listen: Callable[[], None]) -> Way:
        def measure() -> Sample:
            self._taken.clear()
            self._quiet()
            self._irq.poll()  # of an earlier sample that was interrupted
            with Stopwatch() as watch:
                listen()
            return watch.sample(len(self._taken), Histogram.of(np.array(self._taken)))

        return on(self._processor, measure)

    def _rounds(self) -> Iterator[None]:
        """Ask for the next one until the time is up."""
        end = time.monotonic() + self._setting.seconds
        while not self._taken or time.monotonic() < end:
            self._bell.ask()
            yield

    def _came(self, now: int) -> None:
        raised = self._bell.stamp()
        if not raised:
            raise HostError(
                f"{self._irq.name}: fired and nobody raised it: another device shares its line, or "
                "another program uses it"
            )
        self._taken.append(now - raised)
        self._quiet()


@contextmanager
def _blocking(fd: int) -> Iterator[None]:
    os.set_blocking(fd, True)
    try:
        yield
    finally:
        os.set_blocking(fd, False)

"""Somebody who raises an interrupt when asked: another process, or a model that one serves.

What it raises through is told by a descriptor: an eventfd, or a file with a device's registers.
"""

from __future__ import annotations

import mmap
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Protocol, Self

from uspace_drv.bench.suites.processors import PATIENCE
from uspace_drv.errors import HostError
from uspace_drv.native import wait_readable

PROGRAM = Path(__file__).with_name("bell_process.py")


class Bell(Protocol):
    """Raises an interrupt a moment after it was asked to."""

    def ask(self) -> None:
        """Ask for one, and forget when the last one was."""

    def stamp(self) -> int:
        """When it was raised, in nanoseconds of CLOCK_MONOTONIC; 0 if it was not."""


class BellProcess:
    """A process of its own on `processor`, which raises `delay` seconds after it was asked.

    `target` is an eventfd, or, with a `place`, a file: the registers of a device begin at its
    first number, and the second is the offset of the one that is to be set to 1. Raises
    `HostError`, with what the process said, if it cannot start. It ends with this one.
    """

    def __init__(
        self, target: int, *, processor: int, delay: float, place: tuple[int, int] | None = None
    ) -> None:
        page = os.memfd_create("bell", os.MFD_CLOEXEC)
        self._orders, theirs = socket.socketpair()
        try:
            os.ftruncate(page, mmap.PAGESIZE)
            fds = [page, theirs.fileno(), target]
            numbers = [processor, int(delay * 1e9), *fds, *(place or ())]
            command = [sys.executable, "-I", "-S", str(PROGRAM), *map(str, numbers)]
            self._page = mmap.mmap(page, mmap.PAGESIZE)
            self._process = subprocess.Popen(
                command, pass_fds=fds, stderr=subprocess.PIPE, start_new_session=True
            )
        except BaseException:
            self._orders.close()
            raise
        finally:
            theirs.close()
            os.close(page)
        self._stamp = memoryview(self._page).cast("q")
        try:
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    def ask(self) -> None:
        """Ask for one, and forget when the last one was."""
        self._stamp[0] = 0
        try:
            self._orders.send(b"!")
        except OSError as error:
            said = self._last_words()
            raise HostError(
                f"the process that raises interrupts ended: {said}", cause=error
            ) from error

    def stamp(self) -> int:
        """When it was raised; 0 if it was not."""
        return self._stamp[0]

    def close(self) -> None:
        """End the process. Twice is fine."""
        self._orders.close()
        self._process.kill()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._stamp.release()
        self._page.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait_until_ready(self) -> None:
        ready = wait_readable(self._orders.fileno(), -1, PATIENCE, 0.0)
        if ready and self._orders.recv(1):
            return
        said = self._last_words() or "late"
        raise HostError(f"the process that raises interrupts did not start: {said}")

    def _last_words(self) -> list[str]:
        """End it, if it has not; the last line of what it said, once."""
        self._process.kill()
        if self._process.stderr is None or self._process.stderr.closed:
            return []
        return self._process.communicate()[1].decode(errors="replace").strip().splitlines()[-1:]

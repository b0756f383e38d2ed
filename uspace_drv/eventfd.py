"""A counter behind a file descriptor (Linux eventfd(2)): how every interrupt reaches a driver."""

from __future__ import annotations

import os
import select
import sys


class EventFd:
    """Readable while the counter is not zero. `close()` may be called twice."""

    __slots__ = ("_fd",)

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        """The descriptor, -1 when closed."""
        return self._fd

    def signal(self) -> None:
        """Add one; a counter that is full is readable anyway."""
        try:  # noqa: SIM105 - suppress() costs as much as the call itself
            os.eventfd_write(self._fd, 1)
        except BlockingIOError:
            pass

    def take(self) -> int:
        """Read the counter and set it to zero; never blocks."""
        try:
            return os.eventfd_read(self._fd)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """Close the descriptor."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


class SharedEventFd(EventFd):
    """One that another process has too, and may set to block at any time, or fill.

    `fd` is one that somebody else made: it is taken over. `take` cannot block. `signal` could only
    if the other process clears O_NONBLOCK and fills the counter between two system calls here:
    Linux writes to an eventfd without blocking by that flag alone, which all holders share.
    """

    __slots__ = ("_room",)

    def __init__(self, fd: int | None = None) -> None:
        if fd is None:
            super().__init__()
        else:
            self._fd = fd
        self._room = select.poll()
        self._room.register(self._fd, select.POLLOUT)

    def signal(self) -> None:
        """Add one; a counter that is full is readable anyway."""
        os.set_blocking(self._fd, False)
        if self._room.poll(0):
            super().signal()

    def take(self) -> int:
        """Read the counter and set it to zero; never blocks, whatever the other process does."""
        counter = bytearray(8)
        try:
            os.preadv(self._fd, [counter], -1, os.RWF_NOWAIT)
        except BlockingIOError:
            return 0
        return int.from_bytes(counter, sys.byteorder)

"""A counter behind a file descriptor (Linux eventfd(2)): how every interrupt reaches a driver."""

from __future__ import annotations

import os


class EventFd:
    """Readable while the counter is not zero. `close()` may be called twice.

    `fd` is one that somebody else made: it is taken over, and made not to block.
    """

    __slots__ = ("_fd",)

    def __init__(self, fd: int | None = None) -> None:
        if fd is None:
            fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        else:
            os.set_blocking(fd, False)
        self._fd = fd

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

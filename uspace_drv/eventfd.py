"""A counter behind a file descriptor (Linux eventfd(2)): how every interrupt reaches a driver."""

from __future__ import annotations

import os


class EventFd:
    """Readable while the counter is not zero. `close()` may be called twice."""

    __slots__ = ("_fd",)

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        """The descriptor, -1 when closed."""
        return self._fd

    def signal(self) -> None:
        """Add one."""
        os.eventfd_write(self._fd, 1)

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

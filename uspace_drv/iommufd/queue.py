"""A queue that the kernel fills: an object with a descriptor of its own."""

from __future__ import annotations

import errno
import os

from uspace_drv.errors import ClosedError, HostError
from uspace_drv.iommufd.objects import CLOSED, Object, OpenFile

_MOST_BYTES = 1 << 22


class Queue(Object):
    """Readable while something is there. The descriptor keeps it in use, so it is closed first."""

    def __init__(self, file: OpenFile, number: int, fd: int, *made_from: Object) -> None:
        super().__init__(file, number, *made_from)
        self._fd = fd

    def fileno(self) -> int:
        """The descriptor to poll for reading; -1 when closed."""
        return self._fd

    def _read(self, room: int) -> bytes:
        """What is there, nothing if there is nothing. Never blocks.

        An entry comes whole; one that is larger than `room` bytes is asked for with more room.
        """
        self._check_open()
        try:
            return os.read(self._fd, room)
        except OSError as error:
            if error.errno == errno.EINVAL and room < _MOST_BYTES:
                return self._read(4 * room)
            raise HostError(f"{self._where}: {error.strerror}", cause=error) from error

    def _check_open(self) -> None:
        if self._fd == CLOSED:
            raise ClosedError(f"{self._file.name}: the {type(self).__name__} is closed")

    @property
    def _where(self) -> str:
        return f"{self._file.name}: {self}"

    def _close_files(self) -> None:
        if self._fd != CLOSED:
            fd, self._fd = self._fd, CLOSED
            os.close(fd)

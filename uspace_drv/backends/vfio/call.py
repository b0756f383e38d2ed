"""One VFIO call: an ioctl whose failure says what was asked for."""

from __future__ import annotations

import ctypes
import errno
import fcntl
from enum import IntEnum

from uspace_drv.errors import DeviceGone, HostError


def call(
    where: str, fd: int, request: IntEnum, argument: int | bytes | ctypes.Structure | bytearray
) -> int:
    """Issue a `Request` or `Type1Request` and return its result.

    A structure or bytearray is filled in place.

    Raises `DeviceGone` where the kernel says that there is no such device any more, `HostError`
    with its errno otherwise; both begin with `where`, and the caller adds the cure.
    """
    try:
        if isinstance(argument, int):
            return fcntl.ioctl(fd, request, argument)
        # Only a writable buffer gives the call's own result, and has no limit of 1024 bytes.
        writable = bytearray(argument) if isinstance(argument, bytes) else argument
        return int(fcntl.ioctl(fd, request, writable, True))
    except OSError as error:
        message = f"{where}: VFIO_{request.name}: {error.strerror}"
        if error.errno in {errno.ENODEV, errno.EIO}:
            raise DeviceGone(message) from error
        raise HostError(message, cause=error) from error

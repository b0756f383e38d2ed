"""One call to /dev/iommu: an ioctl whose failure says what was asked for, and what cures it."""

from __future__ import annotations

import errno
import fcntl
import os
from ctypes import Structure, sizeof

from uspace_drv.errors import HostError, UnsupportedError
from uspace_drv.iommufd.cures import cure_of
from uspace_drv.iommufd.uapi.requests import FIRST_KERNEL, NEEDS, Request


def call(where: str, fd: int, request: Request, argument: Structure) -> None:
    """Issue the request; the kernel fills in its answer. `argument.size` is set here.

    Raises `UnsupportedError` where this kernel does not know the request or what was asked of it,
    `HostError` with its errno otherwise. Both begin with `where` and end with the cure.
    """
    argument.size = sizeof(argument)
    try:
        fcntl.ioctl(fd, request, argument, True)
    except OSError as error:
        message = f"{where}: IOMMU_{request.name}: {error.strerror}"
        if error.errno == errno.ENOTTY:
            needed = NEEDS.get(request, FIRST_KERNEL)
            raise UnsupportedError(f"{message}: it needs {needed}; this is {_kernel()}") from error
        cure = cure_of(request, error)
        if error.errno in {errno.EOPNOTSUPP, errno.E2BIG}:
            raise UnsupportedError(f"{message} in {_kernel()}; {cure}") from error
        raise HostError(f"{message}; {cure}" if cure else message, cause=error) from error


def _kernel() -> str:
    return f"Linux {os.uname().release}"

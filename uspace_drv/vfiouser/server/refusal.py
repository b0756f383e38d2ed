"""How the vfio-user server says no: an error number for the client, words for whoever runs it.

A refusal answers one command and the session goes on, as a file stays open when an ioctl fails;
`PeerError` is for what no sane client sends, and ends the session.
"""

from __future__ import annotations

import errno

from uspace_drv.errors import DeviceError


class Refusal(DeviceError):
    """A command that cannot be done; `number` is the errno of the reply."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


def invalid(message: str) -> Refusal:
    """EINVAL: numbers that do not fit this device."""
    return Refusal(errno.EINVAL, message)


def unsupported(message: str) -> Refusal:
    """ENOTSUP: sane, and not in this server or model."""
    return Refusal(errno.ENOTSUP, message)

"""Replies that say no: errors of the server as exceptions, and ours as errnos (errno(3))."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from uspace_drv.errors import DeviceError, PeerError, UnsupportedError
from uspace_drv.native import Message
from uspace_drv.vfiouser.numbers import Command, Flag

_LEAST_NO_ERRNO = 4096
_UNSUPPORTED = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY}


def refusal(name: str, command: Command, reply: Message) -> DeviceError | UnsupportedError:
    """What to raise for a reply that is no answer to `command`."""
    if not reply.flags & Flag.ERROR:
        return PeerError(
            f"{name}: the reply to {command.name} says that it is one to command {reply.command}"
        )
    words = (
        os.strerror(reply.error) if 0 < reply.error < _LEAST_NO_ERRNO else f"error {reply.error}"
    )
    kind = UnsupportedError if reply.error in _UNSUPPORTED else DeviceError
    return kind(f"{name}: the server refused {command.name}: {words}")


def error_of(failure: DeviceError | UnsupportedError) -> int:
    """The errno of a reply to a request that failed here."""
    if isinstance(failure, UnsupportedError):
        return errno.EOPNOTSUPP
    return errno.EINVAL if isinstance(failure, PeerError) else errno.EFAULT


def close_all(fds: Iterable[int]) -> None:
    """Close the descriptors that came with a message."""
    for fd in fds:
        os.close(fd)

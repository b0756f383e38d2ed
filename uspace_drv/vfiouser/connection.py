"""Connecting to a vfio-user server's UNIX socket (unix(7))."""

from __future__ import annotations

import errno
import socket
import struct

from uspace_drv.errors import BusyError, HostError, NoDevice
from uspace_drv.native import Channel


def connect(name: str, path: str, max_payload: int, max_fds: int, timeout: float) -> Channel:
    """Return an open channel, or say why there is none within `timeout` seconds."""
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # What holds for sending holds for waiting to be accepted; Python's own time-out does not.
        limit = struct.pack("ll", int(timeout), int(timeout % 1 * 1e6))
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        end.connect(path)
        channel = Channel(name, end.fileno(), max_payload, max_fds, send_timeout=timeout)
    except OSError as error:
        end.close()
        raise _explain(name, path, error) from error
    except BaseException:
        end.close()
        raise
    end.detach()
    return channel


def _explain(name: str, path: str, error: OSError) -> Exception:
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return NoDevice(f"{name}: there is no socket {path}; run: uspace serve MODEL {path}")
    if error.errno == errno.ECONNREFUSED:
        return NoDevice(f"{name}: nobody listens at {path}; run: uspace serve MODEL {path}")
    if error.errno == errno.EAGAIN:
        return BusyError(f"{name}: the server accepts nobody now: too many wait for it already")
    if isinstance(error, HostError):
        return error
    return HostError(f"{name}: cannot connect to {path}: {error}", cause=error)

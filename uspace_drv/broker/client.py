"""The client of a broker: a device without a right to open anything (unix(7), SCM_RIGHTS)."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Sequence

from uspace_drv.backends.vfio import VfioDevice, resume
from uspace_drv.backends.vfio.opening import Handover, Opening
from uspace_drv.broker.wire import Offer, receive_offer
from uspace_drv.deadline import Deadline
from uspace_drv.errors import DeviceTimeout, HostError, PeerError, UnsupportedError, UspaceError
from uspace_drv.port import DmaSpace

_PAUSE = 0.01  # seconds
TIMEOUT = 10.0
"""Seconds that the broker has to open the device, a reset included."""


class Brokered:
    """An `Opening` that goes back to the broker when it is closed, or when this process ends."""

    def __init__(self, opening: Opening, connection: socket.socket) -> None:
        self._opening = opening
        self._connection = connection

    @property
    def via(self) -> str:
        """How the broker opened it."""
        return self._opening.via

    @property
    def dma(self) -> DmaSpace:
        """Its view of memory."""
        return self._opening.dma

    @property
    def reset_fds(self) -> Sequence[int]:
        """What proves that all functions of a hot reset are ours."""
        return self._opening.reset_fds

    def open_device(self) -> int:
        """Return a new descriptor of the device."""
        return self._opening.open_device()

    def handover(self) -> Handover:
        """What the next process needs; the broker goes on counting this one as its client."""
        return self._opening.handover()

    def close(self) -> None:
        """Close the opening, then let the broker know by hanging up. Twice is fine."""
        try:
            self._opening.close()
        finally:
            self._connection.close()


def open_brokered(path: str, *, timeout: float = TIMEOUT) -> VfioDevice:
    """Get the device that a broker serves at the socket `path`.

    `BusyError` where another client has it, `HostError` where no broker listens or this user is
    not the one it serves, `DeviceTimeout` without an answer, `PeerError` for a strange one.
    """
    connection = _connect(path, timeout)
    try:
        offer = receive_offer(connection)
        connection.settimeout(None)
        opening = Brokered(_resume(offer), connection)
    except BaseException as error:
        connection.close()
        raise _placed(path, error, timeout) from error
    return VfioDevice.from_opening(offer.address, opening)


def _resume(offer: Offer) -> Opening:
    """Raises before it took the descriptors over, or not at all."""
    try:
        return resume(offer.handover, offer.address)
    except (ValueError, TypeError, KeyError, UnsupportedError) as error:
        for fd in offer.handover.fds:
            os.close(fd)
        if isinstance(error, UnsupportedError):
            raise
        raise PeerError(f"{offer.handover.kind} was handed over wrongly: {error!r}") from error


def _connect(path: str, timeout: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(timeout)
    try:
        _knock(connection, path, Deadline(timeout))
    except OSError as error:
        connection.close()
        raise HostError(
            f"broker:{path}: cannot connect: {error.strerror or error}{_cure(path, error)}",
            cause=error,
        ) from error
    return connection


def _knock(connection: socket.socket, path: str, deadline: Deadline) -> None:
    """Connect, though so many others want to that the kernel sends us away at first."""
    while True:
        try:
            return connection.connect(path)
        except BlockingIOError:
            if deadline.passed:
                raise
        time.sleep(_PAUSE)


def _cure(path: str, error: OSError) -> str:
    if error.errno in {errno.ENOENT, errno.ECONNREFUSED}:
        return f"; is a broker at work? run: sudo uspace broker ADDR {path} --user {os.getuid()}"
    if error.errno == errno.EACCES:
        return f"; it serves another user; start it with --user {os.getuid()}"
    return ""


def _placed(path: str, error: BaseException, timeout: float) -> BaseException:
    """The error with the socket's path in front of it; what is not ours stays as it is."""
    if isinstance(error, TimeoutError):
        return DeviceTimeout(f"broker:{path}: no answer within {timeout:.3f} s")
    if isinstance(error, OSError) and not isinstance(error, UspaceError):
        return HostError(f"broker:{path}: {error.strerror or error}", cause=error)
    if isinstance(error, UspaceError):
        return type(error)(f"broker:{path}: {error}")
    return error

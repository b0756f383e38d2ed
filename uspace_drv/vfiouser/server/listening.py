"""A socket at which a model is served: to one client after the other, until it is closed.

    with Server(EduModel(), "/tmp/edu"):
        ...   # any vfio-user client may connect

A client that connects while another one is there waits for its turn.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from uspace_drv.errors import BusyError, DeviceTimeout, HostError, UspaceError
from uspace_drv.eventfd import EventFd
from uspace_drv.models import DeviceModel
from uspace_drv.native import wait_readable
from uspace_drv.vfiouser.server.session import Session

BACKLOG = 128
SPIN = 0.01
"""Seconds that a busy-polling server looks for the next command before it sleeps."""

LEAVE_TIMEOUT = 10.0
"""Seconds that a command in progress gets to end when the server closes."""

REMEMBERED = 100
NO_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
RETRY = 0.1
"""Seconds until a client is accepted that this process had no descriptor for."""


class Server:
    """Serves `model` at the UNIX socket `path`, from `start()` or `with` on, in a thread.

    `serve()` does it in the calling thread instead. `complaints` keeps what clients did wrong, and
    what went wrong in the model; `complain` is told each of them. `busy_poll` burns a processor
    while a client is active, for shorter answers. The model stays the caller's, who closes it.
    """

    def __init__(
        self,
        model: DeviceModel,
        path: str | Path,
        *,
        busy_poll: bool = False,
        complain: Callable[[UspaceError], None] | None = None,
    ) -> None:
        self.path = Path(path)
        self.complaints: deque[UspaceError] = deque(maxlen=REMEMBERED)
        self._model = model
        self._complain = complain or self.complaints.append
        self._spin = SPIN if busy_poll else 0.0
        self._turn = threading.Lock()
        self._session: Session | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._stop = EventFd()
        try:
            self._listener = _listen(self.path)
        except BaseException:
            self._stop.close()
            raise
        self._inode = self.path.stat().st_ino

    def start(self) -> Self:
        """Serve in a thread."""
        self._thread = threading.Thread(
            target=self.serve, name=f"{self._model.name} server", daemon=True
        )
        self._thread.start()
        return self

    def serve(self) -> None:
        """Serve in this thread, until `close()` in another one, or a signal that raises."""
        watched = select.poll()
        watched.register(self._listener, select.POLLIN)
        watched.register(self._stop, select.POLLIN)
        while not self._stopping:
            watched.poll()
            if not self._stopping:
                self._serve_next()

    def close(self) -> None:
        """Send the client away, stop serving and remove the socket. Twice is fine."""
        if self._stopping:
            return
        with self._turn:
            self._stopping = True
            self._stop.signal()
            if self._session is not None:
                self._session.end()
        if self._thread is not None:
            self._thread.join(LEAVE_TIMEOUT)
            if self._thread.is_alive():
                raise DeviceTimeout(f"{self._model.name}: it did not answer a client's command")
        self._listener.close()
        with suppress(FileNotFoundError):
            if self.path.stat().st_ino == self._inode:  # else another server has taken its place
                self.path.unlink()
        self._stop.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve_next(self) -> None:
        """Take the next client on and stay with it until it leaves."""
        try:
            connection = self._listener.accept()[0]
        except BlockingIOError:
            return  # it has left already
        except OSError as error:
            self._complain(HostError(f"{self.path}: cannot accept a client: {error}", cause=error))
            if error.errno in NO_RESOURCES:
                wait_readable(self._stop.fileno(), -1, RETRY, 0.0)
            return
        with connection:
            session = Session(self._model, connection, self._complain, self._spin)
        with self._turn:
            self._session = session
            if self._stopping:
                session.end()
        try:
            session.serve()
        except UspaceError as error:
            self._complain(error)
        finally:
            with self._turn:
                self._session = None


def _listen(path: Path) -> socket.socket:
    """A listening socket, in the place of one that a server left behind when it was killed."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _clear(path)
        listener.bind(os.fspath(path))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise HostError(f"cannot serve at {path}: {error}", cause=error) from error
    except BaseException:
        listener.close()
        raise
    return listener


def _clear(path: Path) -> None:
    """Remove a socket at which nobody listens; anything else stays where it is."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise HostError(f"cannot serve at {path}: it exists and is no socket; name another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        answer = probe.connect_ex(os.fspath(path))
    if answer != errno.ECONNREFUSED:
        raise BusyError(f"cannot serve at {path}: another server listens there")
    path.unlink()

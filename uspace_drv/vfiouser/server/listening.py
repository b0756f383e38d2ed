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
import struct
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self, TypeVar

from uspace_drv.errors import BusyError, DeviceTimeout, HostError, UspaceError
from uspace_drv.eventfd import EventFd
from uspace_drv.models import DeviceModel
from uspace_drv.native import wait_readable
from uspace_drv.vfiouser.server.session import Session

T = TypeVar("T")

BACKLOG = 128
SPIN = 0.01
"""Seconds that a busy-polling server looks for the next command before it sleeps."""

LEAVE_TIMEOUT = 10.0
"""Seconds that a command in progress gets to end when the server closes."""

MOST_BYTES = 107
"""What fits in `sun_path` with its final zero (unix(7))."""

CREDENTIALS = struct.Struct("3i")
"""Process, user and group."""

REMEMBERED = 100
NO_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
RETRY = 0.1
"""Seconds until a client is accepted that this process had no descriptor for."""


class Server:
    """Serves `model` at the UNIX socket `path`, from `start()` or `with` on, in a thread.

    `serve()` does it in the calling thread instead. `complaints` keeps what clients did wrong, and
    what went wrong in the model; `complain` is told each of them, and `notice` who comes and goes.
    `busy_poll` burns a processor while a client is active, for shorter answers. The model stays the
    caller's, who closes it. A client that has left may keep what it has mapped of BAR memory: serve
    a new model to clients that must not meet.
    """

    def __init__(
        self,
        model: DeviceModel,
        path: str | Path,
        *,
        busy_poll: bool = False,
        complain: Callable[[UspaceError], None] | None = None,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        self.path = Path(path)
        self.complaints: deque[UspaceError] = deque(maxlen=REMEMBERED)
        self._model = model
        self._listeners = (complain, notice)
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
        """Send the client away, stop serving and remove the socket. Twice is fine.

        `DeviceTimeout` if the model is in the middle of an access; close again when it is not.
        """
        if self._stop.fileno() < 0:
            return
        with self._turn:
            self._stopping = True
            self._stop.signal()
            if self._session is not None:
                self._session.end()
        try:
            self._join()
        finally:
            with suppress(FileNotFoundError):
                if self.path.stat().st_ino == self._inode:  # else another server is in its place
                    self.path.unlink()
        self._listener.close()
        self._stop.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join(LEAVE_TIMEOUT)
            if self._thread.is_alive():
                raise DeviceTimeout(f"{self._model.name}: it did not answer a client's command")

    def _serve_next(self) -> None:
        """Take the next client on and stay with it until it leaves; none ends the server."""
        try:
            connection = self._listener.accept()[0]
        except BlockingIOError:
            return  # it has left already
        except OSError as error:
            self._complain(HostError(f"{self.path}: cannot accept a client: {error}", cause=error))
            if error.errno in NO_RESOURCES:
                wait_readable(self._stop.fileno(), -1, RETRY, 0.0)
            return
        who = f"client of process {_process_of(connection)}"
        self._notice(f"{who} came")
        try:
            self._serve_client(connection)
        except UspaceError as error:
            self._complain(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next client is served
            self._complain(_failure("serving a client", error))
        self._notice(f"{who} left")

    def _serve_client(self, connection: socket.socket) -> None:
        with connection:
            session = Session(self._model, connection, self._complain, self._spin)
        with self._turn:
            self._session = session
            if self._stopping:
                session.end()
        try:
            session.serve()
        finally:
            with self._turn:
                self._session = None

    def _complain(self, error: UspaceError) -> None:
        self.complaints.append(error)
        self._tell(self._listeners[0], error)

    def _notice(self, words: str) -> None:
        self._tell(self._listeners[1], words)

    def _tell(self, listener: Callable[[T], None] | None, what: T) -> None:
        """A listener that fails, as one does whose output was closed, must not end the server."""
        if listener is not None:
            try:
                listener(what)
            except Exception as error:  # noqa: BLE001 - it is the caller's, and may do anything
                self.complaints.append(_failure("telling of a client", error))


def _failure(what: str, error: Exception) -> HostError:
    failure = HostError(f"{what} failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


def _process_of(connection: socket.socket) -> int:
    """The process that connected (unix(7), SO_PEERCRED); 0 where it is in another container."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    return int(CREDENTIALS.unpack(found)[0])


def _listen(path: Path) -> socket.socket:
    """A listening socket, in the place of one that a server left behind when it was killed."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _clear(path)
        listener.bind(os.fspath(path))
        listener.listen(BACKLOG)
    except BaseException as error:
        listener.close()
        if isinstance(error, OSError) and not isinstance(error, HostError):
            raise _explain(path, error) from error
        raise
    return listener


def _explain(path: Path, error: OSError) -> HostError:
    folder = path.absolute().parent
    reason = f"{error.strerror}; name another path"
    if not folder.is_dir():
        reason = f"there is no folder {folder}; make it, or name another path"
    elif error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        reason = f"{error.strerror}: {folder}; name a path in a folder that you may write to"
    return HostError(f"cannot serve at {path}: {reason}", cause=error)


def _clear(path: Path) -> None:
    """Remove a socket at which nobody listens; anything else stays where it is."""
    if (size := len(os.fsencode(path))) > MOST_BYTES:
        raise HostError(
            f"cannot serve at {path}: the path has {size} bytes and a socket's at most"
            f" {MOST_BYTES}; name a shorter one"
        )
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

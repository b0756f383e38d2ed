"""The broker's server: opens a device with its own rights, lends it to one client at a time.

unix(7): SO_PEERCRED says who connects, SCM_RIGHTS passes the descriptors. The connection stands for
the loan: the kernel ends it with the process of the client, however that ends.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from uspace_drv.backends.vfio import Opening, Options, open_function
from uspace_drv.broker.loan import Loan
from uspace_drv.broker.wire import Peer, peer_of, send_refusal
from uspace_drv.errors import BusyError, HostError, UspaceError
from uspace_drv.eventfd import EventFd
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.lock import lock_function
from uspace_drv.pci.sysfs import PciBus
from uspace_drv.teardown import Teardown

Opener = Callable[[], Opening]
BACKLOG = 16
PAUSE = 0.1
"""Seconds without a look at the socket, when there is nothing left to accept a client with."""


class Broker:
    """Serves one PCI function at a UNIX socket, from when it is made until `close()`.

    `user` (a number) may have it, besides this process's own user and root. `via` is a way of
    VFIO. What happens is told to `notice`, one line each. `BusyError`, `HostError` and
    `UnsupportedError` as `attach` raises them, now rather than when a client comes.
    """

    def __init__(
        self,
        address: PciAddress,
        path: str | Path,
        *,
        user: int | None = None,
        via: str = "vfio",
        notice: Callable[[str], None] = lambda _words: None,
    ) -> None:
        self.path = Path(path)
        bus, way_out = PciBus(), Teardown()
        self._address = str(address)
        self._users = {0, os.geteuid(), os.geteuid() if user is None else user}
        self._open: Opener = lambda: open_function(via, bus.function(address), bus, Options())
        self._notice = notice
        self._loan: Loan | None = None
        self._stopping = False
        self._way_out = way_out
        try:
            way_out.push("give the lock back", lock_function(address, bus.host).close)
            self._open().close()
            self._stop = EventFd()
            way_out.push("close the stop event", self._stop.close)
            folder = _open_folder(self.path)
            way_out.push("close the socket's folder", lambda: os.close(folder))
            # Who owns the folder could put another one in its place meanwhile.
            self._place = Path(f"/proc/self/fd/{folder}", self.path.name)
            self._listener = _listen(self.path, self._place)
            way_out.push("close the socket", self._close_listener)
            if user is not None:
                os.chown(self._place, user, -1, follow_symlinks=False)
            self._inode = self._place.lstat().st_ino
        except BaseException as error:
            way_out.run(error)
            raise

    def serve(self) -> None:
        """Serve until `close()` in another thread, or a signal that raises."""
        while not self._stopping:
            self._serve_once()

    def stop(self) -> None:
        """End `serve` in another thread."""
        self._stopping = True
        self._stop.signal()

    def close(self) -> None:
        """Hang up on the client, remove the socket, give the lock back. Twice is fine.

        Descriptors that a client has are its own: it keeps the device until it closes them.
        """
        self._return()
        self._way_out.run()

    def _serve_once(self) -> None:
        watched = select.poll()
        for fd in (self._listener.fileno(), self._stop.fileno()):
            watched.register(fd, select.POLLIN)
        if self._loan is not None:
            watched.register(self._loan.fileno(), select.POLLIN)
        ready = {fd for fd, _ in watched.poll()}
        if self._loan is not None and self._loan.fileno() in ready:
            self._return()  # it hung up, or said what no client says
        if self._listener.fileno() in ready:
            self._meet()

    def _meet(self) -> None:
        """Take the next client on, or say why not. None of them ends the broker."""
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return  # it has left already
        except OSError as error:
            self._notice(f"cannot accept a client: {error.strerror}")
            select.poll().poll(int(PAUSE * 1000))
            return
        peer = peer_of(connection)
        try:
            self._loan = self._lend(connection, peer)
        except (UspaceError, OSError) as error:
            self._notice(f"process {peer.process} of user {peer.user} refused: {error}")
            with suppress(OSError), connection:
                send_refusal(connection, error)
        else:
            self._notice(f"lent to process {peer.process} of user {peer.user}")

    def _lend(self, connection: socket.socket, peer: Peer) -> Loan:
        if peer.user not in self._users:
            users = ", ".join(map(str, sorted(self._users)))
            raise HostError(f"{self._address}: user {peer.user} may not have it; users {users} may")
        if self._loan is not None:
            raise BusyError(f"{self._address}: process {self._loan.peer.process} has it")
        return Loan(self._address, self._open(), connection, peer)

    def _return(self) -> None:
        """Take the device back from the client, and memory away from the device."""
        loan, self._loan = self._loan, None
        if loan is None:
            return
        try:
            loan.close()
        except UspaceError as error:
            self._notice(f"process {loan.peer.process} left, and: {error}")
        else:
            self._notice(f"process {loan.peer.process} left")

    def _close_listener(self) -> None:
        self._listener.close()
        with suppress(OSError):
            if self._place.lstat().st_ino == self._inode:  # else another one is in its place
                self._place.unlink()


def _open_folder(path: Path) -> int:
    try:
        return os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unservable(path, error) from error


def _listen(path: Path, place: Path) -> socket.socket:
    """A listening socket, in the place of one that a broker left behind when it was killed.

    `place` is how this process reaches it, `path` how errors call it.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        _clear(path, place)
        # The node gets this mode, for politeness: who connects is checked in any case.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(os.fspath(place))
        listener.listen(BACKLOG)
    except UspaceError:
        listener.close()
        raise
    except OSError as error:
        listener.close()
        raise _unservable(path, error) from error
    return listener


def _unservable(path: Path, error: OSError) -> HostError:
    return HostError(
        f"cannot serve at {path}: {error.strerror or error}; name a path in a folder that this "
        "user may write to",
        cause=error,
    )


def _clear(path: Path, place: Path) -> None:
    """Remove a socket at which nobody listens; anything else stays where it is."""
    try:
        found = place.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise HostError(f"cannot serve at {path}: it exists and is no socket; name another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as probe:
        answer = probe.connect_ex(os.fspath(place))
    if answer != errno.ECONNREFUSED:
        raise BusyError(f"cannot serve at {path}: another server listens there")
    place.unlink()

"""A thread that answers the server's requests while the driver does something else.

It listens on the twin socket where there is one, else on the session's own. There it wakes up for
each reply too, so a twin socket is better.
"""

from __future__ import annotations

import threading
import time

from uspace_drv.errors import BusyError, ClosedError, DeviceGone, UspaceError
from uspace_drv.eventfd import EventFd
from uspace_drv.native import Channel, wait_readable
from uspace_drv.vfiouser.client import Session

LEAVE_TIMEOUT = 5.0
"""Seconds that `close()` gives the thread to end."""

PAUSE = 0.001
"""Seconds after a lot of requests: else the driver's thread would hardly get its turn."""

ROUND = 3600.0
"""Seconds between looks that nothing asked for."""


class Listener:
    """Listens from the start until `close()`, or until the server is gone."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._wake = EventFd()
        self._closing = False
        if session.twin is None:
            session.set_listener(self._wake.signal)
        self._thread = threading.Thread(
            target=self._run, name=f"{session.name} listener", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """End the thread. Twice is fine."""
        if self._closing:
            return
        self._closing = True
        self._wake.signal()
        self._thread.join(LEAVE_TIMEOUT)
        self._session.set_listener(None)
        if self._thread.is_alive():  # it holds the descriptor: that stays open
            raise BusyError(
                f"{self._session.name}: an answer to the server took over {LEAVE_TIMEOUT:.0f} s"
            )
        self._wake.close()

    def _run(self) -> None:
        twin = self._session.twin
        try:
            if twin is None:
                self._share()
            else:
                self._listen(twin)
        except (DeviceGone, ClosedError):
            return  # whoever uses the device next is told by the socket itself
        except UspaceError as failure:
            self._session.fail(failure)

    def _listen(self, twin: Channel) -> None:
        twin.set_wake(self._wake.fileno())
        while not self._closing:
            message = twin.receive(ROUND)
            if message is not None:
                self._session.answer_on(twin, message)

    def _share(self) -> None:
        while not self._closing:
            wait_readable(self._session.fileno(), self._wake.fileno(), ROUND, 0.0)
            self._wake.take()
            while not self._closing and self._session.attend():
                time.sleep(PAUSE)

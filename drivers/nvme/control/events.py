"""Asynchronous events: what a controller tells without having been asked.

NVM Express Base Specification 1.4, section 5.2. The controller keeps a few requests and completes
one when something occurs. Each is sent again at once, and the log page that it names is read, which
lets the next event of that kind come.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from uspace_drivers.nvme.control.admin import FOR_EVENTS
from uspace_drivers.nvme.control.admin_commands import AdminCommands, command
from uspace_drivers.nvme.control.identity import ControllerIdentity
from uspace_drivers.nvme.spec.command_error import CommandError
from uspace_drivers.nvme.spec.commands import AdminOpcode, FeatureId, LogPage
from uspace_drivers.nvme.spec.features import AsyncEventConfiguration
from uspace_drivers.nvme.spec.logs import AsyncEvent, EventType, NoticeEvent
from uspace_drivers.nvme.spec.status import words_of
from uspace_drv import Deadline, UspaceError
from uspace_drv.layout import Structures

_log = logging.getLogger(__name__)

REMEMBERED = 64

MOST, PERIOD = 64, 1.0
"""Events that are served in so many seconds: no controller keeps a thread busy for ever by them."""

PAGE_SIZES = {LogPage.ERRORS: 64, LogPage.CHANGED_NAMESPACES: 4096}
OTHER_PAGE = 512
"""Bytes to read of a page that an event names; all but those above begin with that much."""

Listener = Callable[[AsyncEvent], None]


class Events:
    """Takes note of events in whatever thread finds them, and serves them in one that may wait.

    `post(command, tag)` sends a request that nobody waits for.
    """

    def __init__(self, commands: AdminCommands, post: Callable[[Structures, int], None]) -> None:
        self._commands = commands
        self._post = post
        self._pending: deque[AsyncEvent] = deque(maxlen=REMEMBERED)
        self._to_arm = 0
        self._serving = threading.Lock()
        self._left = MOST
        self._renewal = 0.0
        self._listeners: list[Listener] = []
        self.recent: deque[AsyncEvent] = deque(maxlen=REMEMBERED)
        """The newest ones that were served, oldest first."""

    @property
    def pending(self) -> bool:
        """Whether `serve` has something to do, and may do it now."""
        return bool(self._pending or self._to_arm) and self._may_go_on

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` for every event, after its log page was read; the result ends that.

        It runs in the thread that serves and may send commands, but should not take long.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def start(self, identity: ControllerIdentity) -> None:
        """Say which events are wanted, and send the first requests; after each reset."""
        offered = identity.event_support
        wanted = AsyncEventConfiguration(
            spare=True,
            temperature=True,
            unreliable=True,
            read_only=True,
            backup_failed=True,
            namespace_attributes=offered.namespace_attributes,
            firmware_activation=offered.firmware_activation,
        )
        try:
            self._commands.set_feature(FeatureId.ASYNC_EVENTS, wanted.raw)
        except CommandError as error:
            _log.warning("%s; some events will not be told of", error)
        self._pending.clear()
        self._to_arm = min(FOR_EVENTS, identity.event_limit)
        self._arm()

    def take(self, status: int, result: int) -> None:
        """Take note of a request that was completed; sends nothing."""
        if status:  # one more than it keeps, or it is being reset: there is nothing to send again
            _log.debug("%s: an event request ended: %s", self._commands.name, words_of(status))
            return
        self._pending.append(AsyncEvent(result))
        self._to_arm += 1

    def serve(self) -> None:
        """Do what is to be done for the events that were taken; may wait for the controller.

        Up to `MOST` events in `PERIOD` seconds. Those beyond wait for an admin command or interrupt
        that comes later, most of them in the controller, as no more are asked for.
        """
        deadline = Deadline(PERIOD)
        while self.pending and not deadline.passed and self._serving.acquire(blocking=False):
            try:
                self._serve(deadline)
            finally:
                self._serving.release()

    def _serve(self, deadline: Deadline) -> None:
        if time.monotonic() >= self._renewal:
            self._left, self._renewal = MOST, time.monotonic() + PERIOD
        self._arm()
        while self._pending and self._left and not deadline.passed:
            self._left -= 1
            self._handle(self._pending.popleft())
        if not self._left:
            _log.warning("%s: %d events in a second; the others wait", self._commands.name, MOST)

    @property
    def _may_go_on(self) -> bool:
        return self._left > 0 or time.monotonic() >= self._renewal

    def _arm(self) -> None:
        count, self._to_arm = self._to_arm, 0
        for _ in range(count):  # those that are completed meanwhile are for the next time
            self._post(command(AdminOpcode.ASYNC_EVENT_REQUEST), 0)

    def _handle(self, event: AsyncEvent) -> None:
        level = logging.INFO if event.type == EventType.NOTICE else logging.WARNING
        _log.log(level, "%s: %s", self._commands.name, event.words)
        try:
            if event.log:
                size = PAGE_SIZES.get(LogPage(event.log), OTHER_PAGE) if _is_known(event) else 512
                self._commands.get_log(event.log, size)
        except UspaceError as error:  # not the fault of the command with which it was noticed
            _log.warning("%s: its log page cannot be read: %s", event.words, error)
        self.recent.append(event)
        for listener in tuple(self._listeners):
            listener(event)


def tells_of_namespaces(event: AsyncEvent) -> bool:
    """Whether namespaces have come, gone or changed."""
    return event.type == EventType.NOTICE and event.info == NoticeEvent.NAMESPACE_CHANGED


def _is_known(event: AsyncEvent) -> bool:
    return isinstance(event.log, LogPage)

"""Asynchronous events: what happens, and the commands that wait for it.

NVM Express Base Specification 1.4, sections 5.2 and 5.21.1.11.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import TYPE_CHECKING

from uspace_drivers.nvme.model.task import Refused, Task
from uspace_drivers.nvme.spec.commands import FeatureId, LogPage
from uspace_drivers.nvme.spec.features import AsyncEventConfiguration
from uspace_drivers.nvme.spec.logs import AsyncEvent, EventType, NoticeEvent
from uspace_drivers.nvme.spec.status import Status

if TYPE_CHECKING:
    from uspace_drivers.nvme.model.model import NvmeModel

LIMIT = 8
"""Requests at once (AERL + 1)."""

NOTICES = {
    NoticeEvent.NAMESPACE_CHANGED: AsyncEventConfiguration(namespace_attributes=True).raw,
    NoticeEvent.FIRMWARE_ACTIVATION: AsyncEventConfiguration(firmware_activation=True).raw,
}
"""The bit of the feature that lets each notice be told."""


class Events:
    """Events that nobody has been told of, and requests that nothing has happened for."""

    def __init__(self, model: NvmeModel) -> None:
        self._model = model
        self._requests: deque[Task] = deque()
        self._untold: deque[AsyncEvent] = deque()
        self._masked: dict[int, int] = {}  # the log page that unmasks each type

    def request(self, task: Task) -> None:
        """Asynchronous Event Request: it completes when something happens."""
        if len(self._requests) >= LIMIT:
            raise Refused(Status.ASYNC_EVENT_LIMIT_EXCEEDED, f"{LIMIT} are waiting")
        self._requests.append(task)
        self._tell_waiting()

    def withdraw(self, queue: int, number: int) -> None:
        """A request was aborted."""
        self._requests = deque(each for each in self._requests if each.key != (queue, number))

    def happen(self, kind: EventType, info: IntEnum, log: LogPage) -> None:
        """Something happened; told once until its log page is read."""
        if kind is EventType.NOTICE and not self._is_wanted(NOTICES.get(NoticeEvent(info), 0)):
            return
        event = AsyncEvent(type=kind, info=int(info), log=log)
        if event not in self._untold:
            self._untold.append(event)
        self._tell_waiting()

    def warn(self, kind: IntEnum, bit: int) -> None:
        """A critical warning came up, which the host may not want to know."""
        if self._is_wanted(bit):
            self.happen(EventType.SMART, kind, LogPage.SMART)

    def read(self, log: int) -> None:
        """A log page was read: events of its kind are told again."""
        for kind in [kind for kind, page in self._masked.items() if page == log]:
            del self._masked[kind]
        self._tell_waiting()

    def reset(self) -> None:
        """Forget all; the requests have been dropped with everything in flight."""
        self._requests.clear()
        self._untold.clear()
        self._masked.clear()

    def _is_wanted(self, bit: int) -> bool:
        return self._model.features.current(FeatureId.ASYNC_EVENTS) & bit != 0

    def _tell_waiting(self) -> None:
        for event in list(self._untold):
            if not self._requests:
                return
            if event.type not in self._masked:
                self._untold.remove(event)
                self._masked[int(event.type)] = int(event.log)
                self._model.execution.complete(self._requests.popleft(), 0, event.raw)

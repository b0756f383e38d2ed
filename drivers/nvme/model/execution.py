"""Commands on their way through the model: executed now or later, aborted, or gone wrong on demand.

NVM Express Base Specification 1.4, sections 4.6 (completion), 5.1 (abort).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

from uspace_drivers.nvme.model.commands.health import Health
from uspace_drivers.nvme.model.faults import Action, Fault, Faults
from uspace_drivers.nvme.model.rings.rings import ADMIN, ENTRY, Rings
from uspace_drivers.nvme.model.task import Refused, Sent, Task, status_of
from uspace_drivers.nvme.spec.status import MORE, Status
from uspace_drv.models.clock import Timer

Handler = Callable[[Task], int | None]
"""Executes a command: its result, or None where it completes later; may raise `Refused`."""


class Host(Protocol):
    """What execution needs of the model."""

    rings: Rings
    health: Health

    def after(self, seconds: float, method: Callable[[], None]) -> Timer:
        """Call a method in that many seconds."""

    def fail(self, why: str) -> None:
        """Give up: CSTS.CFS."""

    def vanish(self) -> None:
        """Be gone."""


@dataclass(frozen=True)
class Done:
    """A completion that is to be posted."""

    task: Task
    status: int
    result: int = 0
    fault: Fault | None = None


class Entry(NamedTuple):
    """The words of a completion, in the order in which they lie in memory."""

    result: int
    head: int
    queue: int
    id: int
    status: int


WRONG = {
    Action.UNSENT: "id",
    Action.WRONG_ID: "id",
    Action.WRONG_QUEUE: "queue",
    Action.WRONG_HEAD: "head",
}
"""Which word of a completion a fault spoils."""


class Execution:
    """What is in flight; `handlers` are for the admin queue and for all others."""

    def __init__(self, host: Host, admin: Handler, io: Handler, latency: float) -> None:
        self.latency = latency
        """Seconds that each I/O command takes."""
        self._host = host
        self._admin = admin
        self._io = io
        self._pending: dict[tuple[int, int], tuple[Task, Timer | None]] = {}
        self._held: list[Done] = []
        self.faults = Faults(self._show)
        self._are_set = False

    def execute(self, submission: int, command: bytes) -> None:
        """Begin with a command of 64 bytes."""
        task = Task(submission, Sent.parse(command), command)
        if task.key in self._pending:
            self._refuse(task, Refused(Status.COMMAND_ID_CONFLICT, f"{task.sent.id}", byte=2), None)
            return
        fault = self.faults.take(task) if self._are_set else None
        if fault is not None and not self._goes_on(task, fault):
            return
        seconds = self.latency if submission != ADMIN else 0.0
        if fault is not None and fault.action is Action.DELAY:
            seconds += fault.seconds
        self._pending[task.key] = task, None
        if seconds:
            timer = self._host.after(seconds, partial(self._perform, task, fault))
            self._pending[task.key] = task, timer
        else:
            self._perform(task, fault)

    def complete(self, task: Task, status: int = 0, result: int = 0) -> None:
        """Complete a command that was put off."""
        if self._pending.pop(task.key, None) is not None:
            self._post(Done(task, status, result))

    def abort(self, queue: int, number: int) -> bool:
        """Complete a command with an error if it is in flight; False if it is not."""
        return self._abort((queue, number), Status.ABORT_REQUESTED)

    def abort_queue(self, queue: int) -> None:
        """Complete all that is in flight of a submission queue that is deleted."""
        for key in [key for key in self._pending if key[0] == queue]:
            self._abort(key, Status.ABORTED_BY_QUEUE_DELETION)

    def forget(self) -> None:
        """Drop what is in flight: the controller was reset."""
        for _, timer in self._pending.values():
            if timer is not None:
                timer.cancel()
        self._pending.clear()
        self._held.clear()

    def show(self) -> None:
        """Tell the rings whether they have to ask for each command."""
        self._show(self._are_set)

    def _show(self, are_set: bool) -> None:
        self._are_set = are_set
        self._host.rings.show_faults(are_set or self.latency > 0)

    def _abort(self, key: tuple[int, int], status: Status) -> bool:
        task, timer = self._pending.pop(key, (None, None))
        if task is None:
            return False
        if timer is not None:
            timer.cancel()
        self._host.rings.complete(task.queue, task.sent.id, status)
        return True

    def _perform(self, task: Task, fault: Fault | None) -> None:
        handler = self._io if task.queue != ADMIN else self._admin
        try:
            result = handler(task)
        except Refused as refused:
            if self._pending.pop(task.key, None) is not None:
                self._refuse(task, refused, fault)
            return
        if result is not None and self._pending.pop(task.key, None) is not None:
            self._post(Done(task, 0, result, fault))

    def _refuse(self, task: Task, refused: Refused, fault: Fault | None) -> None:
        status = status_of(refused) | MORE
        self._host.health.log_error(task, status, refused)
        self._post(Done(task, status, 0, fault))

    def _goes_on(self, task: Task, fault: Fault) -> bool:
        """Whether the command is executed at all."""
        if fault.action is Action.STATUS:
            self._host.rings.complete(task.queue, task.sent.id, fault.status)
        elif fault.action is Action.DROP:
            self._pending[task.key] = task, None
        elif fault.action is Action.FATAL:
            self._host.fail("a test wants it")
        elif fault.action is Action.VANISH:
            self._host.vanish()
        else:
            return True
        return False

    def _post(self, done: Done) -> None:
        if done.fault is not None and done.fault.action is Action.HOLD:
            self._held.append(done)
            return
        self._post_one(done)
        held, self._held = self._held, []
        for each in held:
            self._host.rings.complete(each.task.queue, each.task.sent.id, each.status, each.result)

    def _post_one(self, done: Done) -> None:
        fault, task = done.fault, done.task
        if fault is None or fault.action is Action.DELAY:
            self._host.rings.complete(task.queue, task.sent.id, done.status, done.result)
            return
        head = self._host.rings.head(task.queue)
        right = Entry(done.result, head, task.queue, task.sent.id, done.status << 1)
        wrong = right._replace(
            **{WRONG[fault.action]: fault.value} if fault.action in WRONG else {}
        )
        both = {Action.TWICE: (right, right), Action.UNSENT: (wrong, right)}
        for entry in both.get(fault.action, (wrong,)):
            self._host.rings.forge(
                task.queue,
                ENTRY.pack(*entry),
                phase_flips=fault.action is Action.WRONG_PHASE,
                silent=fault.action is Action.LOST_INTERRUPT,
            )

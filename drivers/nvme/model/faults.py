"""What goes wrong with a command because a test wants it to.

model.faults.add(Fault(Action.STATUS, opcode=Opcode.READ, status=Status.UNRECOVERED_READ_ERROR))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from uspace_drivers.nvme.model.task import Task


class Action(Enum):
    """What happens instead of, or on top of, a completion."""

    STATUS = "it is not executed, and completed with `status`"
    DELAY = "it is executed `seconds` later"
    DROP = "it is not executed and never completed, unless it is aborted"
    HOLD = "its completion comes after that of the next command"
    TWICE = "its completion comes twice"
    UNSENT = "before its completion comes one for a command that was never sent"
    WRONG_ID = "its completion names another command: `value`"
    WRONG_QUEUE = "its completion names another submission queue: `value`"
    WRONG_HEAD = "its completion says that the submission queue's head is `value`"
    WRONG_PHASE = "its completion has the old phase, and so is never seen"
    LOST_INTERRUPT = "its completion comes, but no interrupt"
    FATAL = "the controller gives up: CSTS.CFS, and nothing is completed any more"
    VANISH = "the device is gone: all registers read all ones"


@dataclass
class Fault:
    """One thing that goes wrong: with commands of `opcode` and `queue` (None: any).

    The first `after` of them pass, then it happens to `count` of them, 0 to all.
    `value` is the wrong number; by default one that no driver has.
    """

    action: Action
    opcode: int | None = None
    queue: int | None = None
    after: int = 0
    count: int = 1
    status: int = 0
    seconds: float = 0.0
    value: int = 0xFFFE
    hits: int = 0

    def fits(self, task: Task) -> bool:
        """Whether the command is one of those."""
        return self.opcode in {None, task.sent.opcode} and self.queue in {None, task.queue}


class Faults:
    """Those that are set; `tell` is told whether there are any."""

    def __init__(self, tell: Callable[[bool], None]) -> None:
        self._tell = tell
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """Set one; the first that fits a command is taken. Its `hits` count."""
        self._faults.append(fault)
        self._tell(True)
        return fault

    def clear(self) -> None:
        """Let all go well again."""
        self._faults.clear()
        self._tell(False)

    def take(self, task: Task) -> Fault | None:
        """What goes wrong with this command."""
        for fault in self._faults:
            if not fault.fits(task) or (fault.count and fault.hits >= fault.count):
                continue
            if fault.after:
                fault.after -= 1
                continue
            fault.hits += 1
            return fault
        return None

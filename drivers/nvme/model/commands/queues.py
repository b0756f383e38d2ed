"""I/O queues of the model: how the driver makes and deletes them.

NVM Express Base Specification 1.4, sections 5.3 to 5.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from uspace_drivers.nvme.model.task import DWORD_10, DWORD_11, Refused, Task, invalid_field
from uspace_drivers.nvme.spec.commands import (
    CompletionQueueSetup,
    CreateQueue,
    SubmissionQueueSetup,
)
from uspace_drivers.nvme.spec.registers import NvmeRegisters
from uspace_drivers.nvme.spec.status import Status

if TYPE_CHECKING:
    from uspace_drivers.nvme.model.model import NvmeModel

COMMAND_POWER, COMPLETION_POWER = 6, 4
"""CC.IOSQES and CC.IOCQES: 64 and 16 bytes."""


@dataclass(frozen=True)
class Limits:
    """What every model of this class can have."""

    queues: int = 64
    """I/O queues of each kind."""
    entries: int = 4096
    """Of each (CAP.MQES + 1)."""


LIMITS = Limits()


class Queues:
    """Which I/O queues there are, and who uses whom; the admin queue is number 0 of both."""

    def __init__(self, model: NvmeModel) -> None:
        self._model = model
        self._completions: set[int] = set()
        self._submissions: dict[int, int] = {}  # the completion queue of each

    @property
    def is_empty(self) -> bool:
        """Whether there is no I/O queue."""
        return not self._completions

    def reset(self) -> None:
        """Forget all."""
        self._completions.clear()
        self._submissions.clear()

    def create_completion(self, task: Task) -> int:
        """Create I/O Completion Queue."""
        create, setup = CreateQueue(task.sent.cdw10), CompletionQueueSetup(task.sent.cdw11)
        self._check_id(create.qid, create.qid in self._completions)
        entries = self._entries(create)
        address = self._address(task, setup.pc)
        cc = self._model.get(NvmeRegisters.cc)
        if cc.iocqes != COMPLETION_POWER:
            raise Refused(Status.INVALID_QUEUE_SIZE, f"CC.IOCQES is {cc.iocqes}")
        if setup.iv >= self._model.vector_count:
            why = f"vector {setup.iv}: expected less than {self._model.vector_count}"
            raise Refused(Status.INVALID_INTERRUPT_VECTOR, why, byte=DWORD_11 + 2)
        self._completions.add(create.qid)
        vector = setup.iv if setup.ien else None
        self._model.rings.open_completion(create.qid, address, entries, vector)
        return 0

    def create_submission(self, task: Task) -> int:
        """Create I/O Submission Queue."""
        create, setup = CreateQueue(task.sent.cdw10), SubmissionQueueSetup(task.sent.cdw11)
        if not setup.cqid or setup.cqid not in self._completions:
            why = f"completion queue {setup.cqid} does not exist"
            raise Refused(Status.INVALID_COMPLETION_QUEUE, why, byte=DWORD_11 + 2)
        self._check_id(create.qid, create.qid in self._submissions)
        entries = self._entries(create)
        address = self._address(task, setup.pc)
        cc = self._model.get(NvmeRegisters.cc)
        if cc.iosqes != COMMAND_POWER:
            raise Refused(Status.INVALID_QUEUE_SIZE, f"CC.IOSQES is {cc.iosqes}")
        self._submissions[create.qid] = setup.cqid
        self._model.rings.open_submission(create.qid, address, entries, setup.cqid)
        return 0

    def delete_completion(self, task: Task) -> int:
        """Delete I/O Completion Queue: only when no submission queue uses it."""
        number = CreateQueue(task.sent.cdw10).qid
        if number not in self._completions:
            raise Refused(Status.INVALID_QUEUE_ID, f"{number} does not exist", byte=DWORD_10)
        users = [each for each, target in self._submissions.items() if target == number]
        if users:
            why = f"submission queues {users} use it"
            raise Refused(Status.INVALID_QUEUE_DELETION, why, byte=DWORD_10)
        self._completions.remove(number)
        self._model.rings.close_completion(number)
        return 0

    def delete_submission(self, task: Task) -> int:
        """Delete I/O Submission Queue: what is in flight completes with an error first."""
        number = CreateQueue(task.sent.cdw10).qid
        if number not in self._submissions:
            raise Refused(Status.INVALID_QUEUE_ID, f"{number} does not exist", byte=DWORD_10)
        del self._submissions[number]
        self._model.execution.abort_queue(number)
        self._model.rings.close_submission(number)
        return 0

    def has_submission(self, number: int) -> bool:
        """Whether there is such a submission queue; the admin queue is always."""
        return number == 0 or number in self._submissions

    def _check_id(self, number: int, is_taken: bool) -> None:
        given = self._model.features.queue_count
        if is_taken or not 1 <= number <= given:
            why = f"queue {number} is taken" if is_taken else f"queue {number} of 1 to {given}"
            raise Refused(Status.INVALID_QUEUE_ID, why, byte=DWORD_10)

    def _entries(self, create: CreateQueue) -> int:
        entries = create.qsize + 1
        if not 2 <= entries <= LIMITS.entries:
            why = f"{entries} entries: expected 2 to {LIMITS.entries}"
            raise Refused(Status.INVALID_QUEUE_SIZE, why, byte=DWORD_10 + 2)
        return entries

    def _address(self, task: Task, is_contiguous: bool) -> int:
        """CAP.CQR: a queue lies in one piece, at a page's start."""
        if not is_contiguous:
            raise invalid_field("a queue has to be contiguous (CAP.CQR)", DWORD_11)
        if task.sent.prp1 % self._model.page_size:
            raise Refused(Status.INVALID_PRP_OFFSET, f"{task.sent.prp1:#x} is no page's", byte=24)
        return task.sent.prp1

"""Commands of the admin queue (NVM Express Base Specification 1.4, section 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from uspace_drivers.nvme.model.commands.management import Management
from uspace_drivers.nvme.model.task import DWORD_10, Refused, Task, invalid_field
from uspace_drivers.nvme.spec.commands import (
    AbortSelect,
    AdminOpcode,
    CommandFlags,
    FeatureId,
    LogPage,
)
from uspace_drivers.nvme.spec.logs import EventType, NoticeEvent
from uspace_drivers.nvme.spec.status import Status
from uspace_drv.models.clock import Timer

if TYPE_CHECKING:
    from uspace_drivers.nvme.model.model import NvmeModel

NOT_ABORTED = 1
"""Bit 0 of Abort's result."""


class Admin:
    """Executes admin commands: each returns its result, or None where it completes later."""

    def __init__(self, model: NvmeModel) -> None:
        self._model = model
        self._watch: Timer | None = None
        management = Management(model)
        self._commands: Mapping[int, Callable[[Task], int | None]] = {
            AdminOpcode.DELETE_SUBMISSION_QUEUE: model.queues.delete_submission,
            AdminOpcode.CREATE_SUBMISSION_QUEUE: model.queues.create_submission,
            AdminOpcode.GET_LOG_PAGE: model.logs.get,
            AdminOpcode.DELETE_COMPLETION_QUEUE: model.queues.delete_completion,
            AdminOpcode.CREATE_COMPLETION_QUEUE: model.queues.create_completion,
            AdminOpcode.IDENTIFY: model.identification.answer,
            AdminOpcode.ABORT: self._abort,
            AdminOpcode.SET_FEATURES: model.features.set,
            AdminOpcode.GET_FEATURES: model.features.get,
            AdminOpcode.ASYNC_EVENT_REQUEST: model.events.request,
            AdminOpcode.NAMESPACE_MANAGEMENT: management.manage,
            AdminOpcode.FIRMWARE_COMMIT: self._commit_firmware,
            AdminOpcode.FIRMWARE_DOWNLOAD: self._download_firmware,
            AdminOpcode.NAMESPACE_ATTACHMENT: management.attach,
            AdminOpcode.KEEP_ALIVE: self._keep_alive,
            AdminOpcode.DOORBELL_BUFFER_CONFIG: self._use_shadow,
            AdminOpcode.FORMAT: management.format,
        }

    def execute(self, task: Task) -> int | None:
        """Do it; data pointers of admin commands are PRPs (section 4.3 of PCIe controllers)."""
        flags = CommandFlags(task.sent.flags)
        if flags.fuse or flags.psdt:
            raise invalid_field(f"flags {flags}", 1)
        command = self._commands.get(task.sent.opcode)
        if command is None:
            raise Refused(Status.INVALID_OPCODE, f"{task.sent.opcode:#x}", byte=0)
        return command(task)

    def keep_alive(self) -> None:
        """The host is alive: it has as long again, if the timer is on (section 7.12)."""
        self.reset()
        seconds = self._model.features.current(FeatureId.KEEP_ALIVE) / 1000
        if seconds:
            self._watch = self._model.after(seconds, self._expire)

    def reset(self) -> None:
        """Stop the timer."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _expire(self) -> None:
        refused = Refused(Status.KEEP_ALIVE_EXPIRED, "the host has not been heard of")
        self._model.health.log_error(None, int(refused.status), refused)
        self._model.fail(str(refused))

    def _keep_alive(self, task: Task) -> int:
        self.keep_alive()
        return 0

    def _abort(self, task: Task) -> int:
        """Abort: what is not in flight is left as it is, and the result says so."""
        which = AbortSelect(task.sent.cdw10)
        if not self._model.queues.has_submission(which.sqid):
            raise invalid_field(f"queue {which.sqid} does not exist", DWORD_10)
        self._model.events.withdraw(which.sqid, which.cid)
        is_aborted = which.cid != task.sent.id or which.sqid != task.queue
        is_aborted = is_aborted and self._model.execution.abort(which.sqid, which.cid)
        return 0 if is_aborted else NOT_ABORTED

    def _download_firmware(self, task: Task) -> int:
        size = 4 * (task.sent.cdw10 + 1)
        if size > self._model.most_data:
            raise invalid_field(f"{size} bytes, but a command carries less (MDTS)", DWORD_10)
        self._model.firmware.download(task.sent, self._model.data(task).read(size))
        return 0

    def _commit_firmware(self, task: Task) -> int:
        before = self._model.firmware.active
        self._model.firmware.commit(task.sent)
        if self._model.firmware.active != before:
            kind, log = NoticeEvent.FIRMWARE_ACTIVATION, LogPage.FIRMWARE_SLOTS
            self._model.events.happen(EventType.NOTICE, kind, log)
        return 0

    def _use_shadow(self, task: Task) -> int:
        """Doorbell Buffer Config: both pages at once, until the next reset."""
        if not self._model.has_shadow:
            raise Refused(Status.INVALID_OPCODE, "no doorbell buffer", byte=0)
        for address, byte in ((task.sent.prp1, 24), (task.sent.prp2, 32)):
            if address % self._model.page_size:
                raise invalid_field(f"{address:#x} is no page's", byte)
        self._model.rings.use_shadow(task.sent.prp1, task.sent.prp2)
        return 0

"""Log pages of the model (NVM Express Base Specification 1.4, section 5.14)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from uspace_drivers.nvme.model.task import DWORD_10, DWORD_12, Refused, Task, invalid_field
from uspace_drivers.nvme.spec.commands import (
    ALL_NAMESPACES,
    AdminOpcode,
    LogPage,
    LogPageSelect,
    Opcode,
)
from uspace_drivers.nvme.spec.logs import CommandEffects, EffectsLog
from uspace_drivers.nvme.spec.status import Status

if TYPE_CHECKING:
    from uspace_drivers.nvme.model.model import NvmeModel

CHANGED_MOST = 1024
CHANGED_SIZE = 4096

WRITING = CommandEffects(csupp=True, lbcc=True)
CHANGING = CommandEffects(csupp=True, lbcc=True, ncc=True, nic=True, cse=2)
SUPPORTED = CommandEffects(csupp=True)

ADMIN_EFFECTS = dict.fromkeys(
    (
        AdminOpcode.DELETE_SUBMISSION_QUEUE,
        AdminOpcode.CREATE_SUBMISSION_QUEUE,
        AdminOpcode.GET_LOG_PAGE,
        AdminOpcode.DELETE_COMPLETION_QUEUE,
        AdminOpcode.CREATE_COMPLETION_QUEUE,
        AdminOpcode.IDENTIFY,
        AdminOpcode.ABORT,
        AdminOpcode.SET_FEATURES,
        AdminOpcode.GET_FEATURES,
        AdminOpcode.ASYNC_EVENT_REQUEST,
        AdminOpcode.FIRMWARE_COMMIT,
        AdminOpcode.FIRMWARE_DOWNLOAD,
        AdminOpcode.KEEP_ALIVE,
    ),
    SUPPORTED,
) | {
    AdminOpcode.NAMESPACE_MANAGEMENT: CHANGING,
    AdminOpcode.NAMESPACE_ATTACHMENT: CHANGING,
    AdminOpcode.FORMAT: CHANGING,
}
IO_EFFECTS = {
    Opcode.FLUSH: SUPPORTED,
    Opcode.WRITE: WRITING,
    Opcode.READ: SUPPORTED,
    Opcode.WRITE_UNCORRECTABLE: WRITING,
    Opcode.COMPARE: SUPPORTED,
    Opcode.WRITE_ZEROES: WRITING,
    Opcode.DATASET_MANAGEMENT: WRITING,
    Opcode.VERIFY: SUPPORTED,
}


class LogPages:
    """Answers Get Log Page, and keeps which namespaces have changed."""

    def __init__(self, model: NvmeModel) -> None:
        self._model = model
        self._changed: set[int] = set()

    def note_change(self, number: int) -> None:
        """A namespace was attached, detached or formatted."""
        self._changed.add(number)

    def reset(self) -> None:
        """A reset of the controller forgets changes."""
        self._changed.clear()

    def get(self, task: Task) -> int:
        """Get Log Page: any part of a page; past its end there are zeroes up to 4 KiB, no error."""
        sent = task.sent
        select = LogPageSelect(sent.cdw10)
        size = 4 * ((select.numdl | (sent.cdw11 & 0xFFFF) << 16) + 1)
        offset = sent.cdw12 | sent.cdw13 << 32
        if size > self._model.most_data:
            why = f"{size} bytes, but a command carries {self._model.most_data} (MDTS)"
            raise invalid_field(why, DWORD_10 + 2)
        page = self._page(int(select.lid), sent.namespace)
        if offset % 4 or offset > len(page):
            raise invalid_field(f"offset {offset} of a page of {len(page)} bytes", DWORD_12)
        self._model.data(task).write(page[offset : offset + size].ljust(size, b"\0"))
        if not select.rae:
            if select.lid == LogPage.CHANGED_NAMESPACES:
                self._changed.clear()
            self._model.events.read(int(select.lid))
        return 0

    def _page(self, number: int, namespace: int) -> bytes:
        match number:
            case LogPage.ERRORS:
                return self._model.health.error_log()
            case LogPage.SMART:
                if namespace not in {0, ALL_NAMESPACES}:
                    raise invalid_field("health is that of the controller (LPA bit 0)", 4)
                self._model.health.add(self._model.rings.take_work())
                return self._model.health.smart_log()
            case LogPage.FIRMWARE_SLOTS:
                return self._model.firmware.log()
            case LogPage.CHANGED_NAMESPACES:
                return self._changed_namespaces()
            case LogPage.COMMAND_EFFECTS:
                return self._effects()
        raise Refused(Status.INVALID_LOG_PAGE, f"page {number:#x}", byte=DWORD_10)

    def _changed_namespaces(self) -> bytes:
        numbers = sorted(self._changed)
        if len(numbers) > CHANGED_MOST:
            numbers = [ALL_NAMESPACES]
        return np.array(numbers, "<u4").tobytes().ljust(CHANGED_SIZE, b"\0")

    def _effects(self) -> bytes:
        log = EffectsLog.array(1)[0]
        for opcode, effects in ADMIN_EFFECTS.items():
            log["acs"][opcode] = int(effects)
        if self._model.has_shadow:
            log["acs"][AdminOpcode.DOORBELL_BUFFER_CONFIG] = int(SUPPORTED)
        for command, effects in IO_EFFECTS.items():
            log["iocs"][command] = int(effects)
        return bytes(log.tobytes())

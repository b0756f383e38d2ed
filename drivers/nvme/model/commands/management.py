"""Format, and making, deleting, attaching and detaching namespaces.

NVM Express Base Specification 1.4, sections 5.19, 5.20, 5.23 and 8.12.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from uspace_drivers.nvme.model.commands.identity import CONTROLLER_ID
from uspace_drivers.nvme.model.task import DWORD_10, Refused, Task, invalid_field
from uspace_drivers.nvme.spec import identify
from uspace_drivers.nvme.spec.commands import (
    ALL_NAMESPACES,
    AttachmentAction,
    Format,
    LogPage,
    NamespaceAction,
    SecureErase,
)
from uspace_drivers.nvme.spec.identify import IdentifyNamespace, LbaFormat
from uspace_drivers.nvme.spec.logs import EventType, NoticeEvent
from uspace_drivers.nvme.spec.status import Status

if TYPE_CHECKING:
    from uspace_drivers.nvme.model.model import NvmeModel

ACTION = 0xF
"""Bits of dword 10 that say what to do."""


class Management:
    """Commands that change which namespaces there are, or what they are like."""

    def __init__(self, model: NvmeModel) -> None:
        self._model = model

    def format(self, task: Task) -> int:
        """Format NVM: all data is lost, and block size and metadata are as asked for."""
        command = Format(task.sent.cdw10 & 0xFFF)
        store, number = self._model.namespaces, task.sent.namespace
        if command.lbaf >= len(store.formats):
            raise Refused(Status.INVALID_FORMAT, f"format {command.lbaf}", byte=DWORD_10)
        if command.pi or command.pil:
            raise Refused(Status.INVALID_FORMAT, "no protection information", byte=DWORD_10, bit=5)
        if command.ses not in {SecureErase.NONE, SecureErase.USER_DATA}:
            raise invalid_field(f"secure erase {command.ses!r}", DWORD_10 + 1, 1)
        found = store.attached if number == ALL_NAMESPACES else [store.active(number)]
        for each in found:
            each.format = store.formats[command.lbaf]
            each.erase()
        self._model.show_namespaces()  # who formats knows what has changed, and is not told
        return 0

    def manage(self, task: Task) -> int:
        """Namespace Management: the result of creating one is its id."""
        action = task.sent.cdw10 & ACTION
        if action == NamespaceAction.CREATE:
            return self._create(task)
        if action != NamespaceAction.DELETE:
            raise invalid_field(f"action {action}", DWORD_10)
        number, store = task.sent.namespace, self._model.namespaces
        doomed = store.all if number == ALL_NAMESPACES else [store.allocated(number)]
        attached = [each.id for each in doomed if each.is_attached]
        for each in doomed:
            each.is_attached = False
        self._changed(*attached)  # before its memory goes: rings must not see it any more
        for each in doomed:
            store.delete(each.id)
        return 0

    def attach(self, task: Task) -> int:
        """Namespace Attachment, of this controller, which is the only one."""
        action, number = task.sent.cdw10 & ACTION, task.sent.namespace
        raw = np.frombuffer(self._model.data(task).read(identify.SIZE), "<u2")
        if raw[0] != 1 or raw[1] != CONTROLLER_ID:
            why = f"{raw[0]} controllers from {raw[1]}: expected controller {CONTROLLER_ID} alone"
            raise Refused(Status.INVALID_CONTROLLER_LIST, why)
        if action == AttachmentAction.ATTACH:
            self._model.namespaces.attach(number)
        elif action == AttachmentAction.DETACH:
            self._model.namespaces.detach(number)
        else:
            raise invalid_field(f"action {action}", DWORD_10)
        self._changed(number)
        return 0

    def _create(self, task: Task) -> int:
        raw = self._model.data(task).read(identify.SIZE)
        wish = np.frombuffer(raw, IdentifyNamespace.dtype)[0]
        index = identify.FormattedSize(int(wish["flbas"]) & 0x7F).low
        formats = self._model.namespaces.formats
        if index >= len(formats) or wish["dps"]:
            raise Refused(Status.INVALID_FORMAT, f"format {index}")
        size, capacity = int(wish["nsze"]), int(wish["ncap"])
        if not size:
            raise invalid_field("a namespace of no blocks", 24)
        if size != capacity:
            why = f"size {size}, but capacity {capacity}"
            raise Refused(Status.THIN_PROVISIONING_UNSUPPORTED, why)
        chosen: LbaFormat = formats[index]
        return self._model.namespaces.create(size << chosen.lbads, chosen).id

    def _changed(self, *numbers: int) -> None:
        """Namespaces came or went: show it to the rings, and tell the host by an event."""
        model = self._model
        model.show_namespaces()
        for number in numbers:
            model.logs.note_change(number)
        if numbers:
            kind, log = NoticeEvent.NAMESPACE_CHANGED, LogPage.CHANGED_NAMESPACES
            model.events.happen(EventType.NOTICE, kind, log)

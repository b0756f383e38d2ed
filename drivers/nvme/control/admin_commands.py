"""The admin commands that every controller has: what it is, its logs, features and queues.

NVM Express Base Specification 1.4, section 5. What changes the controller for good is in
`management.py`. Each method is one command, or as many as its size needs, and waits for its end;
all raise `CommandError`, `DeviceTimeout` and `DeviceGone`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from uspace_drivers.nvme.control import identity
from uspace_drivers.nvme.control.admin import DATA_LIMIT
from uspace_drivers.nvme.control.identity import ControllerIdentity, NamespaceIdentity
from uspace_drivers.nvme.spec.command_error import CommandError
from uspace_drivers.nvme.spec.commands import (
    ALL_NAMESPACES,
    CNS,
    AbortSelect,
    AdminOpcode,
    Command,
    CompletionQueueSetup,
    CreateQueue,
    FeatureId,
    FeatureSelect,
    FeatureValue,
    IdentifySelect,
    LogPage,
    LogPageSelect,
    SubmissionQueueSetup,
)
from uspace_drivers.nvme.spec.features import NumberOfQueues
from uspace_drivers.nvme.spec.identify import (
    SIZE,
    IdentifyController,
    IdentifyNamespace,
    controllers_of,
    descriptors_of,
    ids_of,
)
from uspace_drivers.nvme.spec.logs import (
    ChangedNamespaceLog,
    EffectsLog,
    ErrorLogEntry,
    FirmwareSlotLog,
    SmartLog,
)
from uspace_drivers.nvme.spec.status import Status
from uspace_drv import DeviceError, Layout
from uspace_drv.layout import Structures

ADMIN_TIMEOUT = 5.0
"""Seconds for a command that does no work on the medium."""

IDS_PER_LIST = 1024


class AdminCommands:
    """Commands over one `admin`, which the controller fills in; `name` is the device's address."""

    name: str
    page_size: int
    data_limit: int = DATA_LIMIT
    """Bytes that one admin command may move: MDTS holds for them, too."""

    def admin(
        self, command: Structures, data: NDArray[Any] | None = None, timeout: float = ADMIN_TIMEOUT
    ) -> int:
        """Send one `Command` and wait for its end; returns dword 0 of the completion.

        `data` is read or written as the opcode says (contiguous, `data_limit` at most).
        """
        raise NotImplementedError

    def identify(self, cns: CNS, namespace: int = 0, controller: int = 0) -> NDArray[np.uint8]:
        """The 4096 bytes that Identify returns, unchecked."""
        data = np.zeros(SIZE, "u1")
        select = IdentifySelect(cns=cns, cntid=controller)
        self.admin(command(AdminOpcode.IDENTIFY, namespace, cdw10=int(select)), data)
        return data

    def identify_controller(self) -> ControllerIdentity:
        """What the controller says of itself, checked."""
        found = IdentifyController.view(self.identify(CNS.CONTROLLER))[0]
        return identity.controller_identity(self.name, found, self.page_size)

    def identify_namespace(self, number: int) -> NamespaceIdentity | None:
        """What a namespace says of itself, checked; None where it is not attached."""
        found = IdentifyNamespace.view(self.identify(CNS.NAMESPACE, number))[0]
        return identity.namespace_identity(self.name, number, found)

    def active_namespaces(self) -> list[int]:
        """Ids of the namespaces that are attached to this controller, ascending."""
        return self._namespaces(CNS.ACTIVE_NAMESPACES)

    def allocated_namespaces(self) -> list[int]:
        """Ids of all namespaces that exist, where the controller has namespace management."""
        return self._namespaces(CNS.ALLOCATED_NAMESPACES)

    def namespace_descriptors(self, number: int) -> list[tuple[int, bytes]]:
        """What a namespace is identified by: `DescriptorType` and the identifier's bytes."""
        return list(descriptors_of(self.identify(CNS.NAMESPACE_DESCRIPTORS, number).tobytes()))

    def controllers(self, namespace: int = 0) -> list[int]:
        """Ids of the subsystem's controllers, or of those that a namespace is attached to."""
        cns = CNS.ATTACHED_CONTROLLERS if namespace else CNS.CONTROLLERS
        return controllers_of(self.identify(cns, namespace).view("<u2"))

    def get_log(
        self,
        page: LogPage | int,
        size: int,
        *,
        namespace: int = ALL_NAMESPACES,
        offset: int = 0,
        keep_event: bool = False,
    ) -> NDArray[np.uint8]:
        """Bytes of a log page; size and offset are multiples of 4.

        With `keep_event` the event that told of the page is not taken as seen.
        """
        data = np.zeros(size, "u1")
        for start in range(0, size, self.data_limit):
            piece = data[start : start + self.data_limit]
            dwords, place = piece.nbytes // 4 - 1, offset + start
            select = LogPageSelect(numdl=dwords & 0xFFFF, rae=keep_event, lid=int(page))
            asked = command(
                AdminOpcode.GET_LOG_PAGE,
                namespace,
                cdw10=int(select),
                cdw11=dwords >> 16,
                cdw12=place & 0xFFFF_FFFF,
                cdw13=place >> 32,
            )
            self.admin(asked, piece)
        return data

    def smart_log(self, namespace: int = ALL_NAMESPACES) -> Any:
        """Health of the controller: one `SmartLog`."""
        return self._log(LogPage.SMART, SmartLog, namespace)

    def error_log(self, entries: int) -> Structures:
        """The newest errors, newest first: `ErrorLogEntry`, those that hold something."""
        data = self.get_log(LogPage.ERRORS, entries * ErrorLogEntry.SIZE)
        found = ErrorLogEntry.view(data)
        return np.compress(found["error_count"] != 0, found)

    def firmware_log(self) -> Any:
        """Which firmware is in which slot: one `FirmwareSlotLog`."""
        return self._log(LogPage.FIRMWARE_SLOTS, FirmwareSlotLog)

    def changed_namespaces(self) -> list[int]:
        """Ids of namespaces that changed since this was asked last; [ALL_NAMESPACES] for many."""
        return ids_of(self._log(LogPage.CHANGED_NAMESPACES, ChangedNamespaceLog)["nsid"])

    def command_effects(self) -> Any:
        """What each command does: one `EffectsLog`."""
        return self._log(LogPage.COMMAND_EFFECTS, EffectsLog)

    def get_feature(
        self,
        feature: FeatureId | int,
        *,
        namespace: int = 0,
        select: FeatureValue = FeatureValue.CURRENT,
        dword11: int = 0,
        data: NDArray[Any] | None = None,
    ) -> int:
        """A feature's value; `data` takes what is longer than a dword."""
        what = int(FeatureSelect(fid=int(feature), sel=select))
        asked = command(AdminOpcode.GET_FEATURES, namespace, cdw10=what, cdw11=dword11)
        return self.admin(asked, data)

    def set_feature(
        self,
        feature: FeatureId | int,
        value: int,
        *,
        namespace: int = 0,
        save: bool = False,
        data: NDArray[Any] | None = None,
    ) -> int:
        """Change a feature: dword 11, and `data` where it has some. Returns its own result."""
        what = int(FeatureSelect(fid=int(feature), sv=save))
        asked = command(AdminOpcode.SET_FEATURES, namespace, cdw10=what, cdw11=int(value))
        return self.admin(asked, data)

    def request_queues(self, wanted: int) -> int:
        """Ask for that many I/O queue pairs; returns how many there may be, up to `wanted`."""
        asked = NumberOfQueues(ncq=wanted - 1, nsq=wanted - 1)
        given = NumberOfQueues(self.set_feature(FeatureId.NUMBER_OF_QUEUES, int(asked)))
        if 0xFFFF in {given.nsq, given.ncq}:  # 65536 would be one more than the ids there are
            raise DeviceError(f"{self.name}: grants an impossible number of queues: {given}")
        return min(given.nsq + 1, given.ncq + 1, wanted)

    def create_completion_queue(
        self, number: int, entries: int, iova: int, vector: int | None
    ) -> None:
        """Create one; `vector` None lets it signal nobody."""
        queue = CreateQueue(qsize=entries - 1, qid=number)
        setup = CompletionQueueSetup(iv=vector or 0, ien=vector is not None, pc=True)
        self._create(AdminOpcode.CREATE_COMPLETION_QUEUE, iova, int(queue), int(setup))

    def create_submission_queue(
        self, number: int, entries: int, iova: int, completion: int
    ) -> None:
        """Create one whose commands are completed in queue `completion`."""
        queue = CreateQueue(qsize=entries - 1, qid=number)
        setup = SubmissionQueueSetup(cqid=completion, pc=True)
        self._create(AdminOpcode.CREATE_SUBMISSION_QUEUE, iova, int(queue), int(setup))

    def abort(self, queue: int, command_id: int, timeout: float = ADMIN_TIMEOUT) -> bool:
        """Ask for the end of a command in flight; False where the controller did not abort it."""
        select = AbortSelect(sqid=queue, cid=command_id)
        return not self.admin(command(AdminOpcode.ABORT, cdw10=int(select)), timeout=timeout) & 1

    def configure_doorbell_buffers(self, doorbells: int, events: int) -> None:
        """Let doorbells be rung in memory: the IOVAs of two pages (section 5.7)."""
        asked = command(AdminOpcode.DOORBELL_BUFFER_CONFIG)
        asked["prp1"], asked["prp2"] = doorbells, events
        self.admin(asked)

    def _create(self, opcode: AdminOpcode, iova: int, queue: int, setup: int) -> None:
        asked = command(opcode, cdw10=queue, cdw11=setup)
        asked["prp1"] = iova
        self.admin(asked)

    def _log(self, page: LogPage, layout: type[Layout], namespace: int = ALL_NAMESPACES) -> Any:
        return layout.view(self.get_log(page, layout.SIZE, namespace=namespace))[0]

    def _namespaces(self, cns: CNS) -> list[int]:
        """Follow a list from page to page; its ids ascend, so it cannot go on for ever."""
        found: list[int] = []
        while True:
            last = found[-1] if found else 0
            try:
                page = ids_of(self.identify(cns, last).view("<u4"))
            except CommandError as error:
                if error.code != Status.INVALID_FIELD or cns != CNS.ACTIVE_NAMESPACES or found:
                    raise
                return self._namespaces_one_by_one()
            if any(after <= before for before, after in zip([last, *page], page, strict=False)):
                raise DeviceError(f"{self.name}: namespace ids do not ascend after {last}: {page}")
            found += page
            if len(page) < IDS_PER_LIST or found[-1] >= ALL_NAMESPACES - 2:
                return found

    def _namespaces_one_by_one(self) -> list[int]:
        """The way of version 1.0, which has no list."""
        count = min(self.identify_controller().namespaces, IDS_PER_LIST)
        return [number for number in range(1, count + 1) if self.identify_namespace(number)]


def command(opcode: AdminOpcode | int, namespace: int = 0, **dwords: int) -> Structures:
    """Return one `Command` with these dwords (`cdw10=…`), all else 0."""
    made = Command.array(1)
    made["opcode"], made["namespace"] = opcode, namespace
    for name, value in dwords.items():
        made[name] = value
    return made

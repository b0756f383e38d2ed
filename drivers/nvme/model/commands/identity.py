"""What the model says of itself and its namespaces (NVMe Base Specification 1.4, section 5.15)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from uspace_drivers.nvme.model.commands import events, feature_store, firmware, health
from uspace_drivers.nvme.model.commands.queues import COMMAND_POWER, COMPLETION_POWER
from uspace_drivers.nvme.model.store.namespaces import MOST, ModelNamespace
from uspace_drivers.nvme.model.task import DWORD_10, Refused, Task, invalid_field
from uspace_drivers.nvme.spec import identify
from uspace_drivers.nvme.spec.commands import ALL_NAMESPACES, CNS, IdentifySelect
from uspace_drivers.nvme.spec.identify import IdentifyController, IdentifyNamespace
from uspace_drivers.nvme.spec.status import Status

if TYPE_CHECKING:
    from uspace_drivers.nvme.model.model import NvmeModel

CONTROLLER_ID = 0
LIST_END = 0xFFFF_FFFE
"""No list begins there (section 5.15.2)."""

MODEL_NAME = "uspace_drv NVMe model"
ABORTS = 4
IO_CONTROLLER = 1


class Identity:
    """Answers Identify."""

    def __init__(self, model: NvmeModel) -> None:
        self._model = model

    def answer(self, task: Task) -> int:
        """Identify: 4096 bytes about what CNS names."""
        self._model.data(task).write(self._describe(task).ljust(identify.SIZE, b"\0"))
        return 0

    def controller(self) -> bytes:
        """CNS 01h."""
        found = IdentifyController.array(1)[0]
        model = self._model
        _name(found, "sn", model.serial)
        _name(found, "mn", MODEL_NAME)
        _name(found, "fr", model.firmware.revision.decode())
        found["vid"], found["ssvid"] = model.identity.vendor, model.identity.subvendor
        found["mdts"], found["cntlid"], found["ver"] = model.mdts, CONTROLLER_ID, 0x00010400
        found["rtd3e"], found["cntrltype"], found["rab"] = 1_000_000, IO_CONTROLLER, 6
        found["oaes"] = int(
            identify.EventSupport(namespace_attributes=True, firmware_activation=True)
        )
        self._put_admin(found)
        self._put_io(found)
        return bytes(found.tobytes())

    def namespace(self, found: ModelNamespace | None) -> bytes:
        """CNS 00h and 11h; zeroes for one that is not there."""
        data = IdentifyNamespace.array(1)[0]
        store = self._model.namespaces
        data["nlbaf"] = len(store.formats) - 1
        for index, each in enumerate(store.formats):
            data["lbaf"][index] = int(each)
        data["mc"] = int(any(each.ms for each in store.formats))
        data["dlfeat"] = int(identify.Deallocation(write_zeroes=True, reads=1))
        if found is None:
            return bytes(data.tobytes())
        data["nsze"] = data["ncap"] = data["nuse"] = found.blocks
        flbas = identify.FormattedSize(
            low=store.formats.index(found.format), extended=bool(found.format.ms)
        )
        data["flbas"] = int(flbas)
        data["nvmcap"][0] = found.medium.size
        data["nguid"] = np.frombuffer(found.nguid, np.uint8)
        data["eui64"] = np.frombuffer(found.eui64, np.uint8)
        return bytes(data.tobytes())

    def _describe(self, task: Task) -> bytes:
        select = IdentifySelect(task.sent.cdw10 & 0xFFFF_00FF)
        number, store = task.sent.namespace, self._model.namespaces
        describe: dict[int, Callable[[], bytes]] = {
            CNS.CONTROLLER: self.controller,
            CNS.NAMESPACE: lambda: self._active(number),
            CNS.ACTIVE_NAMESPACES: lambda: _listed(number, store.attached),
            CNS.NAMESPACE_DESCRIPTORS: lambda: _descriptors(store.active(number)),
            CNS.ALLOCATED_NAMESPACES: lambda: _listed(number, store.all),
            CNS.ALLOCATED_NAMESPACE: lambda: self._allocated(number),
            CNS.ATTACHED_CONTROLLERS: lambda: self._controllers(select, number),
            CNS.CONTROLLERS: lambda: self._controllers(select, number),
        }
        if select.cns not in describe:
            raise invalid_field(f"CNS {select.cns!r}", DWORD_10)
        return describe[select.cns]()

    def _allocated(self, number: int) -> bytes:
        found = self._model.namespaces.find(number)
        return self.namespace(found) if found else b""

    def _active(self, number: int) -> bytes:
        """All namespaces at once have the capabilities that they share (section 5.15.2)."""
        if number == ALL_NAMESPACES:
            return self.namespace(None)
        found = self._model.namespaces.find(number)
        return self.namespace(found) if found and found.is_attached else b""

    def _controllers(self, select: IdentifySelect, number: int) -> bytes:
        is_there = select.cntid <= CONTROLLER_ID
        if select.cns == CNS.ATTACHED_CONTROLLERS:
            is_there &= self._model.namespaces.allocated(number).is_attached
        ids = [CONTROLLER_ID] if is_there else []
        return np.array([len(ids), *ids], "<u2").tobytes()

    def _put_admin(self, found: Any) -> None:
        model = self._model
        support = identify.AdminSupport(
            format=True, firmware=True, namespace_management=True, doorbell_buffer=model.has_shadow
        )
        found["oacs"] = int(support)
        found["acl"], found["aerl"], found["elpe"] = ABORTS - 1, events.LIMIT - 1, health.ERRORS - 1
        found["frmw"] = int(identify.FirmwareSupport(without_reset=True, slots=firmware.SLOTS))
        found["fwug"] = 0xFF
        found["lpa"] = int(identify.LogSupport(effects=True, extended=True))
        found["npss"] = feature_store.POWER_STATES - 1
        found["wctemp"], found["cctemp"] = feature_store.OVER, feature_store.OVER + 15
        found["kas"] = 1
        found["tnvmcap"][0] = model.namespaces.total
        found["unvmcap"][0] = model.namespaces.unallocated
        power = identify.PowerState.view(found["psd"])
        power["mp"][0] = 2500

    def _put_io(self, found: Any) -> None:
        found["sqes"] = int(identify.EntrySize(most=COMMAND_POWER, least=COMMAND_POWER))
        found["cqes"] = int(identify.EntrySize(most=COMPLETION_POWER, least=COMPLETION_POWER))
        found["nn"] = MOST
        support = identify.NvmSupport(
            verify=True,
            timestamp=True,
            save=True,
            write_zeroes=True,
            dataset_management=True,
            write_uncorrectable=True,
            compare=True,
        )
        found["oncs"] = int(support)
        found["vwc"] = int(identify.WriteCache(present=True, flush_all=3))
        if self._model.has_sgl:
            sgl = identify.SglSupport(support=1, bit_bucket=True, longer_than_data=True)
            found["sgls"] = int(sgl)
        name = f"nqn.2026-01.org.uspace-drv:nvme:{self._model.serial}".encode()
        found["subnqn"][: len(name)] = list(name)


def _name(found: Any, member: str, text: str) -> None:
    """An ASCII field is filled up with spaces (section 1.8)."""
    size = len(found[member])
    found[member] = np.frombuffer(text.encode("ascii", "replace")[:size].ljust(size), np.uint8)


def _listed(after: int, found: Sequence[ModelNamespace]) -> bytes:
    """A namespace list: those with ids greater than `after`, up to 1024."""
    if after >= LIST_END:
        raise Refused(Status.INVALID_NAMESPACE_OR_FORMAT, f"a list after {after:#x}", byte=4)
    return np.array([each.id for each in found if each.id > after], "<u4").tobytes()


def _descriptors(found: ModelNamespace) -> bytes:
    """Each is type, length and two reserved bytes in front of an identifier (figure 249)."""
    kinds = identify.DescriptorType
    pairs = ((kinds.EUI64, found.eui64), (kinds.NGUID, found.nguid))
    return b"".join(bytes([kind, len(value), 0, 0]) + value for kind, value in pairs)

"""Commands of the I/O queues (NVM Express Base Specification 1.4, section 6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from uspace_drivers.nvme.model.commands.health import Health
from uspace_drivers.nvme.model.store.namespaces import ModelNamespace, NamespaceStore
from uspace_drivers.nvme.model.task import DWORD_10, DWORD_12, Refused, Task, invalid_field
from uspace_drivers.nvme.model.transfer import HostData
from uspace_drivers.nvme.spec.commands import (
    ALL_NAMESPACES,
    CommandFlags,
    DatasetAttributes,
    DatasetRange,
    Opcode,
    Transfer,
)
from uspace_drivers.nvme.spec.status import Status

MOST_BAD = 1 << 20
"""Blocks of a namespace that are remembered as bad."""


class Host(Protocol):
    """What I/O needs of the model."""

    namespaces: NamespaceStore
    health: Health

    @property
    def most_data(self) -> int:
        """Bytes that a command may carry (MDTS)."""

    @property
    def is_write_through(self) -> bool:
        """Whether the write cache is switched off."""

    def data(self, task: Task) -> HostData:
        """Where a command's data is."""

    def show_namespaces(self) -> None:
        """Something about the namespaces has changed."""


class InputOutput:
    """Executes I/O commands: each returns its result, or raises `Refused`."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._commands: Mapping[int, Callable[[Task, ModelNamespace], None]] = {
            Opcode.WRITE: self._write,
            Opcode.READ: self._read,
            Opcode.WRITE_UNCORRECTABLE: self._write_uncorrectable,
            Opcode.COMPARE: self._compare,
            Opcode.WRITE_ZEROES: self._write_zeroes,
            Opcode.DATASET_MANAGEMENT: self._manage_dataset,
            Opcode.VERIFY: self._verify,
        }

    def execute(self, task: Task) -> int:
        """Do it; the result is DW0 and DW1 of the completion."""
        sent = task.sent
        if CommandFlags(sent.flags).fuse:
            raise invalid_field("no commands can be fused", 1)
        if sent.opcode == Opcode.FLUSH:
            self._flush(sent.namespace)
            return 0
        command = self._commands.get(sent.opcode)
        if command is None:
            raise Refused(Status.INVALID_OPCODE, f"{sent.opcode:#x}", byte=0)
        namespace = self._host.namespaces.active(sent.namespace)
        if namespace.format.ms:
            raise Refused(Status.INVALID_FIELD, "its format has metadata, of which none is kept")
        command(task, namespace)
        return 0

    def _flush(self, number: int) -> None:
        namespaces = self._host.namespaces
        if number == ALL_NAMESPACES:
            namespaces.flush()
        else:
            namespaces.active(number).medium.flush()

    def _read(self, task: Task, namespace: ModelNamespace) -> None:
        place, size = self._range(task, namespace, carries_data=True)
        self._check_readable(task, namespace)
        if namespace.medium.discards:
            self._host.data(task).check(size, to_host=True)
        else:
            self._host.data(task).write(namespace.medium.read(place, size))
        self._host.health.count_read(size)

    def _write(self, task: Task, namespace: ModelNamespace) -> None:
        place, size = self._range(task, namespace, carries_data=True)
        if namespace.medium.discards:
            self._host.data(task).check(size, to_host=False)
        else:
            namespace.medium.write(place, self._host.data(task).read(size))
        self._heal(namespace, task.sent.lba, _blocks(task))
        self._flush_if_asked(task, namespace, place, size)
        self._host.health.count_write(size)

    def _compare(self, task: Task, namespace: ModelNamespace) -> None:
        place, size = self._range(task, namespace, carries_data=True)
        self._check_readable(task, namespace)
        given = self._host.data(task).read(size)
        if given != namespace.medium.read(place, size):
            raise Refused(Status.COMPARE_FAILURE, f"block {task.sent.lba} and on")

    def _write_zeroes(self, task: Task, namespace: ModelNamespace) -> None:
        place, size = self._range(task, namespace)
        namespace.medium.deallocate(place, size)
        self._heal(namespace, task.sent.lba, _blocks(task))
        self._flush_if_asked(task, namespace, place, size)

    def _write_uncorrectable(self, task: Task, namespace: ModelNamespace) -> None:
        self._range(task, namespace)
        if len(namespace.bad) + _blocks(task) > MOST_BAD:
            raise Refused(Status.WRITE_FAULT, f"{MOST_BAD} blocks are bad already")
        namespace.bad.update(range(task.sent.lba, task.sent.lba + _blocks(task)))
        self._host.show_namespaces()

    def _verify(self, task: Task, namespace: ModelNamespace) -> None:
        self._range(task, namespace)
        self._check_readable(task, namespace)

    def _manage_dataset(self, task: Task, namespace: ModelNamespace) -> None:
        """Deallocate all ranges or, where one is wrong, none; the other attributes are hints."""
        count = (task.sent.cdw10 & 0xFF) + 1
        raw = self._host.data(task).read(count * DatasetRange.SIZE)
        ranges = [
            (int(each["lba"]), int(each["blocks"]))
            for each in np.frombuffer(raw, DatasetRange.dtype)
        ]
        places = [namespace.offset(lba, blocks) for lba, blocks in ranges]
        if DatasetAttributes(task.sent.cdw11 & 7).ad:
            for place, (lba, blocks) in zip(places, ranges, strict=True):
                namespace.medium.deallocate(place, blocks << namespace.shift)
                self._heal(namespace, lba, blocks)

    def _range(
        self, task: Task, namespace: ModelNamespace, *, carries_data: bool = False
    ) -> tuple[int, int]:
        """Offset and size in bytes on the medium of the blocks that a command names."""
        blocks = _blocks(task)
        size = blocks << namespace.shift
        if carries_data and size > self._host.most_data:
            why = f"{size} bytes, but a command carries {self._host.most_data} (MDTS)"
            raise invalid_field(why, DWORD_12)
        return namespace.offset(task.sent.lba, blocks), size

    def _check_readable(self, task: Task, namespace: ModelNamespace) -> None:
        if namespace.is_bad(task.sent.lba, _blocks(task)):
            self._host.health.media_errors += 1
            raise Refused(Status.UNRECOVERED_READ_ERROR, "written as uncorrectable", byte=DWORD_10)

    def _heal(self, namespace: ModelNamespace, lba: int, blocks: int) -> None:
        """What could not be read was written anew; rings may do it by themselves again."""
        if namespace.bad:
            namespace.heal(lba, blocks)
            self._host.show_namespaces()

    def _flush_if_asked(self, task: Task, namespace: ModelNamespace, place: int, size: int) -> None:
        if Transfer(task.sent.cdw12).fua or self._host.is_write_through:
            namespace.medium.flush(place, size)


def _blocks(task: Task) -> int:
    return Transfer(task.sent.cdw12).nlb + 1

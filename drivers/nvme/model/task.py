"""One command in the model's hands, and how it is refused (NVMe Base Specification 1.4, 4.2, 4.6).

The layout of a command is that of the driver's table, `commands.Command`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from uspace_drivers.nvme.spec.status import DNR, Status
from uspace_drv import DeviceError

COMMAND = struct.Struct("<BBHIIIQQQ6I")


class Sent(NamedTuple):
    """The members of a command, as Python ints; names and order are those of `Command`."""

    opcode: int
    flags: int
    id: int
    namespace: int
    cdw2: int
    cdw3: int
    metadata: int
    prp1: int
    prp2: int
    cdw10: int
    cdw11: int
    cdw12: int
    cdw13: int
    cdw14: int
    cdw15: int

    @classmethod
    def parse(cls, raw: bytes) -> Sent:
        """Read 64 bytes."""
        return cls(*COMMAND.unpack(raw))

    @property
    def lba(self) -> int:
        """The first block of an I/O command."""
        return self.cdw11 << 32 | self.cdw10


@dataclass(eq=False)
class Task:
    """A command of submission queue `queue`, from when it is fetched until it is completed."""

    queue: int
    sent: Sent
    raw: bytes

    @property
    def key(self) -> tuple[int, int]:
        """What tells it from the others in flight."""
        return self.queue, self.sent.id


class Refused(DeviceError):
    """A command that fails, with what its completion and the error log say of it.

    `byte` and `bit` are where in the command the wrong parameter is, if it is in there.
    """

    def __init__(
        self, status: Status | int, why: str = "", *, byte: int | None = None, bit: int = 0
    ) -> None:
        super().__init__(f"{why} ({status!r})")
        self.status = int(status)
        self.byte = byte
        self.bit = bit

    @property
    def location(self) -> int:
        """The error log's "parameter error location": bits 10:8 and the byte; all ones: none."""
        return 0xFFFF if self.byte is None else self.bit << 8 | self.byte


WORTH_RETRYING = frozenset(
    {
        Status.DATA_TRANSFER_ERROR,
        Status.INTERNAL_ERROR,
        Status.ABORT_REQUESTED,
        Status.ABORTED_BY_QUEUE_DELETION,
        Status.NAMESPACE_NOT_READY,
        Status.FORMAT_IN_PROGRESS,
    }
)


def status_of(refused: Refused) -> int:
    """The 15 bits of its completion: what would fail again says so."""
    return refused.status if refused.status in WORTH_RETRYING else refused.status | DNR


def invalid_field(why: str, byte: int, bit: int = 0) -> Refused:
    """A field of the command has a value that it cannot have; where it begins."""
    return Refused(Status.INVALID_FIELD, why, byte=byte, bit=bit)


DWORD_10, DWORD_11, DWORD_12, DWORD_13 = 40, 44, 48, 52
"""Where in the command they begin, for the error log."""

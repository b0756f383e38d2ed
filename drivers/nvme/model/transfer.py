"""Where a command's data is in the driver's memory: PRP lists and SGLs, walked and checked.

NVM Express Base Specification 1.4, sections 4.3 (PRP) and 4.4 (SGL).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from uspace_drivers.nvme.model.task import Refused, Task, invalid_field
from uspace_drivers.nvme.spec.commands import CommandFlags, DataPointer, SglIdentifier, SglType
from uspace_drivers.nvme.spec.status import Status
from uspace_drv import DeviceError, Direction
from uspace_drv.models.iommu import Iommu

PRP_SIZE, DESCRIPTOR_SIZE = 8, 16
DESCRIPTOR = struct.Struct("<QI3xB")
MOST_DESCRIPTORS = 1 << 14
"""Of one SGL: one that points back at itself ends there."""


class Piece(NamedTuple):
    """Bytes that lie side by side; `address` is None where they go nowhere (bit bucket)."""

    address: int | None
    size: int


@dataclass(frozen=True)
class Reach:
    """What the controller can do with memory now."""

    memory: Iommu
    page_size: int
    has_sgl: bool


class HostData:
    """The data of one command; every method may raise `Refused`."""

    def __init__(self, reach: Reach, task: Task) -> None:
        self._reach = reach
        self._sent = task.sent
        self._where = f"command {task.sent.id} of queue {task.queue}"

    def read(self, size: int) -> bytes:
        """Take `size` bytes from the driver."""
        pieces = self._pieces(size, to_host=False)
        return b"".join(self._load(piece.address or 0, piece.size, "data") for piece in pieces)

    def write(self, data: bytes) -> None:
        """Give bytes to the driver."""
        done = 0
        for piece in self._pieces(len(data), to_host=True):
            if piece.address is not None:
                self._store(piece.address, data[done : done + piece.size])
            done += piece.size

    def check(self, size: int, to_host: bool) -> None:
        """See that it could be moved: for a medium that discards it."""
        direction = Direction.FROM_DEVICE if to_host else Direction.TO_DEVICE
        for piece in self._pieces(size, to_host):
            if piece.address is not None:
                self._check(piece.address, piece.size, direction)

    def _pieces(self, size: int, to_host: bool) -> list[Piece]:
        """Where all of it is; nothing has been moved when the list is found to be wrong."""
        pointer = CommandFlags(self._sent.flags).psdt
        if size == 0:
            return []
        if pointer == DataPointer.PRP:
            return list(self._prps(size))
        if not self._reach.has_sgl or pointer not in {
            DataPointer.SGL,
            DataPointer.SGL_FOR_METADATA,
        }:
            raise invalid_field("the data pointer is an SGL, which is not supported", 1, 6)
        return list(self._sgl(size, to_host))

    def _prps(self, size: int) -> Iterator[Piece]:
        """The first entry may begin anywhere in its page; the second one may be a list."""
        page, first, second = self._reach.page_size, self._sent.prp1, self._sent.prp2
        if first % 4:
            raise Refused(Status.INVALID_PRP_OFFSET, f"{first:#x} is no dword's", byte=24)
        here = min(size, page - first % page)
        yield Piece(first, here)
        left = size - here
        if 0 < left <= page:
            yield Piece(self._page(second), left)
        elif left:
            for address in self._listed(second, -(-left // page)):
                yield Piece(address, min(left, page))
                left -= page

    def _page(self, address: int) -> int:
        if address % self._reach.page_size:
            raise Refused(Status.INVALID_PRP_OFFSET, f"{address:#x} is no page's", byte=32)
        return address

    def _listed(self, place: int, count: int) -> Iterator[int]:
        """Pages of a PRP list; where more follow than fit its page, the last entry leads on."""
        while count:
            if place % PRP_SIZE:
                raise Refused(Status.INVALID_PRP_OFFSET, f"list at {place:#x}", byte=32)
            room = (self._reach.page_size - place % self._reach.page_size) // PRP_SIZE
            here = count if count <= room else room - 1
            entries = min(count, room)
            raw = self._load(place, PRP_SIZE * entries, "PRP list")
            addresses = struct.unpack(f"<{entries}Q", raw)
            yield from map(self._page, addresses[:here])
            count -= here
            if count:
                place = self._page(addresses[-1])

    def _sgl(self, size: int, to_host: bool) -> Iterator[Piece]:
        """Data blocks until `size` is reached; the list may be longer than that (SGLS bit 18)."""
        for address, length, kind in self._descriptors():
            is_bucket = kind == SglType.BIT_BUCKET
            if is_bucket and not to_host:
                continue  # it has no bytes to give (section 4.4)
            here = min(size, length)
            if here:
                yield Piece(None if is_bucket else address, here)
            size -= here
            if not size:
                return
        raise Refused(Status.INVALID_DATA_SGL_LENGTH, f"{size} bytes short", byte=24)

    def _descriptors(self) -> Iterator[tuple[int, int, int]]:
        """Address, length and type of all that are data, segment after segment."""
        inline = struct.pack("<QQ", self._sent.prp1, self._sent.prp2)
        address, length, kind = _parse(inline)
        if _is_data(kind):
            yield address, length, kind
            return
        budget = MOST_DESCRIPTORS
        while True:
            self._check_segment(length, kind)
            budget -= length // DESCRIPTOR_SIZE
            if budget < 0:
                raise Refused(Status.INVALID_NUMBER_OF_SGL_DESCRIPTORS, "too many", byte=24)
            is_last = kind == SglType.LAST_SEGMENT
            segment = self._load(address, length, "SGL segment")
            *most, end = (
                _parse(segment[at : at + DESCRIPTOR_SIZE])
                for at in range(0, length, DESCRIPTOR_SIZE)
            )
            for each in most:
                yield _data(each)
            if is_last or _is_data(end[2]):
                yield _data(end)
                return
            address, length, kind = end

    def _check_segment(self, length: int, kind: int) -> None:
        if kind not in {SglType.SEGMENT, SglType.LAST_SEGMENT}:
            raise Refused(Status.INVALID_SGL_DESCRIPTOR_TYPE, f"type {kind}", byte=39)
        if not length or length % DESCRIPTOR_SIZE:
            why = f"a segment of {length} bytes"
            raise Refused(Status.INVALID_SGL_SEGMENT_DESCRIPTOR, why, byte=24)

    def _check(self, address: int, size: int, direction: Direction) -> None:
        try:
            self._reach.memory.check(address, size, direction, f"data of {self._where}")
        except DeviceError as error:
            raise Refused(Status.DATA_TRANSFER_ERROR, str(error)) from error

    def _load(self, address: int, size: int, what: str) -> bytes:
        try:
            return self._reach.memory.read(address, size, f"{what} of {self._where}")
        except DeviceError as error:
            raise Refused(Status.DATA_TRANSFER_ERROR, str(error)) from error

    def _store(self, address: int, data: bytes) -> None:
        try:
            self._reach.memory.write(address, data, f"data of {self._where}")
        except DeviceError as error:
            raise Refused(Status.DATA_TRANSFER_ERROR, str(error)) from error


def _parse(raw: bytes) -> tuple[int, int, int]:
    """Address, length and type of a descriptor; addresses are addresses, not offsets."""
    address, length, code = DESCRIPTOR.unpack(raw)
    identifier = SglIdentifier(code)
    if identifier.subtype:
        raise Refused(Status.INVALID_SGL_DESCRIPTOR_TYPE, f"subtype of {code:#x}", byte=39)
    return address, length, int(identifier.type)


def _is_data(kind: int) -> bool:
    return kind in {SglType.DATA_BLOCK, SglType.BIT_BUCKET}


def _data(descriptor: tuple[int, int, int]) -> tuple[int, int, int]:
    """Within a segment only its last descriptor may lead to another one, and in a last one none."""
    kind = descriptor[2]
    if kind in {SglType.SEGMENT, SglType.LAST_SEGMENT}:
        raise Refused(Status.INVALID_SGL_SEGMENT_DESCRIPTOR, "a segment in the middle", byte=24)
    if not _is_data(kind):
        raise Refused(Status.INVALID_SGL_DESCRIPTOR_TYPE, f"type {kind}", byte=39)
    return descriptor

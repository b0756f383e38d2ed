"""Data of any size and place: split into commands, and copied where the controller cannot reach it.

NVMe Base Specification 1.4, section 5.15.2.2 (MDTS) and 6 (the commands).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from uspace_drivers.nvme.engine.queue import QueuePair
from uspace_drivers.nvme.engine.requests import Request
from uspace_drivers.nvme.spec.command_error import CommandError
from uspace_drivers.nvme.spec.commands import DatasetAttributes, DatasetRange, Opcode
from uspace_drv import RegisterValueError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uspace_drv.layout import Structures

BOUNCE_SIZE = 1 << 20
"""Bytes that are copied at a time."""

BATCH = 4096
"""Commands of one transfer that are made at a time."""

TRIM = int(DatasetAttributes(ad=True))
"""Dword 11 of the Dataset Management command that deallocates."""

FIELD_NAME = re.compile(":[^:]*:")
"""What is no code in the format of a buffer (PEP 3118)."""

POINTERS = frozenset("OPX&z")
"""Codes of what is an address: of an object, anything, a function, something, a string."""

DWORD = 4
"""Data lies at a multiple of that (section 4.3)."""


@dataclass(frozen=True)
class Extent:
    """What to do with `blocks` blocks from `lba` on, in commands of at most `most` blocks."""

    opcode: Opcode
    flags: int
    namespace: int
    lba: int
    blocks: int
    shift: int
    most: int

    def part(self, start: int, blocks: int) -> Extent:
        """`blocks` blocks of it, from its block `start` on."""
        return replace(self, lba=self.lba + start, blocks=blocks)

    def parts(self, most: int) -> Iterator[Extent]:
        """It in pieces of at most so many blocks."""
        for start in range(0, self.blocks, most):
            yield self.part(start, min(most, self.blocks - start))

    def copies(self, memory: NDArray[np.uint8]) -> Iterator[tuple[Extent, NDArray[np.uint8]]]:
        """It in pieces that may be bounced, each with its part of the caller's memory."""
        for part in self.parts(max(1, BOUNCE_SIZE >> self.shift)):
            start = (part.lba - self.lba) << self.shift
            yield part, memory[start : start + (part.blocks << self.shift)]

    def split(self, iova: int | None) -> Structures:
        """The commands; `iova` is where all of the data lies in one piece."""
        starts = np.arange(0, self.blocks, self.most, dtype=np.uint64)
        requests = Request.array(len(starts))
        requests["opcode"], requests["flags"] = self.opcode, self.flags
        requests["namespace"] = self.namespace
        requests["tag"] = np.arange(len(starts))
        requests["lba"] = starts + np.uint64(self.lba)
        requests["blocks"] = self.most
        requests["blocks"][-1] = self.blocks - int(starts[-1])
        if iova is not None:
            requests["data"] = (starts << np.uint64(self.shift)) + np.uint64(iova)
        return requests

    def refuse(self, where: str, status: int) -> CommandError:
        """The error that says which blocks it is about."""
        blocks = f"blocks {self.lba} to {self.lba + self.blocks - 1}" if self.blocks else "blocks"
        return CommandError(f"{where}, {blocks}", self.opcode, self.namespace, status)


def move(pair: QueuePair, extent: Extent, data: Any) -> None:
    """Do it with the caller's memory, any writable or readable buffer of that many bytes.

    Memory that the controller reaches is not copied. Raises `CommandError` for the first command
    that failed, in the order of blocks; others may have been done.
    """
    memory = bytes_of(data, extent)
    iova = pair.memory.table.find(data)
    if iova < 0 or iova % DWORD:
        _bounce(pair, extent, memory)
    else:
        do(pair, extent, iova)


def do(pair: QueuePair, extent: Extent, iova: int | None = None) -> None:
    """Do it in as many commands as it takes, the data being at `iova`."""
    for part in extent.parts(BATCH * extent.most):
        start = (part.lba - extent.lba) << extent.shift
        _run(pair, part, part.split(None if iova is None else iova + start))


def _run(pair: QueuePair, extent: Extent, requests: Structures) -> None:
    results = pair.run(requests)
    if results["status"].any():
        failed = results[results["status"] != 0]
        first = failed[int(failed["tag"].argmin())]
        request = requests[int(first["tag"])]
        part = replace(extent, lba=int(request["lba"]), blocks=int(request["blocks"]))
        raise part.refuse(pair.name, int(first["status"]))


def _bounce(pair: QueuePair, extent: Extent, memory: NDArray[np.uint8]) -> None:
    """Copy, a piece at a time, through memory that the controller reaches."""
    piece = pair.bounce.take(min(memory.nbytes, BOUNCE_SIZE))
    try:
        for part, theirs in extent.copies(memory):
            _do_copied(pair, part, theirs, piece[: theirs.nbytes])
    finally:
        pair.bounce.give(piece)


def _do_copied(
    pair: QueuePair, extent: Extent, theirs: NDArray[np.uint8], piece: NDArray[np.uint8]
) -> None:
    if extent.opcode is not Opcode.READ:
        piece[:] = theirs
    if extent.blocks <= extent.most:
        do_one(pair, extent, piece)
    else:
        do(pair, extent, pair.memory.table.find(piece))
    if extent.opcode is Opcode.READ:
        theirs[:] = piece


def do_one(pair: QueuePair, extent: Extent, data: Any) -> None:
    """Do what fits in one command, `data` being memory that the controller reaches, or None."""
    status = pair.transfer(
        extent.opcode, extent.flags, extent.namespace, extent.lba, extent.blocks, data
    )
    if status:
        raise extent.refuse(pair.name, status)


def trim(pair: QueuePair, namespace: int, ranges: Sequence[tuple[int, int]]) -> None:
    """Deallocate up to 256 ranges (first, count), which the namespace has."""
    piece = pair.bounce.take(len(ranges) * DatasetRange.SIZE)
    try:
        fill_ranges(piece, ranges)
        request = Request.array(1)
        request["opcode"], request["namespace"] = Opcode.DATASET_MANAGEMENT, namespace
        request["blocks"], request["attributes"] = len(ranges), TRIM
        request["data"] = pair.memory.table.find(piece)
        status = int(pair.run(request)["status"][0])
    finally:
        pair.bounce.give(piece)
    if status:
        extent = Extent(Opcode.DATASET_MANAGEMENT, 0, namespace, *ranges[0], 0, 1)
        raise extent.refuse(pair.name, status)


def fill_ranges(piece: NDArray[np.uint8], ranges: Sequence[tuple[int, int]]) -> None:
    """Write the table of ranges that goes with a Dataset Management command."""
    table = DatasetRange.view(piece)[: len(ranges)]
    table["attributes"] = 0
    table["lba"], table["blocks"] = zip(*ranges, strict=True)


def bytes_of(data: Any, extent: Extent) -> NDArray[np.uint8]:
    """See the caller's memory as bytes, as many as there are blocks."""
    expected = extent.blocks << extent.shift
    if _holds_pointers(data):
        raise RegisterValueError(
            f"namespace {extent.namespace}: data holds Python objects or pointers, which mean "
            "nothing on a disk"
        )
    try:
        memory = np.frombuffer(data, np.uint8)
    except (TypeError, ValueError, BufferError) as error:
        raise RegisterValueError(
            f"namespace {extent.namespace}: data is contiguous memory, not this: {error}"
        ) from error
    if memory.nbytes != expected:
        raise RegisterValueError(
            f"namespace {extent.namespace}: {extent.blocks} blocks are {expected} bytes, "
            f"not {memory.nbytes}"
        )
    if extent.opcode is Opcode.READ and not memory.flags.writeable:
        raise RegisterValueError(f"namespace {extent.namespace}: the memory is read-only")
    return memory


def _holds_pointers(data: Any) -> bool:
    """Whether items are addresses: those that come back from a disk would crash the process."""
    dtype = getattr(data, "dtype", None)
    if isinstance(dtype, np.dtype):
        return dtype.hasobject
    try:
        codes = memoryview(data).format or ""
    except (TypeError, ValueError, BufferError):  # it is refused for that
        return False
    return not POINTERS.isdisjoint(FIELD_NAME.sub("", codes))

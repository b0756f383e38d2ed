"""Copies between a namespace and a file: long ones, with several commands in flight.

Data goes from DMA memory straight into the file and back. What is all zeroes is not moved: it
becomes Write Zeroes on the one side (NVM Express Base Specification 1.4, section 6.16), a hole on
the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle
from typing import Annotated, Any

from numpy.typing import NDArray

from uspace_drivers.nvme.engine.queue import QueuePair
from uspace_drivers.nvme.engine.requests import Request, RequestFlags
from uspace_drivers.nvme.spec.command_error import CommandError
from uspace_drivers.nvme.spec.commands import Opcode
from uspace_drivers.nvme.storage.namespace import Namespace
from uspace_drivers.nvme.verbs.files import Sink, Source
from uspace_drv import ClosedError, DeviceError, DeviceTimeout, HostError, RegisterValueError
from uspace_drv.layout import Structures
from uspace_drv.verbs import Progress, Size, Unit

PIECE = 128 << 10
"""Bytes that a command moves, unless the controller moves less.

So all pieces fit into one huge page, which is the most that there is at once without an IOMMU."""

DEPTH = 16
"""Commands at once."""


@dataclass(frozen=True)
class Copied:
    """What a copy moved; `zeroes` of its bytes were not moved, because they are zeroes."""

    size: Size
    zeroes: Size
    duration: Annotated[float, Unit("s")]
    throughput: Annotated[float, Unit("B/s")]


class Pipeline:
    """Commands to one namespace, several at once, each with a piece of DMA memory of its own.

    Slots are used in turn: `wait` before a slot's piece is looked at or filled. `done` is how many
    bytes of what was started are done, without a gap.
    """

    def __init__(
        self, pair: QueuePair, namespace: Namespace, *, has_write_zeroes: bool = False
    ) -> None:
        self._pair = pair
        self.namespace = namespace
        self.has_write_zeroes = has_write_zeroes
        self.depth = min(DEPTH, pair.depth)
        self.blocks = max(1, min(namespace.most_blocks, PIECE // namespace.block_size))
        self.size = self.blocks * namespace.block_size
        self._memory = pair.memory.alloc("u1", (self.depth, self.size))
        self._request = Request.array(1)
        self._busy: dict[int, Opcode] = {}
        self._order: deque[tuple[int, int]] = deque()
        self.done = 0

    def piece(self, slot: int) -> NDArray[Any]:
        """`size` bytes."""
        piece: NDArray[Any] = self._memory.array[slot]
        return piece

    def start(self, slot: int, opcode: Opcode, lba: int, blocks: int, flags: int = 0) -> None:
        """Begin a command with that slot's piece."""
        data = 0 if opcode is Opcode.WRITE_ZEROES else self._memory.iova + slot * self.size
        self._request[0] = (opcode, flags, 0, self.namespace.id, lba, data, slot, blocks, 0)
        self._busy[slot] = opcode
        self._order.append((slot, blocks * self.namespace.block_size))
        self._pair.submit(self._request)

    def wait(self, slot: int) -> None:
        """Wait until that slot's command is done; raises what any of them failed with."""
        while slot in self._busy:
            found = self._pair.poll(1, self._pair.timeout)
            if not found.size:
                raise DeviceTimeout(
                    f"{self._pair.name}: no answer within {self._pair.timeout:.1f} s"
                )
            failed = self._take(found)
            if failed is not None:
                raise failed

    def wait_for_all(self) -> None:
        """Wait until nothing is in flight."""
        for slot in tuple(self._busy):
            self.wait(slot)

    def settle(self) -> int | None:
        """Wait for what is in flight, whatever becomes of it; return `done`, None if none began.

        Where the device is not there to be waited for, that is what is known to be done.
        """
        with suppress(DeviceError, ClosedError):
            self._pair.drain()
            while (found := self._pair.poll()).size:
                self._take(found)
        return self.done if self.done or self._order else None

    def close(self) -> None:
        """Give the memory back once nothing is in flight."""
        try:
            self._pair.drain()
        finally:
            self._memory.close()

    def _take(self, found: Structures) -> CommandError | None:
        """Note what is done; return what the first that failed did."""
        failed = None
        for slot, status in zip(found["tag"].tolist(), found["status"].tolist(), strict=True):
            if not status:
                del self._busy[slot]
            elif failed is None:
                opcode, name = self._busy[slot], self._pair.name
                failed = CommandError(name, opcode, self.namespace.id, status)
        while self._order and self._order[0][0] not in self._busy:
            self.done += self._order.popleft()[1]
        return failed


class Region:
    """A part of a namespace, from block `lba` on; whoever leaves it gets an error in words."""

    def __init__(self, namespace: Namespace, lba: int) -> None:
        self._namespace = namespace
        self.lba = lba
        self.room = (namespace.blocks - lba) * namespace.block_size
        """Bytes up to the end of the namespace."""
        if not 0 <= lba < namespace.blocks:
            raise RegisterValueError(
                f"namespace {namespace.id}: there is no block {lba}; it has {namespace.blocks}"
            )

    def check(self, size: int, name: str, least: str = "") -> None:
        """Raise `RegisterValueError` where `size` is negative, or more than there is room for.

        `least` is "at least " where more may follow.
        """
        if size < 0:
            raise RegisterValueError(f"{name}: a size of {size} bytes: give 0 or more")
        if size > self.room:
            raise RegisterValueError(
                f"{name}: {least}{size} bytes, but namespace {self._namespace.id} has {self.room} "
                f"from block {self.lba} on"
            )

    def check_whole(self, size: int, name: str) -> None:
        """Raise `RegisterValueError` where the last block would not be full."""
        rest = size % self._namespace.block_size
        if rest:
            raise RegisterValueError(
                f"{name}: the last block would have {rest} of {self._namespace.block_size} bytes; "
                "with --pad (pad=True) zeroes fill it up"
            )


def copy_in(
    pipe: Pipeline, source: Source, region: Region, *, pad: bool, progress: Progress | None
) -> tuple[int, int]:
    """Write all that the source has; returns bytes, and how many of them were zeroes."""
    if source.size is not None:
        region.check(source.size, source.name)
        if not pad:
            region.check_whole(source.size, source.name)
    lba, size, zeroes = region.lba, 0, 0
    for slot in cycle(range(pipe.depth)):
        pipe.wait(slot)
        piece = pipe.piece(slot)
        count = source.fill(piece)
        if not count:
            break
        size += count
        region.check(size, source.name, "at least ")
        if not pad:
            region.check_whole(size, source.name)
        blocks = -(-count // pipe.namespace.block_size)
        piece[count:] = 0
        zeroes += count * _write(pipe, slot, lba, blocks)
        lba += blocks
        if progress:
            progress(size, source.size or 0)
    pipe.wait_for_all()
    if source.size is not None and size < source.size:
        raise HostError(f"{source.name}: became shorter while it was read: {size} bytes")
    return size, zeroes


def copy_out(
    pipe: Pipeline, sink: Sink, region: Region, size: int, progress: Progress | None
) -> None:
    """Read `size` bytes and write them to the sink; of the last block only what is asked for."""
    region.check(size, sink.name)
    slots = cycle(range(pipe.depth))
    pieces = _pieces(pipe, region.lba, size)
    reading: deque[tuple[int, int]] = deque()
    done = 0
    while True:
        while len(reading) < pipe.depth and (following := next(pieces, None)):
            slot, (lba, count) = next(slots), following
            pipe.start(slot, Opcode.READ, lba, -(-count // pipe.namespace.block_size))
            reading.append((slot, count))
        if not reading:
            break
        slot, count = reading.popleft()
        pipe.wait(slot)
        sink.put(pipe.piece(slot)[:count])
        done += count
        if progress:
            progress(done, size)


def _write(pipe: Pipeline, slot: int, lba: int, blocks: int) -> bool:
    """Start to write a piece; returns whether it is all zeroes, and needs no data."""
    piece = pipe.piece(slot)[: blocks * pipe.namespace.block_size]
    is_zero = pipe.has_write_zeroes and not piece.any()
    if is_zero:
        pipe.start(slot, Opcode.WRITE_ZEROES, lba, blocks, RequestFlags.DEALLOCATE)
    else:
        pipe.start(slot, Opcode.WRITE, lba, blocks)
    return is_zero


def _pieces(pipe: Pipeline, lba: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield first block and bytes of each command."""
    for start in range(0, size, pipe.size):
        yield lba + start // pipe.namespace.block_size, min(pipe.size, size - start)

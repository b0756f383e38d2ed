"""Namespaces for asyncio: the calls of `Namespace`, to be awaited.

A separate face with the same names, and not the same object: a call that blocks or not depending on
who calls would be wrong in silence, and `await namespace.read(...)` reads as it should.
NVMe Base Specification 1.4, section 6.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from uspace_drivers.nvme.spec.commands import MOST_RANGES, DatasetRange, Opcode
from uspace_drivers.nvme.spec.status import Status, code_of
from uspace_drivers.nvme.storage.transfer import (
    DWORD,
    TRIM,
    Extent,
    bytes_of,
    fill_ranges,
)

if TYPE_CHECKING:
    import asyncio

    from numpy.typing import NDArray

    from uspace_drivers.nvme.storage.async_queue import AsyncQueue
    from uspace_drivers.nvme.storage.namespace import Namespace

READ = int(Opcode.READ)


class AsyncNamespace:
    """One namespace through the queue pair of an event loop. Errors are those of `Namespace`.

    Cancelling a call does not take back the commands that were sent, only those that wait for their
    turn: memory of the caller's that the controller reaches may be read and written until the
    commands have ended.
    """

    def __init__(self, namespace: Namespace, queue: AsyncQueue) -> None:
        self._namespace = namespace
        self._queue = queue
        self._find = queue.pair.memory.table.find
        self._request = queue.request
        self._most = namespace.most_blocks
        self.id = namespace.id
        self.block_size = namespace.block_size
        self.blocks = namespace.blocks

    async def read(self, lba: int, count: int, into: Any = None) -> Any:
        """Read `count` blocks from block `lba` on, and return them: as bytes, or in `into`."""
        if into is None or type(lba) is not int or type(count) is not int:
            lba, count = self._namespace.check(lba, count)
        if into is None:
            into = np.empty(count * self.block_size, np.uint8)
        elif count <= self._most:
            try:
                size = memoryview(into).nbytes
                place = self._find(into) if size == count * self.block_size else -1
            except (TypeError, ValueError, BufferError):  # the slower way says what is wrong
                place = -1
            if place >= 0 and not place % DWORD:
                status = await self._request(READ, 0, self.id, lba, count, place)
                if status:
                    raise self._extent(Opcode.READ, lba, count).refuse(self._name, status)
                return into
        await self._move(Opcode.READ, 0, lba, count, into)
        return into

    async def write(self, lba: int, data: Any, *, force_unit_access: bool = False) -> None:
        """Write data, a whole number of blocks, from block `lba` on."""
        count = self._namespace.count_of(data)
        await self._move(Opcode.WRITE, 1 if force_unit_access else 0, lba, count, data)

    async def flush(self) -> None:
        """Bring everything that was written to the medium."""
        await self._each(self._extent(Opcode.FLUSH, 0, 1), None)

    async def write_zeroes(self, lba: int, count: int, *, deallocate: bool = False) -> None:
        """Make blocks zero without moving data; with `deallocate` the controller may drop them."""
        await self._each(self._namespace.zeroes(lba, count, deallocate=deallocate), None)

    async def verify(self, lba: int, count: int) -> None:
        """Have the controller read blocks and check them, without moving data."""
        await self._each(self._namespace.verification(lba, count), None)

    async def compare(self, lba: int, data: Any) -> bool:
        """Have the controller compare blocks with data: whether they are equal."""
        extent = self._namespace.comparison(lba, data)
        status, _ = await self._try_move(extent, data)
        if code_of(status) == Status.COMPARE_FAILURE:
            return False
        if status:
            raise extent.refuse(self._name, status)
        return True

    async def trim(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Say that the blocks of these ranges (first, count) are not needed (deallocate)."""
        wanted = self._namespace.trimmable(ranges)
        for start in range(0, len(wanted), MOST_RANGES):
            await self._trim(wanted[start : start + MOST_RANGES])

    @property
    def _name(self) -> str:
        return self._queue.pair.name

    def _extent(self, opcode: Opcode, lba: int, count: int, flags: int = 0) -> Extent:
        return self._namespace.extent(opcode, lba, count, flags=flags)

    async def _move(self, opcode: Opcode, flags: int, lba: int, count: int, data: Any) -> None:
        lba, count = self._namespace.check(lba, count)
        extent = self._extent(opcode, lba, count, flags)
        status, failed = await self._try_move(extent, data)
        if status:
            raise failed.refuse(self._name, status)

    async def _try_move(self, extent: Extent, data: Any) -> tuple[int, Extent]:
        memory = bytes_of(data, extent)
        place = self._find(memory)
        if place >= 0 and not place % DWORD:
            return await self._try_each(extent, place)
        for part, theirs in extent.copies(memory):
            status, failed = await self._bounce(part, theirs)
            if status:
                return status, failed
        return 0, extent

    async def _bounce(self, extent: Extent, theirs: NDArray[np.uint8]) -> tuple[int, Extent]:
        """Copy through memory that the controller reaches."""
        bounce = self._queue.pair.bounce
        piece = bounce.take(theirs.nbytes)
        if extent.opcode is not Opcode.READ:
            piece[: theirs.nbytes] = theirs
        futures: list[asyncio.Future[int]] = []
        try:
            found = await self._do(extent, self._find(piece), futures)
        except BaseException:
            self._queue.let_go(futures, piece)
            raise
        if extent.opcode is Opcode.READ:
            theirs[:] = piece[: theirs.nbytes]
        bounce.give(piece)
        return found

    async def _each(self, extent: Extent, place: int | None) -> None:
        status, failed = await self._try_each(extent, place)
        if status:
            raise failed.refuse(self._name, status)

    async def _try_each(self, extent: Extent, place: int | None) -> tuple[int, Extent]:
        futures: list[asyncio.Future[int]] = []
        try:
            return await self._do(extent, place, futures)
        except BaseException:
            self._queue.let_go(futures)
            raise

    async def _do(
        self, extent: Extent, place: int | None, futures: list[asyncio.Future[int]]
    ) -> tuple[int, Extent]:
        """Ask for all of it, in as many commands as it takes, and wait for them.

        Returns status and extent of the first one that failed. Their futures are put in `futures`,
        for the caller to let go of when this raises.
        """
        parts = list(extent.parts(extent.most))
        futures.extend(self._ask(part, extent, place) for part in parts)
        statuses = [await future for future in futures]
        failed = ((status, part) for status, part in zip(statuses, parts, strict=True) if status)
        return next(failed, (0, extent))

    def _ask(self, part: Extent, whole: Extent, place: int | None) -> asyncio.Future[int]:
        data = 0 if place is None else place + ((part.lba - whole.lba) << whole.shift)
        return self._request(part.opcode, part.flags, part.namespace, part.lba, part.blocks, data)

    async def _trim(self, ranges: list[tuple[int, int]]) -> None:
        bounce = self._queue.pair.bounce
        piece = bounce.take(len(ranges) * DatasetRange.SIZE)
        fill_ranges(piece, ranges)
        future = self._request(
            Opcode.DATASET_MANAGEMENT, 0, self.id, 0, len(ranges), self._find(piece), TRIM
        )
        try:
            status = await future
        except BaseException:
            self._queue.let_go([future], piece)
            raise
        bounce.give(piece)
        if status:
            extent = self._extent(Opcode.DATASET_MANAGEMENT, *ranges[0])
            raise extent.refuse(self._name, status)

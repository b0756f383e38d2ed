"""What one thread of a soak does: random commands to blocks of its own, checked with a ledger.

It goes through all three faces: calls that block, batches on a queue pair, and asyncio.
NVMe Base Specification 1.4, section 6.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from uspace_drivers.nvme.engine.requests import Result
from uspace_drivers.nvme.spec.command_error import CommandError
from uspace_drivers.nvme.spec.commands import Opcode
from uspace_drivers.nvme.verbs.ledger import UNTOUCHED, Ledger, WrongData
from uspace_drv import DeviceTimeout

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uspace_drivers.nvme.storage.queues import Queues
    from uspace_drv.layout import Structures

DEPTH = 128
"""Commands at once, at most."""

ROOM = 2 << 20
"""Bytes of DMA memory: one huge page, which is the most that there is without an IOMMU."""

MOST_BYTES = 4 << 20
"""What is moved by one call; commands move less, so the driver has to split it."""

MOST_RANGES = 8
"""Ranges of one trim."""


@dataclass
class Tally:
    """What was done: calls and requests by name, bytes written and bytes checked."""

    done: Counter[str]
    written: int = 0
    checked: int = 0


class Piece(NamedTuple):
    """Some blocks of a region, and memory for them: `offset` bytes into that of the worker."""

    start: int
    blocks: int
    offset: int
    memory: NDArray[np.uint8]
    is_write: bool


class Worker:
    """Does random things to a ledger's region, and checks what comes back.

    It belongs to the thread that made it. `close` it there.
    """

    def __init__(self, queues: Queues, ledger: Ledger, depth: int) -> None:
        self.ledger = ledger
        self.tally = Tally(Counter())
        self.doing = "begin"
        """The name of the step."""
        self._namespace = ledger.namespace
        self._random = ledger.random
        self._most = MOST_BYTES // self._namespace.block_size
        self._steps = self._possible_steps(queues)
        self._queues = queues
        self._memory = queues.memory.alloc("u1", ROOM)
        try:
            self._pair = queues.open(depth, polled=bool(self._random.integers(2)))
        except BaseException:
            self._memory.close()
            raise
        self._loop = asyncio.Runner()

    def close(self) -> None:
        """Give queue and memory back."""
        with ExitStack() as way_out:  # whatever fails with another one
            way_out.callback(self._memory.close)
            way_out.callback(self._queues.close, self._pair)
            self._loop.close()

    def step(self) -> None:
        """Do one thing more."""
        step = self._steps[int(self._random.integers(len(self._steps)))]
        self.doing = step.__name__
        step()

    def write(self) -> None:
        """Write some blocks."""
        start, count = self.ledger.choose(self._most)
        memory = self._place(count * self._namespace.block_size)
        memory[:] = self.ledger.renew(start, count)
        is_forced = bool(self._random.integers(2))
        self._namespace.write(self.ledger.first + start, memory, force_unit_access=is_forced)
        self._note("writes", written=memory.nbytes)

    def read(self) -> None:
        """Read some blocks."""
        self._read_back(*self.ledger.choose(self._most))

    def flush(self) -> None:
        """Bring everything to the medium."""
        self._namespace.flush()
        self._note("flushes")

    def zero(self) -> None:
        """Make some blocks zero."""
        start, count = self.ledger.choose(self.ledger.count)
        self.ledger.clear(start, count)
        self._namespace.write_zeroes(
            self.ledger.first + start, count, deallocate=bool(self._random.integers(2))
        )
        self._note("zeroes")

    def trim(self) -> None:
        """Deallocate some ranges of blocks."""
        chosen = [self.ledger.choose(self._most) for _ in range(self._number(MOST_RANGES))]
        for start, count in chosen:
            self.ledger.trim(start, count)
        self._namespace.trim([(self.ledger.first + start, count) for start, count in chosen])
        self._note("trims")

    def verify(self) -> None:
        """Have the controller check some blocks."""
        start, count = self.ledger.choose(self._most)
        self._namespace.verify(self.ledger.first + start, count)
        self._note("verifies")

    def compare(self) -> None:
        """Have the controller compare blocks with what they hold, and with what they do not."""
        start, count = self.ledger.choose(self._most)
        if not self.ledger.is_certain(start, count):
            self._read_back(start, count)
        memory = self._place(count * self._namespace.block_size)
        memory[:] = self.ledger.expected(start, count)
        for is_same in (True, False):
            if not is_same:
                memory[int(self._random.integers(memory.nbytes))] ^= 0x10
            if self._namespace.compare(self.ledger.first + start, memory) != is_same:
                raise WrongData(
                    f"namespace {self._namespace.id}: compare of {count} blocks from block "
                    f"{self.ledger.first + start} on says {'unequal' if is_same else 'equal'}, "
                    f"but they are not (seed {self.ledger.seed})"
                )
        self._note("compares", checked=memory.nbytes)

    def batch(self) -> None:
        """Write and read blocks at once through the queue pair, then read all of them back."""
        pieces = list(self._pieces(dwords=True))
        depth = self._number(self._pair.depth)
        self._prepare(pieces)
        self._drive(self._requests(pieces), depth)
        self._check(pieces)
        again = [piece._replace(is_write=False) for piece in pieces]
        self._prepare(again)
        self._drive(self._requests(again), depth)
        self._check(again)

    def gather(self) -> None:
        """Write and read blocks at once with asyncio, then read all of them back."""
        pieces = list(self._pieces(dwords=False))
        for each in (pieces, [piece._replace(is_write=False) for piece in pieces]):
            self._prepare(each)
            self._loop.run(self._gather(each))
            self._check(each)

    async def _gather(self, pieces: list[Piece]) -> None:
        """Do all at once; nothing uses their memory any more when this returns or raises."""
        aio, first = self._namespace.aio, self.ledger.first
        calls = [
            aio.write(first + start, memory)
            if is_write
            else aio.read(first + start, count, into=memory)
            for start, count, _, memory, is_write in pieces
        ]
        for found in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(found, BaseException):
                raise found

    def _possible_steps(self, queues: Queues) -> list[Callable[[], None]]:
        """Return what the controller can do, what is wanted more often several times."""
        support = queues.io_support
        often = [self.write, self.read, self.batch, self.gather]
        steps = [*often * 3, self.flush]
        steps += [self.zero] * support.write_zeroes + [self.trim] * support.dataset_management
        return steps + [self.compare] * support.compare + [self.verify] * support.verify

    def _number(self, most: int) -> int:
        return self.ledger.choose_number(most)

    def _place(self, size: int) -> NDArray[np.uint8]:
        """Return memory of any kind and alignment."""
        kind, offset = int(self._random.integers(4)), int(self._random.integers(4096))
        offset = {0: offset, 1: 0, 2: offset & ~3, 3: offset}[kind]
        if kind == 0 or offset + size > ROOM:
            return np.empty(size + offset, np.uint8)[offset:]
        array: NDArray[np.uint8] = self._memory.array
        return array[offset : offset + size]

    def _pieces(self, *, dwords: bool) -> Iterator[Piece]:
        """Yield blocks that are apart, with memory that is apart, to be written or read.

        With `dwords` the memory lies at a multiple of 4, where a command may have it.
        """
        ledger, size, end = self.ledger, self._namespace.block_size, 0
        number = self._number(DEPTH)
        width = self._number(min(self._namespace.most_blocks, ROOM // size // 2, ledger.count))
        phase = int(self._random.integers(min(width, ledger.count - width + 1)))
        places = (ledger.count - phase) // width
        chosen = self._random.choice(places, min(number, places), replace=False)
        for place in chosen.tolist():
            count = self._number(width)
            gap = int(self._random.integers(256))
            offset = end + (gap & ~3 if dwords else gap)
            end = offset + count * size
            end += -end % 4
            if end > ROOM:
                return
            memory = self._memory.array[offset : offset + count * size]
            is_write = bool(self._random.integers(2))
            yield Piece(phase + place * width, count, offset, memory, is_write)

    def _prepare(self, pieces: list[Piece]) -> None:
        for start, count, _, memory, is_write in pieces:
            memory[:] = self.ledger.renew(start, count) if is_write else UNTOUCHED

    def _check(self, pieces: list[Piece]) -> None:
        """Check what was read, and count what was done."""
        for start, count, _, memory, is_write in pieces:
            if is_write:
                self._note("writes", written=memory.nbytes)
            else:
                self.ledger.check(start, count, memory)
                self._note("reads", checked=memory.nbytes)

    def _requests(self, pieces: list[Piece]) -> Structures:
        starts, counts, offsets, _, writes = zip(*pieces, strict=True)
        lbas = np.array(starts) + self.ledger.first
        places = np.array(offsets) + self._memory.iova
        requests = self._namespace.requests(Opcode.READ, lbas, np.array(counts), places)
        requests["opcode"][np.array(writes)] = Opcode.WRITE
        return requests

    def _drive(self, requests: Structures, depth: int) -> None:
        """Do them, by one call or by hand, and raise what the first failed with."""
        if self._random.integers(2):
            results = self._pair.run(requests, depth=depth)
        else:
            results = self._submit_and_poll(requests, depth)
        failed = results[results["status"] != 0]
        if failed.size:
            opcode = Opcode(int(requests["opcode"][int(failed["tag"][0])]))
            status = int(failed["status"][0])
            raise CommandError(self._pair.name, opcode, self._namespace.id, status)

    def _submit_and_poll(self, requests: Structures, depth: int) -> Structures:
        pair, total, sent, done = self._pair, len(requests), 0, 0
        results = Result.array(total)
        while done < total:
            sent += pair.submit(requests[: min(total, done + depth)], sent)
            found = pair.poll(1, pair.timeout)
            if not found.size:
                raise DeviceTimeout(f"{pair.name}: no answer within {pair.timeout:.1f} s")
            results[done : done + found.size] = found
            done += found.size
        return results

    def _read_back(self, start: int, count: int) -> None:
        memory = self._place(count * self._namespace.block_size)
        memory[:] = UNTOUCHED
        self._namespace.read(self.ledger.first + start, count, memory)
        self.ledger.check(start, count, memory)
        self._note("reads", checked=memory.nbytes)

    def _note(self, name: str, written: int = 0, checked: int = 0) -> None:
        self.tally.done[name] += 1
        self.tally.written += written
        self.tally.checked += checked

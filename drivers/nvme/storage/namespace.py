"""A namespace: blocks that are read and written, by the NVM command set.

NVMe Base Specification 1.4, section 6. What is asked for may have any size and lie anywhere in
memory. Calls here block; `aio` has the same ones to be awaited.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import index
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from uspace_drivers.nvme.control.identity import NamespaceIdentity
from uspace_drivers.nvme.engine.queue import QueuePair
from uspace_drivers.nvme.engine.requests import IN_FLIGHT, NOT_SHOWN, Request, RequestFlags
from uspace_drivers.nvme.spec.command_error import CommandError
from uspace_drivers.nvme.spec.commands import MOST_RANGES, Opcode
from uspace_drivers.nvme.spec.status import Status
from uspace_drivers.nvme.storage.aio import AsyncNamespace
from uspace_drivers.nvme.storage.queues import Queues
from uspace_drivers.nvme.storage.transfer import Extent, do, do_one, move, trim
from uspace_drv import DeviceError, RegisterValueError, UnsupportedError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from uspace_drv.layout import Structures

READ, WRITE = int(Opcode.READ), int(Opcode.WRITE)

WRONG = (ValueError, TypeError, BufferError, OverflowError)
"""What the engine raises where nothing was sent: the slower way copes, or says what is wrong."""

MOST_BLOCKS = 1 << 16
"""Blocks of a command that moves no data: NLB has 16 bits."""


class Namespace:
    """One namespace. Any thread may use it: each has a queue pair of its own.

    `id`, `block_size` in bytes, `blocks`, and `most_blocks`: what one command moves (MDTS).
    Commands that fail raise `CommandError`, arguments that do not fit `RegisterValueError`, what
    the controller does not offer `UnsupportedError`.
    """

    def __init__(self, identity: NamespaceIdentity, queues: Queues) -> None:
        self.identity = identity
        self.id = identity.id
        self.block_size = identity.block_size
        self.blocks = identity.blocks
        self.size = identity.size
        self.most_blocks = max(1, min(queues.most_bytes // self.block_size, MOST_BLOCKS))
        self._queues = queues
        self._seat: Any = queues.seats

    @property
    def aio(self) -> AsyncNamespace:
        """The same calls for `await`, for the event loop that runs in this thread."""
        return AsyncNamespace(self, self._queues.of_loop())

    def on(self, pair: QueuePair) -> Namespace:
        """The same namespace through a queue pair of your own, by the one thread that uses that."""
        bound = Namespace(self.identity, self._queues)
        bound._seat = SimpleNamespace(pair=pair)
        return bound

    def read(self, lba: int, count: int, into: Any = None) -> Any:
        """Read `count` blocks from block `lba` on, and return them: as bytes, or in `into`.

        `into` is any writable memory of that size. Nothing is copied where it lies in memory from
        `driver.memory.alloc`.
        """
        if type(lba) is not int or type(count) is not int:
            lba, count = self._integers(lba, count)
        if into is None:
            into = self._new(lba, count)
        if count <= self.most_blocks:
            try:
                pair = self._seat.pair
            except AttributeError:
                pair = self._queues.here()
            try:
                try:
                    status = pair.fast(READ, 0, self.id, lba, count, into, pair.spin)
                except DeviceError as error:
                    pair.report(error)
                    raise
                except WRONG:
                    status = NOT_SHOWN
                if status:
                    self._go_on(pair, self.extent(Opcode.READ, lba, count), into, status)
            except BaseException:
                pair.end_transfer()
                raise
        else:
            self._move(Opcode.READ, 0, lba, count, into)
        return into

    def write(self, lba: int, data: Any, *, force_unit_access: bool = False) -> None:
        """Write data, a whole number of blocks, from block `lba` on.

        With `force_unit_access` it is on the medium when this returns, else after a `flush`.
        """
        count = self.count_of(data)
        if type(lba) is not int:
            lba, count = self._integers(lba, count)
        flags = 1 if force_unit_access else 0
        if count > self.most_blocks:
            self._move(Opcode.WRITE, flags, lba, count, data)
            return
        try:
            pair = self._seat.pair
        except AttributeError:
            pair = self._queues.here()
        try:
            try:
                status = pair.fast(WRITE, flags, self.id, lba, count, data, pair.spin)
            except DeviceError as error:
                pair.report(error)
                raise
            except WRONG:
                status = NOT_SHOWN
            if status:
                extent = self.extent(Opcode.WRITE, lba, count, flags=flags)
                self._go_on(pair, extent, data, status)
        except BaseException:
            pair.end_transfer()
            raise

    def flush(self) -> None:
        """Bring everything that was written to the medium."""
        do_one(self._pair(), self.extent(Opcode.FLUSH, 0, 1), None)

    def write_zeroes(self, lba: int, count: int, *, deallocate: bool = False) -> None:
        """Make blocks zero without moving data; with `deallocate` the controller may drop them."""
        do(self._pair(), self.zeroes(lba, count, deallocate=deallocate))

    def verify(self, lba: int, count: int) -> None:
        """Have the controller read blocks and check them, without moving data."""
        do(self._pair(), self.verification(lba, count))

    def compare(self, lba: int, data: Any) -> bool:
        """Have the controller compare blocks with data, a whole number of them: whether equal."""
        extent = self.comparison(lba, data)
        try:
            move(self._pair(), extent, data)
        except CommandError as error:
            if error.code == Status.COMPARE_FAILURE:
                return False
            raise
        return True

    def trim(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Say that the blocks of these ranges (first, count) are not needed (deallocate)."""
        wanted, pair = self.trimmable(ranges), self._pair()
        for start in range(0, len(wanted), MOST_RANGES):
            trim(pair, self.id, wanted[start : start + MOST_RANGES])

    def requests(
        self,
        opcode: Opcode,
        lbas: ArrayLike,
        blocks: ArrayLike = 1,
        data: ArrayLike = 0,
        flags: int = 0,
    ) -> Structures:
        """A batch for `QueuePair.submit`: one request for each of `lbas`, tagged 0, 1, 2 ...

        `blocks` and `data` (IOVAs) are one number for all, or one for each.
        """
        places = self._whole("lbas", lbas, 64)
        blocks, data = self._whole("blocks", blocks, 32), self._whole("data", data, 64)
        batch = Request.array(places.size)
        batch["opcode"], batch["flags"], batch["namespace"] = opcode, flags, self.id
        batch["tag"] = np.arange(places.size)
        batch["lba"], batch["blocks"], batch["data"] = places.ravel(), blocks, data
        return batch

    def extent(self, opcode: Opcode, lba: int, count: int, most: int = 0, flags: int = 0) -> Extent:
        """What to do with which blocks, `most` of them in a command."""
        shift = self.block_size.bit_length() - 1
        return Extent(opcode, flags, self.id, lba, count, shift, most or self.most_blocks)

    def zeroes(self, lba: int, count: int, *, deallocate: bool) -> Extent:
        """What `write_zeroes` does, if it can be done."""
        self._require("write_zeroes", Opcode.WRITE_ZEROES)
        lba, count = self.check(lba, count)
        flags = int(RequestFlags.DEALLOCATE) if deallocate else 0
        return self.extent(Opcode.WRITE_ZEROES, lba, count, MOST_BLOCKS, flags)

    def verification(self, lba: int, count: int) -> Extent:
        """What `verify` does, if it can be done."""
        self._require("verify", Opcode.VERIFY)
        lba, count = self.check(lba, count)
        return self.extent(Opcode.VERIFY, lba, count)

    def comparison(self, lba: int, data: Any) -> Extent:
        """What `compare` does, if it can be done."""
        self._require("compare", Opcode.COMPARE)
        lba, count = self.check(lba, self.count_of(data))
        return self.extent(Opcode.COMPARE, lba, count)

    def trimmable(self, ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """The ranges, if they can be deallocated."""
        self._require("dataset_management", Opcode.DATASET_MANAGEMENT)
        return [self.check(lba, count) for lba, count in ranges]

    def check(self, lba: int, count: int) -> tuple[int, int]:
        """Both as integers of Python; `RegisterValueError` for blocks that it does not have."""
        lba, count = self._integers(lba, count)
        if count < 1 or lba < 0 or lba + count > self.blocks:
            self._refuse(f"{count} blocks from {lba} on: it has {self.blocks}")
        return lba, count

    def _integers(self, lba: Any, count: Any) -> tuple[int, int]:
        """Those of numpy, too, which would overflow here and that the engine does not take."""
        try:
            return index(lba), index(count)
        except TypeError:
            self._refuse(f"{count!r} blocks from {lba!r} on: both are integers")

    def count_of(self, data: Any) -> int:
        """How many blocks data is; `RegisterValueError` where that is no whole number."""
        size = memoryview(data).nbytes
        count, rest = divmod(size, self.block_size)
        if rest or not count:
            self._refuse(f"{size} bytes are no whole number of blocks of {self.block_size}")
        return count

    def _go_on(self, pair: QueuePair, extent: Extent, data: Any, status: int) -> None:
        """Bring to its end what was not done at once."""
        if status == IN_FLIGHT:
            status = pair.finish()
        if status < 0:
            self.check(extent.lba, extent.blocks)
            move(pair, extent, data)
        elif status:
            raise extent.refuse(pair.name, status)

    def _move(self, opcode: Opcode, flags: int, lba: int, count: int, data: Any) -> None:
        self.check(lba, count)
        move(self._pair(), self.extent(opcode, lba, count, flags=flags), data)

    def _pair(self) -> QueuePair:
        pair: QueuePair = getattr(self._seat, "pair", None) or self._queues.here()
        return pair

    def _new(self, lba: int, count: int) -> NDArray[np.uint8]:
        self.check(lba, count)
        return np.empty(count * self.block_size, np.uint8)

    def _whole(self, name: str, numbers: ArrayLike, bits: int) -> NDArray[Any]:
        """Numbers that fit a member of a request: numpy would cut what does not."""
        found = np.asarray(numbers)
        if found.size and found.dtype.kind not in "iu":
            self._refuse(f"{name} are integers, not {found.dtype}")
        if found.size and (found.min() < 0 or int(found.max()) >> bits):
            self._refuse(f"{name} are from {found.min()} to {found.max()}, expected {bits} bits")
        return found

    def _require(self, feature: str, opcode: Opcode) -> None:
        if not getattr(self._queues.io_support, feature):
            name = opcode.name.lower().replace("_", " ")
            raise UnsupportedError(f"{self._queues.name}: the controller has no {name} (ONCS)")

    def _refuse(self, reason: str) -> NoReturn:
        raise RegisterValueError(f"{self._queues.name} namespace {self.id}: {reason}")

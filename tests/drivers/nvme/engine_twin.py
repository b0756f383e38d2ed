"""A slow, obvious twin of the engine: what a request should become, and a device that sees it."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from uspace_drivers.nvme.engine.hot import Memory, Queue
from uspace_drivers.nvme.engine.requests import Request, Result
from uspace_drivers.nvme.spec.commands import Command, Completion, Opcode
from uspace_drv.layout import Structures

PAGE = 4096
LISTS_IOVA = 0x8000_0000
DATA_IOVA = 0x1_0000_0000
MOVES_DATA = {Opcode.READ, Opcode.WRITE, Opcode.COMPARE}
HAS_BLOCKS = MOVES_DATA | {Opcode.WRITE_UNCORRECTABLE, Opcode.WRITE_ZEROES, Opcode.VERIFY}
FORCED = MOVES_DATA | {Opcode.WRITE_ZEROES, Opcode.VERIFY}
KNOWN = HAS_BLOCKS | {Opcode.FLUSH, Opcode.DATASET_MANAGEMENT}


def pages(count: int) -> NDArray[np.uint8]:
    """Zeroed memory that begins at a page."""
    return np.frombuffer(mmap.mmap(-1, count * PAGE), "u1")


@dataclass(frozen=True)
class Space:
    """A namespace as the engine was told of it."""

    shift: int
    blocks: int
    most_blocks: int


@dataclass(frozen=True)
class Wish:
    """A request, as Python numbers."""

    opcode: int = Opcode.READ
    flags: int = 0
    namespace: int = 1
    lba: int = 0
    data: int = DATA_IOVA
    tag: int = 0
    blocks: int = 1
    attributes: int = 0

    def size(self, spaces: dict[int, Space]) -> int:
        """Bytes that it moves."""
        if self.opcode == Opcode.DATASET_MANAGEMENT:
            return self.blocks * 16
        return self.blocks << spaces[self.namespace].shift if self.opcode in MOVES_DATA else 0

    def fault(self, spaces: dict[int, Space], ranges: list[tuple[int, int]]) -> str | None:
        """A word of the message that it should be refused with."""
        if self.opcode not in KNOWN:
            return "opcode"
        forced = 3 if self.opcode in FORCED else 0
        trims = self.opcode in {Opcode.WRITE_ZEROES, Opcode.DATASET_MANAGEMENT}
        if self.flags & ~(forced | (4 if trims else 0)):
            return "flags"
        if self.attributes and self.opcode != Opcode.DATASET_MANAGEMENT:
            return "flags"
        if self.namespace not in spaces:
            return "namespace"
        return self._fault_of_extent(spaces, ranges)

    def _fault_of_extent(
        self, spaces: dict[int, Space], ranges: list[tuple[int, int]]
    ) -> str | None:
        space, size = spaces[self.namespace], self.size(spaces)
        if self.opcode in HAS_BLOCKS:
            most = space.most_blocks if self.opcode in MOVES_DATA else 65536
            if not 1 <= self.blocks <= most:
                return "expected 1 to"
            if self.lba + self.blocks > space.blocks:
                return "past the end"
        if self.opcode == Opcode.DATASET_MANAGEMENT and not 1 <= self.blocks <= 256:
            return "expected 1 to"
        if size and self.data % 4:
            return "multiple of 4"
        inside = any(a <= self.data and self.data + size <= a + n for a, n in ranges)
        return "Memory" if size and not inside else None

    def dwords(self) -> tuple[int, int, int, int]:
        """Command dwords 10 to 13."""
        if self.opcode == Opcode.DATASET_MANAGEMENT:
            return self.blocks - 1, self.attributes | self.flags & 4, 0, 0
        if self.opcode not in HAS_BLOCKS:
            return 0, 0, 0, 0
        high = (self.flags & 1) << 30 | (self.flags >> 1 & 1) << 31 | (self.flags >> 2 & 1) << 25
        return self.lba & 0xFFFF_FFFF, self.lba >> 32, self.blocks - 1 | high, 0


def batch(*wishes: Wish) -> Structures:
    """The array that the engine takes."""
    array = Request.array(len(wishes))
    for i, wish in enumerate(wishes):
        for name, value in vars(wish).items():
            array[name][i] = value
    return array


@dataclass(frozen=True)
class Fetched:
    """A command as the device read it; `pieces` is the memory that it names, in order."""

    id: int
    opcode: int
    namespace: int
    dwords: tuple[int, int, int, int]
    pieces: list[tuple[int, int]]
    raw: bytes


@dataclass
class PlainDevice:
    """Reads commands from the ring and writes completions, as little as a device can do."""

    submission: NDArray[np.uint8]
    completion: NDArray[np.uint8]
    lists: NDArray[np.uint8]
    doorbells: NDArray[np.uint8]
    number: int = 1
    head: int = 0
    tail: int = 0
    phase: int = 1
    lists_in_use: dict[int, int] = field(default_factory=dict)

    @property
    def tail_doorbell(self) -> int:
        """What the engine rang last."""
        return int(self.doorbells.view("<u4")[2])

    @property
    def head_doorbell(self) -> int:
        """Likewise, of the completion queue."""
        return int(self.doorbells.view("<u4")[3])

    def fetch(self, size_of: int | None = None) -> list[Fetched]:
        """All new commands; `size_of`: bytes that each of them moves."""
        found = []
        commands = Command.view(self.submission)
        while self.head != self.tail_doorbell:
            found.append(self._read(commands[self.head], size_of))
            self.head = (self.head + 1) % len(commands)
        return found

    def _read(self, command: np.void, size_of: int | None) -> Fetched:
        dwords = command["cdw10"], command["cdw11"], command["cdw12"], command["cdw13"]
        assert not any(command[name] for name in ("cdw2", "cdw3", "metadata"))
        return Fetched(
            int(command["id"]),
            int(command["opcode"]),
            int(command["namespace"]),
            (int(dwords[0]), int(dwords[1]), int(dwords[2]), int(dwords[3])),
            self.pieces(command, size_of or 0),
            command.tobytes(),
        )

    def pieces(self, command: np.void, size: int) -> list[tuple[int, int]]:
        """Walk the SGL descriptor or the PRP entries, section 4.3 and 4.4."""
        first, second = int(command["prp1"]), int(command["prp2"])
        if size == 0:
            return []
        if command["flags"] & 0xC0:
            assert command["flags"] == 0x40
            assert second >> 32 == 0
            return [(first, second & 0xFFFF_FFFF)]
        addresses = [first]
        left = size - (PAGE - first % PAGE)
        if left > PAGE:
            addresses += self._list(second, -(-left // PAGE))
            self.lists_in_use[int(command["id"])] = second
        elif left > 0:
            addresses.append(second)
        return self._spans(addresses, size)

    def _list(self, iova: int, count: int) -> list[int]:
        start = iova - LISTS_IOVA
        assert start % PAGE == 0
        assert 0 <= start < len(self.lists)
        assert count <= PAGE // 8
        assert iova not in self.lists_in_use.values(), "two commands share a list"
        return [int(each) for each in self.lists[start : start + 8 * count].view("<u8")]

    @staticmethod
    def _spans(addresses: list[int], size: int) -> list[tuple[int, int]]:
        spans = []
        for address in addresses:
            length = min(size, PAGE - address % PAGE)
            spans.append((address, length))
            size -= length
        assert size == 0
        assert all(address % PAGE == 0 for address in addresses[1:])
        return spans

    def complete(
        self,
        id: int,  # noqa: A002 - the specification's word
        status: int = 0,
        result: int = 0,
        *,
        head: int | None = None,
        queue: int | None = None,
        phase: int | None = None,
    ) -> None:
        """Post a completion; `head`, `queue` and `phase` may be lies."""
        entries = Completion.view(self.completion)
        entry = entries[self.tail]
        entry["result"], entry["result_high"] = result & 0xFFFF_FFFF, result >> 32
        entry["head"] = self.head if head is None else head
        entry["queue"] = self.number if queue is None else queue
        entry["id"] = id
        entry["status"] = status << 1 | (self.phase if phase is None else phase)
        self.step()
        self.lists_in_use.pop(id, None)

    def step(self) -> None:
        """Go on to the next entry of the completion queue."""
        self.tail += 1
        if self.tail * Completion.SIZE == len(self.completion):
            self.tail = 0
            self.phase ^= 1


class Rig:
    """An engine's queue on plain memory, with a plain device at the other end."""

    def __init__(
        self, entries: int = 8, depth: int = 8, completions: int | None = None, *, sgl: bool = False
    ) -> None:
        completion_size = (completions or entries) * Completion.SIZE
        self.doorbells, self.lists, self.data = pages(1), pages(depth), pages(2048)
        self.device = PlainDevice(
            pages(-(-entries * Command.SIZE // PAGE))[: entries * Command.SIZE],
            pages(-(-completion_size // PAGE))[:completion_size],
            self.lists,
            self.doorbells,
        )
        self.memory = Memory()
        self.memory.add(self.data, DATA_IOVA)
        self.ranges = [(DATA_IOVA, len(self.data))]
        self.spaces: dict[int, Space] = {}
        self.queue = Queue(
            "0000:00:04.0",
            1,
            self.device.submission,
            self.device.completion,
            self.lists,
            LISTS_IOVA,
            self.memory,
            page_size=PAGE,
            sgl=sgl,
        )
        self.queue.use_doorbells(self.doorbells, 8, 12)
        self.set_namespace(1, Space(12, 1000, 32))

    def set_namespace(self, namespace: int, space: Space) -> None:
        """Tell the engine, and remember."""
        self.queue.set_namespace(namespace, space.shift, space.blocks, space.most_blocks)
        self.spaces[namespace] = space

    def submit(self, *wishes: Wish) -> int:
        """How many went in."""
        return self.queue.submit(batch(*wishes))

    def poll(self, room: int = 64) -> list[tuple[int, int, int]]:
        """Tag, status and result of what has completed."""
        results = Result.array(room)
        count = self.queue.poll(results)
        return [(int(r["tag"]), int(r["status"]), int(r["result"])) for r in results[:count]]

    def expect(self, fetched: Fetched, wish: Wish) -> None:
        """Hold the command against what the request says."""
        assert fetched.opcode == wish.opcode
        assert fetched.namespace == wish.namespace
        assert fetched.dwords == wish.dwords()
        size = wish.size(self.spaces)
        assert sum(length for _, length in fetched.pieces) == size
        place = wish.data
        for address, length in fetched.pieces:
            assert address == place
            place += length

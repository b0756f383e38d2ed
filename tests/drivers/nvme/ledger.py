"""What every block of a namespace should hold: each carries its LBA, a version, and a checksum."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from uspace_drivers.nvme.driver import Nvme
from uspace_drivers.nvme.engine.queue import QueuePair
from uspace_drivers.nvme.spec.commands import Opcode
from uspace_drivers.nvme.storage.namespace import Namespace

MULTIPLIERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)


def blocks_of(lbas: NDArray[np.uint64], versions: NDArray[np.uint64], size: int) -> NDArray[Any]:
    """Contents, a row of `size` bytes for each; version 0 is all zeroes."""
    words = np.empty((len(lbas), size // 8), np.uint64)
    index = np.arange(size // 8, dtype=np.uint64)
    seed = lbas * MULTIPLIERS[0] + versions * MULTIPLIERS[1]
    words[:] = (seed[:, None] ^ index) * MULTIPLIERS[2]
    words ^= words >> np.uint64(29)
    words[:, 0], words[:, 1] = lbas, versions
    words[:, -1] = np.bitwise_xor.reduce(words[:, :-1], axis=1)
    words[versions == 0] = 0
    return words.view(np.uint8)


class Ledger:
    """A region of a namespace, `count` blocks from `first` on, that one thread works on."""

    def __init__(self, namespace: Namespace, first: int, count: int, seed: int) -> None:
        self.namespace = namespace
        self.first = first
        self.versions = np.zeros(count, np.uint64)
        self.random = np.random.default_rng(seed)
        self._last = 0

    def begin(self) -> None:
        """Make the region zero, by writing."""
        self.namespace.write(self.first, bytes(len(self.versions) * self.namespace.block_size))

    def choose(self, most: int = 200) -> tuple[int, int]:
        """Some blocks: the first one, and how many."""
        count = int(self.random.integers(1, min(most, len(self.versions)) + 1))
        return int(self.random.integers(0, len(self.versions) - count + 1)), count

    def renew(self, start: int, count: int) -> NDArray[Any]:
        """New contents for blocks, as bytes."""
        self._last += 1
        self.versions[start : start + count] = self._last
        return self.expected(start, count)

    def expected(self, start: int, count: int) -> NDArray[Any]:
        """What blocks hold, as bytes."""
        lbas = np.arange(self.first + start, self.first + start + count, dtype=np.uint64)
        versions = self.versions[start : start + count]
        return blocks_of(lbas, versions, self.namespace.block_size).ravel()

    def check(self, start: int, count: int, found: Any) -> None:
        """Compare with what was read; say what is wrong where."""
        size = self.namespace.block_size
        seen = np.frombuffer(found, np.uint8).reshape(count, size)
        wrong = np.flatnonzero((seen != self.expected(start, count).reshape(count, size)).any(1))
        if wrong.size:
            words = seen[wrong[0]].view(np.uint64)
            block = start + int(wrong[0])
            whole = int(np.bitwise_xor.reduce(words)) == 0
            raise AssertionError(
                f"{wrong.size} of {count} blocks are wrong, first {self.first + block}: expected "
                f"version {self.versions[block]}, found version {words[1]} of block {words[0]}, "
                f"checksum {'right' if whole else 'wrong'}"
            )


class Worker:
    """Does random things to a ledger's region, and checks what comes back."""

    def __init__(self, nvme: Nvme, ledger: Ledger, pair: QueuePair | None = None) -> None:
        self.ledger = ledger
        self.nvme = nvme
        self.pair = pair
        self.memory = nvme.memory.alloc("u1", (256 << 10) + 8192)

    def step(self) -> None:
        """One thing more."""
        steps = [self.write, self.write, self.read, self.read, self.zero, self.flush]
        if self.pair is not None:
            steps += [self.batch, self.batch]
        steps[int(self.ledger.random.integers(len(steps)))]()

    def place(self, size: int) -> NDArray[np.uint8]:
        """Memory of any kind and alignment."""
        random = self.ledger.random
        kind, offset = int(random.integers(4)), int(random.integers(0, 4096))
        if kind == 0:
            return np.empty(size + offset, np.uint8)[offset:]
        offset = {1: 0, 2: offset & ~3, 3: offset}[kind]
        array: NDArray[np.uint8] = self.memory.array
        return array[offset : offset + size] if size + offset <= array.nbytes else self.place(size)

    def write(self) -> None:
        start, count = self.ledger.choose()
        data = self.ledger.renew(start, count)
        place = self.place(data.nbytes)
        place[:] = data
        fua = bool(self.ledger.random.integers(2))
        self.ledger.namespace.write(self.ledger.first + start, place, force_unit_access=fua)

    def read(self) -> None:
        start, count = self.ledger.choose()
        place = self.place(count * self.ledger.namespace.block_size)
        place[:] = 0xA5
        self.ledger.check(
            start, count, self.ledger.namespace.read(self.ledger.first + start, count, place)
        )

    def zero(self) -> None:
        start, count = self.ledger.choose()
        if self.nvme.controller.identity.io_support.write_zeroes:
            self.ledger.namespace.write_zeroes(self.ledger.first + start, count)
            self.ledger.versions[start : start + count] = 0

    def flush(self) -> None:
        self.ledger.namespace.flush()

    def batch(self) -> None:
        """Single blocks, written and read back through a queue of one's own at some depth."""
        assert self.pair is not None
        ledger, random, size = self.ledger, self.ledger.random, self.ledger.namespace.block_size
        count = int(random.integers(1, 65))
        blocks = random.choice(len(ledger.versions), count, replace=False)
        rows = self.memory.array[: count * size].reshape(count, size)
        for row, block in zip(rows, blocks.tolist(), strict=True):
            row[:] = ledger.renew(block, 1)
        places = self.memory.iova + np.arange(count) * size
        depth = int(random.integers(1, self.pair.depth + 1))
        for opcode in (Opcode.WRITE, Opcode.READ):
            lbas = blocks + ledger.first
            results = self.pair.run(ledger.namespace.requests(opcode, lbas, 1, places), depth=depth)
            assert not results["status"].any()
            if opcode is Opcode.WRITE:
                rows[:] = 0x5A
        for row, block in zip(rows, blocks.tolist(), strict=True):
            ledger.check(block, 1, row.copy())

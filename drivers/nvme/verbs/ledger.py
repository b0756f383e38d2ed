"""What blocks should hold: each carries its LBA, a version that grows, and a checksum.

All of it follows from a seed, so a block is compared to the last bit and its contents say where and
when they were written. NVMe Base Specification 1.4, section 6.7 (what deallocated blocks hold).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from uspace_drv import DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from uspace_drivers.nvme.storage.namespace import Namespace

MULTIPLIERS = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], np.uint64
)
"""Odd numbers with no pattern in their bits."""

ZEROES, ONES = 0, (1 << 64) - 1
"""Versions of blocks that are all zeroes, or all ones, as deallocated ones may be."""

PIECE = 1 << 20
"""Bytes that are read or written at a time where a whole region is."""

UNTOUCHED = 0xA5
"""What memory holds before a read."""


def never() -> bool:
    """It is not over."""
    return False


class WrongData(DeviceError):
    """Blocks do not hold what was written to them."""


class Ledger:
    """What a region holds that one thread works on: `count` blocks of a namespace from `first` on.

    Blocks are numbered from the start of the region. `random` is where all choices come from, so
    that they are the same for the same `seed` and `number` (of the thread).
    """

    def __init__(
        self, namespace: Namespace, first: int, count: int, seed: int, number: int = 0
    ) -> None:
        self.namespace = namespace
        self.first = first
        self.count = count
        self.seed = seed
        self.random = np.random.default_rng([seed, number])
        self._versions = np.full(count, ZEROES, np.uint64)
        self._trimmed = np.zeros(count, np.bool_)
        self._last = 0

    def begin(self, is_over: Callable[[], bool] = never) -> None:
        """Write all of the region, unless it is over before.

        Ones come first: an earlier run with the same seed has left what would hide a lost write.
        """
        for start, count in self._pieces(is_over):
            ones = np.full(count * self.namespace.block_size, 0xFF, np.uint8)
            self.namespace.write(self.first + start, ones)
        for start, count in self._pieces(is_over):
            self.namespace.write(self.first + start, self.renew(start, count))

    def audit(self, is_over: Callable[[], bool] = never) -> int:
        """Read and check all of the region, unless it is over before; how many bytes those were."""
        checked = 0
        for start, count in self._pieces(is_over):
            self.check(start, count, self.namespace.read(self.first + start, count))
            checked += count * self.namespace.block_size
        return checked

    def choose(self, most: int) -> tuple[int, int]:
        """Some blocks, up to `most`, small numbers as often as large: the first, how many."""
        count = self.choose_number(min(most, self.count))
        return int(self.random.integers(0, self.count - count + 1)), count

    def choose_number(self, most: int) -> int:
        """Choose from 1 to `most`: each power of two is as likely as the next."""
        return int((most + 1) ** self.random.random())

    def renew(self, start: int, count: int) -> NDArray[np.uint8]:
        """Return new contents for blocks, as bytes, which they are expected to hold from now on."""
        self._last += 1
        self._versions[start : start + count] = self._last
        self._trimmed[start : start + count] = False
        return self.expected(start, count)

    def clear(self, start: int, count: int) -> None:
        """Expect zeroes."""
        self._versions[start : start + count] = ZEROES
        self._trimmed[start : start + count] = False

    def trim(self, start: int, count: int) -> None:
        """Expect what was there, zeroes or ones; what a first read finds has to stay so."""
        self._trimmed[start : start + count] = True

    def is_certain(self, start: int, count: int) -> bool:
        """Whether nothing is deallocated there that was not read since."""
        return not self._trimmed[start : start + count].any()

    def expected(self, start: int, count: int) -> NDArray[np.uint8]:
        """Return what blocks hold, as bytes."""
        lbas = np.arange(self.first + start, self.first + start + count, dtype=np.uint64)
        versions = self._versions[start : start + count]
        return contents(lbas, versions, self.namespace.block_size, self.seed).ravel()

    def check(self, start: int, count: int, found: Any) -> None:
        """Compare with what was read; raises `WrongData`, which says what is wrong where."""
        seen = np.frombuffer(found, np.uint8).reshape(count, self.namespace.block_size)
        self._settle(start, seen)
        expected = self.expected(start, count).reshape(seen.shape)
        if np.array_equal(seen, expected):
            return
        wrong = np.flatnonzero((seen != expected).any(1))
        first = int(wrong[0])
        raise WrongData(
            f"namespace {self.namespace.id}: of {count} blocks that were read {wrong.size} hold "
            f"something else than was written, first block {self.first + start + first}: "
            f"expected {_version(int(self._versions[start + first]))}, "
            f"found {self._describe(seen[first], expected[first])} (seed {self.seed})"
        )

    def _describe(self, seen: NDArray[np.uint8], expected: NDArray[np.uint8]) -> str:
        """Say whose contents these are, or how they differ from those that were expected."""
        if (seen == seen[0]).all():
            hint = ": memory as it was before the read" if seen[0] == UNTOUCHED else ""
            return f"{len(seen)} bytes {seen[0]:#04x}{hint}"
        words = seen.view(np.uint64)
        if np.array_equal(contents(words[:1], words[1:2], len(seen), self.seed)[0], seen):
            return f"{_version(int(words[1]))} of block {words[0]}"
        wrong = np.flatnonzero(seen != expected)
        first = int(wrong[0])
        whole = int(np.bitwise_xor.reduce(words)) == 0
        return (
            f"{wrong.size} other bytes from byte {first} on, {seen[first]:#04x} and not "
            f"{expected[first]:#04x}, with a {'right' if whole else 'wrong'} checksum"
        )

    def _settle(self, start: int, seen: NDArray[np.uint8]) -> None:
        """Take what deallocated blocks hold for what they hold from now on, if it may be that."""
        trimmed = self._trimmed[start : start + len(seen)]
        for block in np.flatnonzero(trimmed).tolist() if trimmed.any() else ():
            word = seen[block, 0]
            if word in {ZEROES, ONES & 0xFF} and (seen[block] == word).all():
                self._versions[start + block] = ONES if word else ZEROES
        trimmed[:] = False

    def _pieces(self, is_over: Callable[[], bool]) -> Iterator[tuple[int, int]]:
        step = max(1, PIECE // self.namespace.block_size)
        for start in range(0, self.count, step):
            if is_over():
                return
            yield start, min(step, self.count - start)


def contents(
    lbas: NDArray[np.uint64], versions: NDArray[np.uint64], size: int, seed: int
) -> NDArray[np.uint8]:
    """Return what blocks of `size` bytes hold, a row for each of these LBAs and versions.

    The first word of 64 bits is the LBA, the second the version, the last makes the exclusive or of
    all of them 0; what is between has no pattern that another block has, too.
    """
    start = lbas * MULTIPLIERS[0] + versions * MULTIPLIERS[1]
    start += np.array([seed], np.uint64) * MULTIPLIERS[3]
    words = start[:, None] ^ np.arange(size // 8, dtype=np.uint64)
    words *= MULTIPLIERS[2]
    words ^= words >> np.uint64(29)
    words[:, 0], words[:, 1] = lbas, versions
    words[:, -1] = np.bitwise_xor.reduce(words[:, :-1], axis=1)
    for version in (ZEROES, ONES):
        words[versions == version] = version
    found: NDArray[np.uint8] = words.view(np.uint8)
    return found


def _version(version: int) -> str:
    return {ZEROES: "zeroes", ONES: "ones"}.get(version, f"version {version}")

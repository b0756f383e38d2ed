"""Namespaces of the model: which there are, what each holds, and how they come and go.

NVM Express Base Specification 1.4, sections 5.19, 5.20 (attachment, management) and 6.1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from uspace_drivers.nvme.model.store.media import Medium, open_medium
from uspace_drivers.nvme.model.task import DWORD_10, Refused
from uspace_drivers.nvme.spec.identify import LbaFormat, Performance
from uspace_drivers.nvme.spec.status import Status

MOST = 32
"""Identify's NN: the largest namespace id."""

METADATA = 8
"""Bytes of metadata in the format that has some."""

FORMATS = (
    LbaFormat(lbads=9, rp=Performance.GOOD),
    LbaFormat(lbads=12, rp=Performance.BEST),
)
WITH_METADATA = LbaFormat(lbads=9, ms=METADATA, rp=Performance.DEGRADED)
"""A third format, of a model that is made with `metadata=True`; its I/O is refused."""


@dataclass(eq=False)
class ModelNamespace:
    """Blocks on a medium; `bad` are those that cannot be read."""

    id: int
    medium: Medium
    format: LbaFormat
    nguid: bytes
    eui64: bytes
    is_attached: bool = True
    bad: set[int] = field(default_factory=set)

    @property
    def shift(self) -> int:
        """A block has 1 << shift bytes."""
        return self.format.lbads

    @property
    def blocks(self) -> int:
        """How many there are."""
        return self.medium.size >> self.shift

    @property
    def is_plain(self) -> bool:
        """Whether reads and writes are nothing but copies."""
        return not self.bad and not self.format.ms

    def offset(self, lba: int, blocks: int) -> int:
        """The place of a range on the medium; refused where it is not all inside."""
        if lba + blocks > self.blocks:
            why = f"blocks {lba} to {lba + blocks - 1}, but there are {self.blocks}"
            raise Refused(Status.LBA_OUT_OF_RANGE, why, byte=DWORD_10)
        return lba << self.shift

    def is_bad(self, lba: int, blocks: int) -> bool:
        """Whether one of these blocks cannot be read."""
        return any(lba <= each < lba + blocks for each in self.bad)

    def heal(self, lba: int, blocks: int) -> None:
        """They were written anew."""
        self.bad -= {each for each in self.bad if lba <= each < lba + blocks}

    def erase(self) -> None:
        """Forget all data."""
        self.medium.deallocate(0, self.medium.size)
        self.bad.clear()


class NamespaceStore:
    """All namespaces of the subsystem, attached or not, and the room that is left for more."""

    def __init__(
        self, serial: str, kind: str, size: int, count: int, formats: Sequence[LbaFormat]
    ) -> None:
        self.formats = formats
        self.total = 2 * size * count
        """Bytes: there is room for as much again as there is at first."""
        self._serial = serial
        self._kind = kind
        self._made = 0
        self._all: dict[int, ModelNamespace] = {}
        for _ in range(count):
            self.attach(self.create(size, formats[0]).id)

    @property
    def all(self) -> Sequence[ModelNamespace]:
        """Attached or not, by id."""
        return [self._all[number] for number in sorted(self._all)]

    @property
    def attached(self) -> Sequence[ModelNamespace]:
        """Those that take I/O, by id."""
        return [each for each in self.all if each.is_attached]

    @property
    def unallocated(self) -> int:
        """Bytes that are in no namespace."""
        return self.total - sum(each.medium.size for each in self._all.values())

    def find(self, number: int) -> ModelNamespace | None:
        """The one with this id, attached or not; refused where the id is none."""
        if not 1 <= number <= MOST:
            why = f"namespace {number:#x}: expected 1 to {MOST}"
            raise Refused(Status.INVALID_NAMESPACE_OR_FORMAT, why, byte=4)
        return self._all.get(number)

    def active(self, number: int) -> ModelNamespace:
        """The attached one with this id, or refused (section 6.1.5)."""
        found = self.find(number)
        if found is None or not found.is_attached:
            raise Refused(Status.INVALID_FIELD, f"namespace {number} is not active", byte=4)
        return found

    def allocated(self, number: int) -> ModelNamespace:
        """The one with this id, attached or not, or refused."""
        found = self.find(number)
        if found is None:
            raise Refused(Status.INVALID_FIELD, f"namespace {number} does not exist", byte=4)
        return found

    def create(self, size: int, format: LbaFormat) -> ModelNamespace:  # noqa: A002
        """Make one of `size` bytes, at first attached to nobody."""
        if size > self.unallocated:
            why = f"{size} bytes, but {self.unallocated} are left"
            raise Refused(Status.INSUFFICIENT_CAPACITY, why)
        number = next((each for each in range(1, MOST + 1) if each not in self._all), None)
        if number is None:
            raise Refused(Status.NAMESPACE_ID_UNAVAILABLE, f"all {MOST} are in use")
        self._made += 1
        seed = hashlib.sha256(f"{self._serial}/{self._made}".encode()).digest()
        medium = open_medium(self._kind, size, number)
        made = ModelNamespace(number, medium, format, seed[:16], seed[16:24], is_attached=False)
        self._all[number] = made
        return made

    def attach(self, number: int) -> None:
        """Let it take I/O."""
        found = self.allocated(number)
        if found.is_attached:
            raise Refused(Status.NAMESPACE_ALREADY_ATTACHED, f"namespace {number}")
        found.is_attached = True

    def detach(self, number: int) -> None:
        """Let it take no more I/O."""
        found = self.allocated(number)
        if not found.is_attached:
            raise Refused(Status.NAMESPACE_NOT_ATTACHED, f"namespace {number}")
        found.is_attached = False

    def delete(self, number: int) -> None:
        """Destroy one and what it holds."""
        self.allocated(number).medium.remove()
        del self._all[number]

    def flush(self) -> None:
        """Let all data reach its medium."""
        for each in self._all.values():
            each.medium.flush()

    def close(self) -> None:
        """Give memory back; data stays where the medium keeps it."""
        for each in self._all.values():
            each.medium.close()

"""Queues of the model: how commands come out of memory, and completions go back into it.

NVM Express Base Specification 1.4, section 4 (queues), 4.6 (completion entry), 5.7 and 7.13
(shadow doorbells). `PythonRings` is the slow and obvious one; the one in C answers alike.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from uspace_drivers.nvme.model.rings.vectors import Vectors
from uspace_drivers.nvme.model.store.namespaces import ModelNamespace
from uspace_drv import DeviceError
from uspace_drv.models.iommu import Iommu

COMMAND_SIZE, COMPLETION_SIZE = 64, 16
ADMIN = 0
ENTRY = struct.Struct("<QHHHH")
"""A completion: result, head and number of the submission queue, command, status and phase."""


class Work(NamedTuple):
    """What rings have done by themselves, for the SMART log."""

    reads: int = 0
    writes: int = 0
    bytes_read: int = 0
    bytes_written: int = 0


class Owner(Protocol):
    """What rings need of the model; all of it with the model's turn held (`quiesce`)."""

    name: str
    memory: Iommu
    vectors: Vectors

    def execute(self, submission: int, command: bytes) -> None:
        """Do one command of 64 bytes, and `complete` it now or later."""

    def refuse_doorbell(self, why: str, *, exists: bool) -> None:
        """A doorbell of a queue that does not exist, or a value that it cannot have."""

    def fail(self, why: str) -> None:
        """Give up: CSTS.CFS."""


class Rings(Protocol):
    """The queues, from the moment that the controller is enabled.

    Whatever is not plainly good is handed to `Owner.execute`, so errors are made in one place.
    """

    def start(self) -> None:
        """CC.EN was set, and the admin queue has been opened."""

    def stop(self) -> None:
        """Forget all queues: the controller was disabled or reset. Nothing runs afterwards."""

    def open_completion(self, number: int, address: int, entries: int, vector: int | None) -> None:
        """Make a completion queue at an IOVA; None: it raises no interrupt."""

    def open_submission(self, number: int, address: int, entries: int, completion: int) -> None:
        """Make a submission queue at an IOVA."""

    def close_completion(self, number: int) -> None:
        """Forget a completion queue, which no submission queue uses any more."""

    def close_submission(self, number: int) -> None:
        """Forget a submission queue; nothing of it is fetched or completed afterwards."""

    def complete(self, submission: int, id: int, status: int, result: int = 0) -> None:  # noqa: A002
        """Post a completion and interrupt; `status` has 15 bits, `result` is DW0 and DW1.

        A submission queue that is gone meanwhile is passed over.
        """

    def forge(
        self, submission: int, entry: bytes, *, phase_flips: bool = False, silent: bool = False
    ) -> None:
        """Post 16 bytes as they are but for the phase, and tell nobody if `silent`: for tests."""

    def head(self, submission: int) -> int:
        """The index of the command that is fetched next."""

    def ring(self, number: int, is_completion: bool, value: int) -> None:
        """A doorbell was written by a call. Who sees doorbells in memory has nothing to do."""

    def use_shadow(self, doorbells: int, events: int) -> None:
        """Doorbells of I/O queues are at this IOVA from now on, and event indexes at that one."""

    def show_namespaces(self, namespaces: Sequence[ModelNamespace]) -> None:
        """These are attached, as they are now; called again when anything about one changes."""

    def show_faults(self, are_set: bool) -> None:
        """While faults or latency are set, each command goes to `execute`."""

    def take_work(self) -> Work:
        """What was done without `execute` since it was asked last."""

    def close(self) -> None:
        """Stop, and give threads and memory back; `start` makes them anew. Twice is fine."""


@dataclass(eq=False)
class Submission:
    """A submission queue: the device moves `head`, the driver `tail`."""

    number: int
    address: int
    entries: int
    completion: int
    head: int = 0
    tail: int = 0


class Posted(NamedTuple):
    """A completion before it has a place: where it is from, and its words."""

    ring: Submission
    id: int
    status: int
    result: int


@dataclass(eq=False)
class Completion:
    """A completion queue: the device moves `tail`, the driver `head`."""

    number: int
    address: int
    entries: int
    vector: int | None
    head: int = 0
    tail: int = 0
    phase: int = 1
    waiting: deque[Posted] = field(default_factory=deque)

    @property
    def used(self) -> int:
        """Entries that the driver has not taken yet."""
        return (self.tail - self.head) % self.entries

    @property
    def has_room(self) -> bool:
        """Whether one more fits; a full queue has one entry that is empty (section 4.1.2)."""
        return not self.waiting and self.used < self.entries - 1

    def step(self) -> None:
        """Go to the next entry."""
        self.tail = (self.tail + 1) % self.entries
        self.phase ^= self.tail == 0


@dataclass(frozen=True)
class Shadow:
    """Where doorbells and event indexes lie in memory (section 5.7)."""

    doorbells: int
    events: int

    @staticmethod
    def offset(number: int, is_completion: bool) -> int:
        """Bytes from the start of either page: as the doorbells lie, with a stride of 4."""
        return 8 * number + 4 * is_completion


class InHostMemory:
    """Rings lie in the driver's memory: one that is not there is fatal for the controller."""

    _owner: Owner

    def _read(self, address: int, size: int, carrier: str) -> bytes | None:
        try:
            return self._owner.memory.read(address, size, carrier)
        except DeviceError as error:
            self._owner.fail(str(error))
            return None

    def _write(self, address: int, data: bytes, carrier: str) -> bool:
        try:
            self._owner.memory.write(address, data, carrier)
        except DeviceError as error:
            self._owner.fail(str(error))
            return False
        return True


class PythonRings(InHostMemory):
    """Rings that run when a doorbell is written, in the thread that writes it."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._submissions: dict[int, Submission] = {}
        self._completions: dict[int, Completion] = {}
        self._shadow: Shadow | None = None
        self._is_running = False

    def start(self) -> None:
        """Listen to doorbells."""
        self._is_running = True

    def stop(self) -> None:
        """Forget all queues."""
        self._is_running = False
        self._shadow = None
        self._submissions.clear()
        self._completions.clear()

    def close(self) -> None:
        """Nothing but queues is held."""
        self.stop()

    def open_completion(self, number: int, address: int, entries: int, vector: int | None) -> None:
        """Make an empty one whose first entries will have the phase 1."""
        self._completions[number] = Completion(number, address, entries, vector)
        self._ask_for(number, True, 0)

    def open_submission(self, number: int, address: int, entries: int, completion: int) -> None:
        """Make an empty one."""
        self._submissions[number] = Submission(number, address, entries, completion)
        self._ask_for(number, False, 0)

    def close_completion(self, number: int) -> None:
        """Forget it, and what it still wants to interrupt for."""
        ring = self._completions.pop(number)
        self._settle(ring)

    def close_submission(self, number: int) -> None:
        """Forget it; what is in memory and not yet fetched stays there."""
        del self._submissions[number]

    def head(self, submission: int) -> int:
        """The index of the command that is fetched next."""
        return self._submissions[submission].head

    def use_shadow(self, doorbells: int, events: int) -> None:
        """Let the driver write doorbells to memory, and ask for each by MMIO too: nobody polls."""
        self._shadow = Shadow(doorbells, events)
        for ring in list(self._submissions.values()):
            self._ask_for(ring.number, False, ring.tail)
        for queue in list(self._completions.values()):
            self._ask_for(queue.number, True, queue.head)

    def show_namespaces(self, namespaces: Sequence[ModelNamespace]) -> None:
        """All commands are the model's."""

    def show_faults(self, are_set: bool) -> None:
        """All commands are the model's."""

    def take_work(self) -> Work:
        """All work is the model's."""
        return Work()

    def ring(self, number: int, is_completion: bool, value: int) -> None:
        """Take a new head or tail, and work on what it allows."""
        if not self._is_running:
            return
        queues = self._completions if is_completion else self._submissions
        queue = queues.get(number)
        where = f"doorbell of {'completion' if is_completion else 'submission'} queue {number}"
        if queue is None:
            self._owner.refuse_doorbell(f"{where}: there is no such queue", exists=False)
        elif value >= queue.entries:
            why = f"{where}: {value}, but it has {queue.entries} entries"
            self._owner.refuse_doorbell(why, exists=True)
        elif isinstance(queue, Completion):
            self._free(queue, value)
        else:
            queue.tail = value
            self._fetch(queue)

    def complete(self, submission: int, id: int, status: int, result: int = 0) -> None:  # noqa: A002
        """Post it, or let it wait for room."""
        ring = self._submissions.get(submission)
        if ring is not None:
            queue = self._completions[ring.completion]
            queue.waiting.append(Posted(ring, id, status, result))
            self._post_waiting(queue)

    def forge(
        self, submission: int, entry: bytes, *, phase_flips: bool = False, silent: bool = False
    ) -> None:
        """Post what no controller should."""
        queue = self._completions[self._submissions[submission].completion]
        *words, status = ENTRY.unpack(entry)
        phase = queue.phase ^ phase_flips
        self._put(queue, ENTRY.pack(*words, status & ~1 | phase), silent)

    def _fetch(self, ring: Submission) -> None:
        """Execute what is between head and tail, as long as there is room for completions."""
        number = ring.number
        self._see_shadow_tail(ring)
        while self._submissions.get(number) is ring and ring.head != ring.tail:
            if not self._completions[ring.completion].has_room or not self._is_running:
                return
            command = self._read(
                ring.address + COMMAND_SIZE * ring.head, COMMAND_SIZE, f"submission queue {number}"
            )
            if command is None:
                return
            ring.head = (ring.head + 1) % ring.entries
            self._owner.execute(number, command)
            self._see_shadow_tail(ring)

    def _free(self, queue: Completion, head: int) -> None:
        """The driver has taken entries up to `head`."""
        if (head - queue.head) % queue.entries > queue.used:
            why = (
                f"doorbell of completion queue {queue.number}: {head} is past the last entry "
                f"that was written ({queue.tail}; it was {queue.head})"
            )
            self._owner.refuse_doorbell(why, exists=True)
            return
        queue.head = head
        self._settle(queue)
        if self._shadow is not None:
            self._ask_for(queue.number, True, head)
        self._post_waiting(queue)
        for ring in list(self._submissions.values()):
            if ring.completion == queue.number:
                self._fetch(ring)

    def _settle(self, queue: Completion) -> None:
        """Lower the vector if nothing is left to take in any queue that shares it."""
        sharers = [each for each in self._completions.values() if each.vector == queue.vector]
        if queue.vector is not None and not any(each.used for each in sharers):
            self._owner.vectors.lower(queue.vector)

    def _post_waiting(self, queue: Completion) -> None:
        while queue.waiting and queue.used < queue.entries - 1:
            ring, id_, status, result = queue.waiting.popleft()
            status_and_phase = status << 1 | queue.phase
            self._put(queue, ENTRY.pack(result, ring.head, ring.number, id_, status_and_phase))

    def _put(self, queue: Completion, entry: bytes, silent: bool = False) -> None:
        """Write an entry, its last word last: whoever polls may look at any moment."""
        address = queue.address + COMPLETION_SIZE * queue.tail
        carrier = f"completion queue {queue.number}"
        if not (
            self._write(address, entry[:12], carrier)
            and self._write(address + 12, entry[12:], carrier)
        ):
            return
        queue.step()
        if queue.vector is not None and not silent:
            self._owner.vectors.raise_(queue.vector)

    def _see_shadow_tail(self, ring: Submission) -> None:
        """Take the tail from memory, and ask to be rung for the next one; then look once more."""
        if self._shadow is None or ring.number == ADMIN:
            return
        for _ in range(2):
            place = self._shadow.doorbells + Shadow.offset(ring.number, False)
            raw = self._read(place, 4, "shadow doorbells")
            if raw is None:
                return
            tail = int.from_bytes(raw, "little")
            if tail >= ring.entries:
                why = f"shadow doorbell of submission queue {ring.number}: {tail} is no entry"
                self._owner.refuse_doorbell(why, exists=True)
                return
            ring.tail = tail
            self._ask_for(ring.number, False, tail)

    def _ask_for(self, number: int, is_completion: bool, seen: int) -> None:
        """Set an event index: the driver rings by MMIO when it goes past it."""
        if self._shadow is not None and number != ADMIN:
            place = self._shadow.events + Shadow.offset(number, is_completion)
            self._write(place, seen.to_bytes(4, "little"), "event indexes")

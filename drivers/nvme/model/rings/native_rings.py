"""Rings in C: a thread that polls doorbells in memory and does what is plainly good by itself.

NVM Express Base Specification 1.4, section 4. `data_path.h` says what C does; everything else comes
back here and is done as `PythonRings` does it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from enum import IntFlag
from typing import Protocol

from uspace_drivers.nvme.model.rings.data_path import DataPath
from uspace_drivers.nvme.model.rings.rings import COMMAND_SIZE, ENTRY, InHostMemory, Owner, Work
from uspace_drivers.nvme.model.store.media import NO_FILE
from uspace_drivers.nvme.model.store.namespaces import ModelNamespace
from uspace_drv import DeviceTimeout, IrqKind
from uspace_drv.models.interrupts import ModelIrqs

DOORBELL_PAGE = 4096
STRIDE = 4
"""Bytes from one doorbell to the next: CAP.DSTRD is 0."""

LEAVE_TIMEOUT = 5.0
"""Seconds that the thread gets to end."""

NO_VECTOR = -1


class Event(IntFlag):
    """Why `DataPath.run` returned (data_path.h, enum event)."""

    INTERRUPTED = 1
    COMMAND = 2
    RAISED = 4
    LOWERED = 8
    DOORBELL = 16
    FETCH = 32
    SHADOW = 64
    ROOM = 128
    MEMORY = 256


Handlers = Sequence[tuple[int, Callable[[DataPath], None]]]
"""Event bits, and what is done about them."""

BLOCKED, HAND_OUT, LEVELS, WRITE_THROUGH = 1, 2, 4, 8
"""What `DataPath.run` leaves to others (data_path.h, enum mode)."""


class NativeOwner(Owner, Protocol):
    """What these rings need of the model beyond what all do."""

    interrupts: ModelIrqs

    @property
    def page_size(self) -> int:
        """Bytes of a page of the driver (CC.MPS)."""

    @property
    def most_data(self) -> int:
        """Bytes that a command may carry (MDTS)."""

    @property
    def is_write_through(self) -> bool:
        """Whether the write cache is switched off."""

    def quiesce(self) -> AbstractContextManager[None]:
        """Inside, nothing else of the model happens."""


class Waiting:
    """A completion that has no room yet."""

    __slots__ = ("id", "result", "status", "submission")

    def __init__(self, submission: int, id: int, status: int, result: int) -> None:  # noqa: A002
        self.submission = submission
        self.id = id
        self.status = status
        self.result = result


class NativeRings(InHostMemory):
    """Rings that a thread of their own serves while the controller is enabled.

    `doorbells` gives the page that the driver writes, which is memory.
    """

    _owner: NativeOwner

    def __init__(
        self, owner: NativeOwner, doorbells: Callable[[], memoryview], *, has_sgl: bool
    ) -> None:
        self._owner = owner
        self._doorbells = doorbells
        self._has_sgl = has_sgl
        self._path: DataPath | None = None
        self._thread: threading.Thread | None = None
        self._namespaces: Sequence[ModelNamespace] = ()
        self._hands_out = False
        self._waiting: dict[int, deque[Waiting]] = {}
        self._done = Work()

    def start(self) -> None:
        """Begin to poll."""
        path = self._opened()
        self._thread = threading.Thread(
            target=self._serve, args=(path,), name=f"{self._owner.name} data path", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Forget all queues. The thread is out of C when this returns, and ends soon."""
        turn = self._owner.memory.turn
        with turn:
            if self._path is not None:
                self._keep_work(self._path)
                self._path = None
                turn.introduce(None)
            self._waiting.clear()

    def close(self) -> None:
        """Stop, and wait for the thread."""
        self.stop()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(LEAVE_TIMEOUT)
            if thread.is_alive():
                raise DeviceTimeout(
                    f"{self._owner.name}: its data path did not end in {LEAVE_TIMEOUT:.3g} s"
                )

    def open_completion(self, number: int, address: int, entries: int, vector: int | None) -> None:
        """Make an empty one whose first entries will have the phase 1."""
        with self._owner.memory.turn:
            self._opened().open_completion(
                number, address, entries, NO_VECTOR if vector is None else vector
            )

    def open_submission(self, number: int, address: int, entries: int, completion: int) -> None:
        """Make an empty one."""
        with self._owner.memory.turn:
            self._opened().open_submission(number, address, entries, completion)

    def close_completion(self, number: int) -> None:
        """Forget it, and what it still wants to interrupt for."""
        with self._owner.memory.turn:
            self._waiting.pop(number, None)
            vector = self._opened().close_completion(number)
        if vector >= 0:
            self._owner.vectors.lower(vector)

    def close_submission(self, number: int) -> None:
        """Forget it; what is in memory and not yet fetched stays there."""
        with self._owner.memory.turn:
            self._opened().close_submission(number)

    def head(self, submission: int) -> int:
        """The index of the command that is fetched next."""
        with self._owner.memory.turn:
            return self._opened().head(submission)

    def use_shadow(self, doorbells: int, events: int) -> None:
        """Poll that page instead. The driver need not ring by MMIO: event indexes stay."""
        with self._owner.memory.turn:
            self._opened().use_shadow(doorbells)

    def show_namespaces(self, namespaces: Sequence[ModelNamespace]) -> None:
        """Let C do the plain ones."""
        with self._owner.memory.turn:
            before, self._namespaces = self._namespaces, tuple(namespaces)
            if self._path is not None:
                for gone in before:
                    self._path.set_namespace(gone.id, 0, 0, 0, NO_FILE)
                self._show(self._path)

    def show_faults(self, are_set: bool) -> None:
        """Hand each command out, or not."""
        with self._owner.memory.turn:
            self._hands_out = are_set

    def take_work(self) -> Work:
        """What C has done."""
        with self._owner.memory.turn:
            if self._path is not None:
                self._keep_work(self._path)
            done, self._done = self._done, Work()
            return done

    def ring(self, number: int, is_completion: bool, value: int) -> None:
        """Doorbells are seen in memory."""

    def complete(self, submission: int, id: int, status: int, result: int = 0) -> None:  # noqa: A002
        """Post it, or let it wait for room."""
        with self._owner.memory.turn:
            path = self._path
            if path is None or not path.has_submission(submission):
                return
            number = path.completion_of(submission)
            waiting = self._waiting.setdefault(number, deque())
            waiting.append(Waiting(submission, id, status, result))
            vectors = self._post_waiting(path, number)
        self._raise(vectors)

    def forge(
        self, submission: int, entry: bytes, *, phase_flips: bool = False, silent: bool = False
    ) -> None:
        """Post what no controller should."""
        with self._owner.memory.turn:
            path = self._opened()
            number = path.completion_of(submission)
            place = path.next_entry(number)
            if place is None:
                return
            address, phase = place
            *words, status = ENTRY.unpack(entry)
            whole = ENTRY.pack(*words, status & ~1 | phase ^ phase_flips)
            vector = self._put(path, number, address, whole)
        if not silent:
            self._raise([vector])

    def _opened(self) -> DataPath:
        """The data path; it is made with the first queue, and its doorbells are 0."""
        if self._path is None:
            owner = self._owner
            page = self._doorbells()
            page[:] = bytes(len(page))
            self._path = DataPath(
                page,
                STRIDE,
                owner.page_size,
                owner.most_data,
                self._has_sgl,
                owner.memory.faults,
            )
            self._show(self._path)
            owner.memory.turn.introduce(self._path)
        return self._path

    def _show(self, path: DataPath) -> None:
        for each in self._namespaces:
            if each.is_plain:
                medium = each.medium
                path.set_namespace(each.id, each.shift, each.blocks, medium.address, medium.file)

    def _keep_work(self, path: DataPath) -> None:
        pairs = zip(self._done, path.take_work(), strict=True)
        self._done = Work(*(before + more for before, more in pairs))

    def _serve(self, path: DataPath) -> None:
        """What the thread does, until the path is no longer the one that is used."""
        handlers = self._handlers()
        while True:
            try:
                event = self._owner.memory.turn.lend(path, lambda: self._run(path))
                if event is None:
                    return
                if event != Event.INTERRUPTED:
                    self._react(event, handlers, path)
            except Exception as error:  # noqa: BLE001 - nobody has called: the driver sees CSTS.CFS
                with self._owner.quiesce():
                    if self._path is path:
                        self._owner.fail(f"the model failed: {type(error).__name__}: {error}")

    def _react(self, event: int, handlers: Handlers, path: DataPath) -> None:
        with self._owner.quiesce():
            for bit, handle in handlers:
                if event & bit and self._path is path:
                    handle(path)

    def _handlers(self) -> Handlers:
        """Interrupts come first, as they do where a doorbell is followed at once."""
        return (
            (int(Event.MEMORY), self._refresh),
            (int(Event.LOWERED), self._lower),
            (int(Event.RAISED), lambda path: self._raise(path.raised)),
            (int(Event.ROOM), self._use_room),
            (int(Event.COMMAND), self._execute),
            (int(Event.FETCH), self._fetch),
            (int(Event.DOORBELL), self._refuse_doorbell),
            (int(Event.SHADOW), self._miss_shadow),
        )

    def _run(self, path: DataPath) -> int:
        return path.run(self._owner.memory.table, self._mode())

    def _mode(self) -> int:
        """In plain numbers: flags are slow, and this is on the way of each interrupt."""
        memory, owner = self._owner.memory, self._owner
        hands_out = self._hands_out or memory.on_write is not None
        return (
            (0 if memory.is_bus_master else BLOCKED)
            | (HAND_OUT if hands_out else 0)
            | (LEVELS if owner.interrupts.kind is IrqKind.INTX else 0)
            | (WRITE_THROUGH if owner.is_write_through else 0)
        )

    def _refresh(self, path: DataPath) -> None:
        """Memory was cut off, somebody's: C is not to look at ours any more."""
        self._owner.memory.refresh()

    def _lower(self, path: DataPath) -> None:
        for each in path.lowered:
            self._owner.vectors.lower(each)

    def _execute(self, path: DataPath) -> None:
        self._owner.execute(*path.command)

    def _fetch(self, path: DataPath) -> None:
        """C cannot reach an entry: Python can, or knows what is wrong."""
        number, _, address = path.trouble
        command = self._read(address, COMMAND_SIZE, f"submission queue {number}")
        if command is not None:
            path.take(number)
            self._owner.execute(number, command)

    def _refuse_doorbell(self, path: DataPath) -> None:
        number, is_completion, value = path.trouble
        where = f"doorbell of {'completion' if is_completion else 'submission'} queue {number}"
        exists = path.has_completion(number) if is_completion else path.has_submission(number)
        why = f"{where}: {value} is no entry" if exists else f"{where}: there is no such queue"
        self._owner.refuse_doorbell(why, exists=exists)

    def _miss_shadow(self, path: DataPath) -> None:
        address = path.trouble[2]
        if self._read(address, DOORBELL_PAGE, "shadow doorbells") is not None:
            self._owner.fail(f"shadow doorbells at IOVA {address:#x}: memory that is not shared")

    def _use_room(self, path: DataPath) -> None:
        vectors: list[int] = []
        for number in list(self._waiting):
            if number in self._waiting:  # a failure forgets them all
                vectors += self._post_waiting(path, number)
        self._raise(vectors)

    def _post_waiting(self, path: DataPath, number: int) -> list[int]:
        """Post what there is room for: vectors that are to be raised."""
        waiting = self._waiting[number]
        vectors = []
        while waiting and (place := path.next_entry(number)):
            one = waiting.popleft()
            if path.has_submission(one.submission):
                address, phase = place
                words = path.head(one.submission), one.submission, one.id, one.status << 1 | phase
                vectors.append(self._put(path, number, address, ENTRY.pack(one.result, *words)))
                if self._path is not path:  # that failed: nothing more is posted
                    return vectors
        path.let_wait(number, bool(waiting))
        return vectors

    def _put(self, path: DataPath, number: int, address: int, entry: bytes) -> int:
        """Write an entry, its last word last: whoever polls may look at any moment."""
        carrier = f"completion queue {number}"
        if not (
            self._write(address, entry[:12], carrier)
            and self._write(address + 12, entry[12:], carrier)
        ):
            return NO_VECTOR
        return path.step(number)

    def _raise(self, vectors: Sequence[int]) -> None:
        for each in vectors:
            if each != NO_VECTOR:
                self._owner.vectors.raise_(each)

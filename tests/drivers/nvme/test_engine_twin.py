"""The engine beside its twin: the same random requests, completions and lies for both."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from uspace_drivers.nvme.engine.requests import Result
from uspace_drivers.nvme.spec.commands import Completion, Opcode
from uspace_drv import BusyError, DeviceError, RegisterValueError

from .engine_twin import DATA_IOVA, PAGE, Fetched, Rig, Space, Wish

SPACES = {1: Space(12, 1000, 32), 2: Space(9, 300, 4096), 7: Space(12, 5, 512)}
SIZES = st.integers(1, 40) | st.sampled_from([0, 256, 257, 512, 513, 4096, 4097, 65536, 65537])
PLACES = st.integers(0, 2047).map(lambda n: DATA_IOVA + n * PAGE) | st.integers(
    DATA_IOVA // 4, DATA_IOVA // 4 + 2048 * PAGE // 4
).map(lambda n: n * 4)


def wishes(tag: int) -> st.SearchStrategy[Wish]:
    """Requests, most of them good."""
    good = st.builds(
        Wish,
        opcode=st.sampled_from([Opcode.READ, Opcode.WRITE, Opcode.FLUSH]),
        lba=st.integers(0, 260),
        data=st.integers(0, 500).map(lambda n: DATA_IOVA + 4 * n),
        tag=st.just(tag),
        namespace=st.sampled_from([1, 2]),
        blocks=st.integers(1, 32),
    )
    wild = st.builds(
        Wish,
        opcode=st.sampled_from([*Opcode, 2, 2, 1, 1, 0x33]),
        flags=st.sampled_from([0, 0, 0, 1, 2, 3, 4, 8]),
        namespace=st.sampled_from([1, 1, 2, 2, 7, 3]),
        lba=st.integers(0, 1000) | st.integers(0, 2**64 - 1),
        data=PLACES | st.integers(0, 2**64 - 1),
        tag=st.just(tag),
        blocks=SIZES,
        attributes=st.sampled_from([0, 0, 0, 4]),
    )
    return st.one_of(good, good, good, wild)


class EngineBesideTwin(RuleBasedStateMachine):
    """The twin keeps lists of what was submitted, completed and is due, and nothing else."""

    @initialize(
        entries=st.integers(2, 9) | st.integers(5, 9), depth=st.integers(1, 9) | st.just(9),
        completions=st.integers(2, 9) | st.integers(5, 9),
        sgl=st.booleans(),
    )  # fmt: skip
    def make(self, entries: int, depth: int, completions: int, sgl: bool) -> None:
        self.rig = Rig(entries, depth, completions, sgl=sgl)
        for number, space in SPACES.items():
            self.rig.set_namespace(number, space)
        self.depth = min(entries - 1, depth, completions - 1)
        self.coming: deque[Wish] = deque()  # submitted, not fetched
        self.flying: list[tuple[Fetched, Wish]] = []
        self.due: deque[tuple[int, int, int] | int | None] = deque()  # in the ring; see collect
        self.waiting: deque[tuple[int, int, int]] = deque()
        self.transfer: Wish | None = None
        self.answer: int | None = None
        self.tag = 0

    @property
    def in_flight(self) -> int:
        lies = sum(each is None for each in self.due)
        return len(self.coming) + len(self.flying) + len(self.due) - lies

    def collect(self, room: int) -> list[tuple[int, int, int]]:
        """Results from the ring, up to a lie (None); an int is the status of the transfer."""
        found: list[tuple[int, int, int]] = []
        while self.due and self.due[0] is not None and len(found) < room:
            each = self.due.popleft()
            if isinstance(each, tuple):
                found.append(each)
            else:
                self.transfer, self.answer = None, each
        return found

    @rule(data=st.data(), count=st.integers(0, 5) | st.just(4))
    def submit(self, data: st.DataObject, count: int) -> None:
        batch = [data.draw(wishes(self.tag + i)) for i in range(count)]
        self.tag += count
        room = self.depth - self.in_flight - len(self.waiting)
        faults = [wish.fault(SPACES, self.rig.ranges) for wish in batch[:room]]
        good = next((i for i, fault in enumerate(faults) if fault), len(faults))
        self.coming += batch[:good]
        if good == len(faults):
            assert self.rig.submit(*batch) == good
            return
        with pytest.raises(RegisterValueError, match=f"request {good}: .*{faults[good]}"):
            self.rig.submit(*batch)

    @rule()
    def fetch(self) -> None:
        """Each command says what its request said: ids differ, lists are shared by none."""
        while self.coming:
            wish = self.coming.popleft()
            head = self.rig.device.head
            tail, self.rig.doorbells.view("<u4")[2] = (
                self.rig.device.tail_doorbell,
                (head + 1) * 64 % len(self.rig.device.submission) // 64,
            )
            [command] = self.rig.device.fetch(wish.size(SPACES))
            self.rig.doorbells.view("<u4")[2] = tail
            self.rig.expect(command, wish)
            assert command.id not in [each.id for each, _ in self.flying]
            self.flying.append((command, wish))
        assert self.rig.device.head == self.rig.device.tail_doorbell

    @property
    def room(self) -> int:
        """Entries of the completion queue that the device may write."""
        entries = len(self.rig.device.completion) // Completion.SIZE
        return (self.rig.device.head_doorbell - self.rig.device.tail - 1) % entries

    @precondition(lambda self: self.flying or self.coming)
    @rule(data=st.data(), count=st.integers(1, 4), status=st.integers(0, 0x7FFF))
    def complete(self, data: st.DataObject, count: int, status: int) -> None:
        self.fetch()
        for _ in range(min(count, self.room, len(self.flying))):
            command, wish = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
            result = data.draw(st.integers(0, 2**64 - 1))
            self.rig.device.complete(command.id, status, result)
            self.due.append(status if wish is self.transfer else (wish.tag, status, result))

    @precondition(lambda self: self.room)
    @rule(data=st.data(), kind=st.sampled_from([*["none"] * 6, "id", "queue", "head"]))
    def lie(self, data: st.DataObject, kind: str) -> None:
        device = self.rig.device
        if kind == "none":
            return
        flying = [command.id for command, _ in self.flying]
        lists = dict(device.lists_in_use)
        if kind == "id" or not flying:
            # One that is on its way through the completion queue would be good once.
            known = {*flying, *range(0x10000)} if self.coming or self.due else set(flying)
            if len(known) > 0x8000:
                return
            device.complete(data.draw(st.integers(0, 0xFFFF).filter(lambda n: n not in known)))
        elif kind == "queue":
            number = data.draw(st.integers(0, 0xFFFF).filter(lambda n: n != 1))
            device.complete(flying[0], queue=number)
        else:
            device.complete(flying[0], head=data.draw(st.integers(10, 0xFFFF)))
        device.lists_in_use = lists
        self.due.append(None)

    @precondition(lambda self: self.due or self.waiting)
    @rule(room=st.integers(0, 9))
    def poll(self, room: int) -> None:
        expected = [self.waiting.popleft() for _ in range(min(room, len(self.waiting)))]
        expected += self.collect(room - len(expected))
        if not expected and room and self.due:
            self.due.popleft()
            with pytest.raises(DeviceError, match="reset the controller"):
                self.rig.poll(room)
            return
        assert self.rig.poll(room) == expected

    @rule(lba=st.integers(0, 999))
    def begin_transfer(self, lba: int) -> None:
        wish = Wish(Opcode.WRITE, lba=lba, data=DATA_IOVA + 3 * PAGE)
        arguments = (wish.opcode, 0, 1, lba, 1, self.rig.data[3 * PAGE : 4 * PAGE], 0.0)
        if self.transfer:
            with pytest.raises(BusyError, match="finish"):
                self.rig.queue.transfer(*arguments)
        elif self.in_flight + len(self.waiting) == self.depth:
            assert self.rig.queue.transfer(*arguments) == -3
        elif self.due:
            return  # its first look would collect them: finish() does the same
        else:
            assert self.rig.queue.transfer(*arguments) == -1
            self.coming.append(wish)
            self.transfer, self.answer = wish, None

    @precondition(lambda self: self.transfer or self.answer is not None)
    @rule()
    def finish(self) -> None:
        """All that is in the ring is collected, unless it has its answer already."""
        if self.answer is None:
            self.waiting += self.collect(99)
        if self.answer is not None:
            assert self.rig.queue.finish(0.0) == self.answer
            self.answer = None
        elif self.due:
            self.due.popleft()
            with pytest.raises(DeviceError, match="reset the controller"):
                self.rig.queue.finish(0.0)
        else:
            assert self.rig.queue.finish(0.0) == -1

    @rule(status=st.integers(0, 0x7FFF), really=st.integers(0, 7))
    def start_over(self, status: int, really: int) -> None:
        """What lies in the completion queue counts as in flight: nobody has looked at it."""
        if really != 7:
            return
        flying = [*self.coming, *(wish for _, wish in self.flying)]
        wanted = [wish.tag for wish in flying if wish is not self.transfer]
        wanted += [each[0] for each in (*self.waiting, *self.due) if isinstance(each, tuple)]
        results = Result.array(16)
        count = self.rig.queue.abandon(results, status)
        assert sorted(results["tag"][:count]) == sorted(wanted)
        assert (results["status"][len(self.waiting) : count] == status).all()
        if self.transfer:
            self.transfer, self.answer = None, status
        self.rig.queue.reset()
        device = self.rig.device
        device.head, device.tail, device.phase = 0, 0, 1
        device.doorbells[:] = 0
        device.lists_in_use.clear()
        self.coming.clear()
        self.flying.clear()
        self.due.clear()
        self.waiting.clear()

    @invariant()
    def numbers_agree(self) -> None:
        if not hasattr(self, "rig"):
            return
        queue = self.rig.queue
        assert queue.depth == self.depth
        assert queue.in_flight == self.in_flight
        assert queue.waiting == len(self.waiting)
        assert queue.free == self.depth - self.in_flight - len(self.waiting)
        assert queue.tail == self.rig.device.tail_doorbell
        assert queue.head == self.rig.device.head_doorbell


TestEngineBesideTwin = EngineBesideTwin.TestCase
TestEngineBesideTwin.settings = settings(max_examples=100, stateful_step_count=50)

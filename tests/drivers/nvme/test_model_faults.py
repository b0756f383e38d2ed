"""The NVMe model: commands that take time, are aborted, or go wrong on demand."""

from __future__ import annotations

import pytest

from tests.drivers.nvme.model_bench import CC, CSTS, DATA, FATAL, Answer, Bench, ready
from uspace_drivers.nvme.model import Action, Fault
from uspace_drivers.nvme.spec.commands import AdminOpcode, Opcode
from uspace_drivers.nvme.spec.status import Status

pytestmark = pytest.mark.usefixtures("nothing_left")


def flush(bench: Bench, count: int = 1) -> list[int]:
    """Start `count` flushes; their ids."""
    ids = [bench.put(1, Opcode.FLUSH, namespace=1) for _ in range(count)]
    bench.ring(1)
    return ids


def words(answers: list[Answer]) -> list[tuple[int, int]]:
    return [(each.id, each.code) for each in answers]


def test_latency_is_that_of_each_command() -> None:
    bench = ready(latency=0.5)
    ids = flush(bench, 3)
    assert bench.take(1) == []
    bench.pass_time(0.49)
    assert bench.take(1) == []
    bench.pass_time(0.02)
    assert words(bench.take(1)) == [(each, 0) for each in ids]
    assert bench.admin(AdminOpcode.KEEP_ALIVE).status == 0


def test_what_takes_time_can_be_aborted() -> None:
    bench = ready(latency=0.5)
    first, second = flush(bench, 2)
    assert bench.admin(AdminOpcode.ABORT, cdw10=first << 16 | 1).result == 0
    assert words(bench.take(1)) == [(first, Status.ABORT_REQUESTED)]
    bench.pass_time(1.0)
    assert words(bench.take(1)) == [(second, 0)]
    assert bench.admin(AdminOpcode.ABORT, cdw10=second << 16 | 1).result == 1


def test_what_was_aborted_is_not_done_afterwards() -> None:
    bench = ready(latency=0.5)
    number = bench.put(1, Opcode.WRITE, **bench.fields())
    bench.store(DATA, b"x" * 512)
    bench.ring(1)
    assert bench.admin(AdminOpcode.ABORT, cdw10=number << 16 | 1).result == 0
    bench.pass_time(1.0)
    assert bench.model.namespaces.attached[0].medium.read(0, 512) == bytes(512)


def test_deleting_a_queue_completes_what_is_in_flight() -> None:
    bench = ready(latency=0.5)
    ids = flush(bench, 2)
    assert bench.admin(AdminOpcode.DELETE_SUBMISSION_QUEUE, cdw10=1).status == 0
    expected = [(each, Status.ABORTED_BY_QUEUE_DELETION) for each in ids]
    assert words(bench.take(1, rings=False)) == expected
    bench.pass_time(1.0)
    assert bench.take(1, rings=False) == []


def test_a_reset_forgets_what_is_in_flight() -> None:
    bench = ready(latency=0.5)
    flush(bench, 2)
    bench.set(CC, 0)
    bench.enable()
    bench.create_pair()
    bench.pass_time(1.0)
    assert bench.take(1) == []


def test_an_id_that_is_in_flight_is_refused() -> None:
    bench = ready(latency=0.5)
    bench.put(1, Opcode.FLUSH, namespace=1, id=7)
    bench.put(1, Opcode.FLUSH, namespace=1, id=7)
    bench.ring(1)
    assert words(bench.take(1)) == [(7, Status.COMMAND_ID_CONFLICT)]
    bench.pass_time(1.0)
    assert words(bench.take(1)) == [(7, 0)]


def test_which_commands_a_fault_hits() -> None:
    bench = ready()
    fault = bench.model.faults.add(
        Fault(Action.STATUS, opcode=Opcode.FLUSH, queue=1, after=1, count=2, status=0x4281)
    )
    assert bench.io(Opcode.READ).status == 0
    assert [bench.io(Opcode.FLUSH).status for _ in range(4)] == [0, 0x4281, 0x4281, 0]
    assert fault.hits == 2
    bench.model.faults.add(Fault(Action.STATUS, count=0, status=6))
    assert {bench.io(Opcode.READ).status for _ in range(4)} == {6}
    bench.model.faults.clear()
    assert bench.io(Opcode.READ).status == 0


def test_delay() -> None:
    bench = ready()
    bench.model.faults.add(Fault(Action.DELAY, opcode=Opcode.FLUSH, seconds=2.0))
    late, soon = flush(bench, 2)
    assert words(bench.take(1)) == [(soon, 0)]
    bench.pass_time(2.0)
    assert words(bench.take(1)) == [(late, 0)]


def test_dropped_until_aborted() -> None:
    bench = ready()
    bench.model.faults.add(Fault(Action.DROP, queue=1))
    gone, there = flush(bench, 2)
    assert words(bench.take(1)) == [(there, 0)]
    assert bench.admin(AdminOpcode.ABORT, cdw10=gone << 16 | 1).result == 0
    assert words(bench.take(1)) == [(gone, Status.ABORT_REQUESTED)]


def test_held_until_after_the_next() -> None:
    bench = ready()
    bench.model.faults.add(Fault(Action.HOLD, queue=1))
    first, second = flush(bench, 2)
    assert words(bench.take(1)) == [(second, 0), (first, 0)]


def test_completions_that_lie() -> None:
    bench = ready()
    for action, value in (
        (Action.TWICE, 0),
        (Action.UNSENT, 0xFFFE),
        (Action.WRONG_ID, 99),
        (Action.WRONG_QUEUE, 7),
        (Action.WRONG_HEAD, 0x1234),
    ):
        bench.model.faults.add(Fault(action, queue=1, value=value))
    ids = flush(bench, 5)
    found = [(each.id, each.queue, each.head) for each in bench.take(1)]
    assert found == [
        (ids[0], 1, 1),
        (ids[0], 1, 1),
        (0xFFFE, 1, 2),
        (ids[1], 1, 2),
        (99, 1, 3),
        (ids[3], 7, 4),
        (ids[4], 1, 0x1234),
    ]


def test_a_wrong_phase_is_not_seen() -> None:
    bench = ready()
    bench.model.faults.add(Fault(Action.WRONG_PHASE, queue=1))
    flush(bench, 2)
    assert bench.take(1) == []


def test_a_lost_interrupt() -> None:
    bench = ready()
    line = bench.model.interrupts.line(bench.model.interrupts.kind, 0)
    line.take()
    bench.create_pair(2, vector=0)
    bench.take(0)
    line.unmask()
    line.take()
    bench.model.faults.add(Fault(Action.LOST_INTERRUPT, queue=2))
    for expected in (0, 1):
        number = bench.put(2, Opcode.FLUSH, namespace=1)
        bench.ring(2)
        assert line.take() == expected
        assert words(bench.take(2)) == [(number, 0)]
    line.close()


def test_fatal_and_gone() -> None:
    bench = ready()
    bench.model.faults.add(Fault(Action.FATAL, queue=1))
    flush(bench)
    assert bench.take(1) == []
    assert bench.get(CSTS) & FATAL
    bench.set(CC, 0)
    bench.enable()
    bench.create_pair()
    bench.model.faults.add(Fault(Action.VANISH, queue=1))
    flush(bench)
    assert bench.get(CSTS) == 0xFFFF_FFFF

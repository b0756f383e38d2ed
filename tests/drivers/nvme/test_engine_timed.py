"""Queues that are timed: what a result says that its command took, whichever way it went."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.drivers.nvme.engine_twin import Rig, Wish, batch
from uspace_drivers.nvme.engine.requests import Result
from uspace_drivers.nvme.spec.commands import Opcode

LONGEST = 0xFFFF_FFFF


def by_request(rig: Rig, tag: int) -> None:
    assert rig.submit(Wish(tag=tag)) == 1


def by_bytes(rig: Rig, tag: int) -> None:
    assert rig.queue.submit_command(bytes(64), 0, 0, tag) >= 0


def complete_all(rig: Rig) -> None:
    for command in rig.device.fetch():
        rig.device.complete(command.id)


@pytest.fixture
def rig() -> Rig:
    found = Rig()
    found.queue.timed = True
    return found


@pytest.mark.parametrize("submit", [by_request, by_bytes])
def test_it_is_no_longer_than_its_caller_saw(rig: Rig, submit: Callable[[Rig, int], None]) -> None:
    """Three times around the ring, so that slots are used again."""
    results = Result.array(1)
    for number in range(3 * rig.queue.depth):
        before = time.monotonic_ns()
        submit(rig, number)
        submitted = time.monotonic_ns()
        complete_all(rig)
        completed = time.monotonic_ns()
        assert rig.queue.poll(results) == 1
        after = time.monotonic_ns()
        assert completed - submitted <= int(results["nanoseconds"][0]) <= after - before


def test_a_command_that_stayed_is_not_timed_from_the_next_submission(rig: Rig) -> None:
    results = Result.array(2)
    rig.submit(Wish(tag=1))
    between = time.monotonic_ns()
    rig.submit(Wish(tag=2))
    complete_all(rig)
    before = time.monotonic_ns()
    assert rig.queue.poll(results) == 2
    first, second = (int(each) for each in results["nanoseconds"])
    assert first >= before - between
    assert first > second


def test_what_waits_for_a_transfer_keeps_its_time(rig: Rig) -> None:
    """It was collected by finish(), not by the poll() that comes later."""
    results = Result.array(1)
    start = time.monotonic_ns()
    rig.submit(Wish(tag=5))
    assert rig.queue.transfer(Opcode.FLUSH, 0, 1, 0, 0, None, 0.0) == -1
    complete_all(rig)
    assert rig.queue.finish(1.0) == 0
    collected = time.monotonic_ns()
    assert rig.queue.poll(results) == 1
    assert int(results["tag"][0]) == 5
    assert 0 < int(results["nanoseconds"][0]) <= collected - start


def test_what_was_taken_back_has_no_time(rig: Rig) -> None:
    results = Result.array(2)
    results["nanoseconds"] = 1
    rig.submit(Wish(tag=1), Wish(tag=2))
    assert rig.queue.abandon(results, 7) == 2
    assert results["nanoseconds"].tolist() == [0, 0]


def test_more_than_fits_is_the_most_there_is() -> None:
    """What was submitted before the queue was timed seems to be as old as the machine's clock."""
    rig, results = Rig(), Result.array(1)
    rig.submit(Wish(tag=1))
    rig.queue.timed = True
    complete_all(rig)
    assert rig.queue.poll(results) == 1
    assert int(results["nanoseconds"][0]) == min(LONGEST, time.monotonic_ns())


def test_off_again_results_say_nothing(rig: Rig) -> None:
    results = Result.array(1)
    results["nanoseconds"] = 1
    rig.submit(Wish())
    rig.queue.timed = False
    complete_all(rig)
    assert rig.queue.poll(results) == 1
    assert results["nanoseconds"][0] == 0


def test_a_whole_batch_that_nobody_answers_in_time(rig: Rig) -> None:
    """run() leaves them in flight; each is timed from when it was submitted."""
    results = Result.array(2)
    start = time.monotonic_ns()
    assert rig.queue.run(batch(Wish(tag=1), Wish(tag=2)), results, depth=2, timeout=0.001) == 0
    complete_all(rig)
    assert rig.queue.poll(results) == 2
    assert all(1_000_000 <= each <= time.monotonic_ns() - start for each in results["nanoseconds"])


def test_timed_is_yes_or_no(rig: Rig) -> None:
    with pytest.raises(TypeError):
        rig.queue.timed = 1  # type: ignore[assignment]

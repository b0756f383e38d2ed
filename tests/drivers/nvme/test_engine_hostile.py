"""Completions that no controller should write: an error in words, nothing lost, nothing touched."""

from __future__ import annotations

import time

import numpy as np
import pytest

from uspace_drivers.nvme.engine.requests import Result
from uspace_drivers.nvme.spec.commands import Completion, Opcode
from uspace_drv import DeviceError

from .engine_twin import PAGE, Rig, Wish, batch

HERE = "0000:00:04.0 queue 1: completion"


def flying(count: int = 3) -> tuple[Rig, list[int]]:
    """A rig with that many commands, tags from 0, which the device has fetched: and their ids."""
    rig = Rig()
    rig.submit(*[Wish(tag=tag) for tag in range(count)])
    return rig, [command.id for command in rig.device.fetch(PAGE)]


def test_a_command_that_was_never_sent() -> None:
    rig, ids = flying()
    rig.device.complete(5)
    with pytest.raises(DeviceError, match=rf"{HERE} for command 5, which is not in flight \(3 are"):
        rig.poll()
    rig.device.complete(ids[0])
    assert rig.poll() == [(0, 0, 0)]


@pytest.mark.parametrize("wrong", [7, 8, 0x7FFF, 0x8000, 0xFFFF])
def test_an_id_that_no_slot_has(wrong: int) -> None:
    rig, _ = flying()
    rig.device.complete(wrong)
    with pytest.raises(DeviceError, match=f"command {wrong}, which is not in flight"):
        rig.poll()
    assert rig.queue.in_flight == 3


def test_a_completion_that_comes_twice() -> None:
    rig, ids = flying()
    rig.device.complete(ids[1])
    rig.device.complete(ids[1])
    assert rig.poll() == [(1, 0, 0)]
    with pytest.raises(DeviceError, match=f"command {ids[1]}, which is not in flight"):
        rig.poll()


def test_one_that_comes_twice_is_not_taken_for_the_slots_next_command() -> None:
    rig, ids = flying()
    rig.device.complete(ids[1])
    assert rig.poll() == [(1, 0, 0)]
    rig.submit(Wish(tag=9))
    [command] = rig.device.fetch(PAGE)
    assert command.id % 8 == ids[1] % 8, "the slot should be used again"
    rig.device.complete(ids[1])
    with pytest.raises(DeviceError, match=f"command {ids[1]}, which is not in flight"):
        rig.poll()
    rig.device.complete(command.id)
    assert rig.poll() == [(9, 0, 0)]


def test_another_queues_completion() -> None:
    rig, ids = flying()
    rig.device.complete(ids[0], queue=2)
    with pytest.raises(DeviceError, match=f"{HERE} for a command of queue 2, expected queue 1"):
        rig.poll()
    assert rig.queue.in_flight == 3


@pytest.mark.parametrize("head", [4, 7, 8, 0x100, 0xFFFF])
def test_a_head_that_cannot_be(head: int) -> None:
    rig, ids = flying()
    rig.device.complete(ids[0], head=head)
    message = f"{HERE} with submission queue head {head}, expected 0 to 3 of 8 entries"
    with pytest.raises(DeviceError, match=message):
        rig.poll()


def test_a_head_that_goes_back() -> None:
    rig, ids = flying()
    rig.device.complete(ids[0], head=2)
    rig.device.complete(ids[1], head=1)
    assert rig.poll() == [(0, 0, 0)]
    with pytest.raises(DeviceError, match="head 1, expected 2 to 3"):
        rig.poll()


def test_heads_go_round() -> None:
    rig = Rig(entries=4)
    for tag in range(50):
        rig.submit(Wish(tag=tag), Wish(tag=tag + 100))
        for command in rig.device.fetch(PAGE):
            rig.device.complete(command.id)
        assert rig.poll() == [(tag, 0, 0), (tag + 100, 0, 0)]
    rig.submit(Wish())
    [command] = rig.device.fetch(PAGE)
    rig.device.complete(command.id, head=(rig.device.head + 1) % 4)
    with pytest.raises(DeviceError, match=f"expected {rig.device.head - 1} to {rig.device.head} "):
        rig.poll()


def test_a_head_past_the_end_is_no_head_that_went_round() -> None:
    rig, ids = flying(6)
    for each in ids:
        rig.device.complete(each)
    assert len(rig.poll()) == 6
    rig.submit(Wish(), Wish(), Wish(), Wish())
    first = rig.device.fetch(PAGE)[0]
    rig.device.complete(first.id, head=8)
    with pytest.raises(DeviceError, match="head 8, expected 6 to 2 of 8 entries"):
        rig.poll()


def test_the_old_phase_is_no_completion() -> None:
    rig, ids = flying()
    rig.device.complete(ids[0], phase=0)
    assert rig.poll() == []
    assert rig.queue.in_flight == 3


def test_all_ones() -> None:
    rig, _ = flying()
    rig.device.completion[:] = 0xFF
    with pytest.raises(DeviceError, match=r"command 65535, .*; all ones: has the device gone\?"):
        rig.poll()


def test_all_ones_after_the_phase_turned_are_old() -> None:
    rig, ids = flying(6)
    for each in ids:
        rig.device.complete(each)
    assert len(rig.poll()) == 6
    rig.submit(Wish(), Wish())
    for command in rig.device.fetch(PAGE):
        rig.device.complete(command.id)
    assert len(rig.poll()) == 2
    rig.submit(Wish())
    rig.device.completion[:] = 0xFF
    assert rig.poll() == []


def test_good_results_before_it_are_not_lost() -> None:
    rig, ids = flying(4)
    rig.device.complete(ids[2])
    rig.device.complete(ids[0])
    rig.device.complete(ids[0])
    rig.device.complete(ids[3])
    assert rig.poll() == [(2, 0, 0), (0, 0, 0)]
    with pytest.raises(DeviceError, match=r"\(entry 2\); reset the controller"):
        rig.poll()
    assert rig.poll() == [(3, 0, 0)]
    assert rig.queue.in_flight == 1


def test_it_is_noticed_while_more_are_waited_for() -> None:
    rig, _ = flying(4)
    rig.device.complete(99)
    start = time.monotonic()
    with pytest.raises(DeviceError, match="command 99"):
        rig.queue.poll(Result.array(8), least=4, timeout=40.0)
    assert time.monotonic() - start < 20


def test_out_of_order_is_allowed() -> None:
    rig, ids = flying(6)
    for each in reversed(ids):
        rig.device.complete(each)
    assert [tag for tag, _, _ in rig.poll()] == [5, 4, 3, 2, 1, 0]


def test_a_transfer_reports_it() -> None:
    rig, ids = flying(1)
    assert rig.queue.transfer(Opcode.FLUSH, 0, 1, 0, 0, None, 0.0) == -1
    [flush] = rig.device.fetch()
    rig.device.complete(ids[0])
    rig.device.complete(flush.id, queue=7)
    with pytest.raises(DeviceError, match="of queue 7"):
        rig.queue.finish(10.0)
    assert rig.poll() == [(0, 0, 0)]
    assert rig.queue.finish(0.0) == -1, "it is still in flight: nobody has said that it is done"
    rig.device.complete(flush.id, 5)
    assert rig.queue.finish(0.0) == 5


def test_a_run_ends_with_it() -> None:
    rig = Rig()
    results = Result.array(5)
    rig.device.complete(99)
    with pytest.raises(DeviceError, match="command 99"):
        rig.queue.run(batch(*[Wish()] * 5), results, depth=2, timeout=30.0)
    assert rig.queue.in_flight == 2


def test_reset_forgets_it() -> None:
    rig, ids = flying(1)
    rig.device.complete(ids[0])
    rig.device.complete(ids[0])
    assert rig.poll() == [(0, 0, 0)]
    rig.queue.reset()
    assert rig.poll() == []


@pytest.mark.parametrize("seed", range(200))
def test_noise_is_survived(seed: int) -> None:
    """Random bytes where completions should be: errors, or nothing, but no tag twice."""
    numbers = np.random.default_rng(seed)
    rig, _ = flying(5)
    rig.device.completion[:] = numbers.integers(0, 256, len(rig.device.completion), "u1")
    tags: list[int] = []
    for _ in range(2 * len(rig.device.completion) // Completion.SIZE):
        try:
            tags += [tag for tag, _, _ in rig.poll()]
        except DeviceError:
            continue
    assert len(set(tags)) == len(tags)
    assert rig.queue.in_flight == 5 - len(tags)

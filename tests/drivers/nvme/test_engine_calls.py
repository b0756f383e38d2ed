"""The engine's ways to wait: blocking transfers, whole batches, polls, signals and threads."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from uspace_drivers.nvme.engine.requests import Result
from uspace_drivers.nvme.spec.commands import Opcode
from uspace_drv import BusyError, RegisterValueError

from .engine_twin import DATA_IOVA, PAGE, Rig, Wish, batch

READ = Wish(lba=5, tag=77)


@contextmanager
def serving(rig: Rig) -> Iterator[None]:
    """A device that completes whatever comes, with the LBA as its result, in a thread."""
    stop = threading.Event()

    def serve() -> None:
        while not stop.wait(0.0001):
            for command in rig.device.fetch():
                rig.device.complete(command.id, 0, command.dwords[0])

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_transfer_waits_for_its_own_completion() -> None:
    rig = Rig()
    rig.submit(replace(READ, tag=1), replace(READ, tag=2))
    with serving(rig):
        status = rig.queue.transfer(Opcode.READ, 0, 1, 9, 2, rig.data[: 2 * PAGE], 10.0)
    assert status == 0
    assert rig.queue.waiting == 2
    assert rig.queue.free == rig.queue.depth - 2
    assert rig.poll(1) + rig.poll() == [(1, 0, 5), (2, 0, 5)]


def test_transfer_can_be_finished_later() -> None:
    rig = Rig()
    assert rig.queue.transfer(Opcode.WRITE, 0, 1, 9, 1, rig.data[PAGE:], 0.0) == -1
    with pytest.raises(BusyError, match="finish"):
        rig.queue.transfer(Opcode.FLUSH, 0, 1, 0, 0, None, 0.0)
    assert rig.queue.finish(0.0) == -1
    [command] = rig.device.fetch(PAGE)
    rig.expect(command, Wish(Opcode.WRITE, lba=9, data=DATA_IOVA + PAGE))
    rig.device.complete(command.id, 0x281)
    assert rig.poll() == []
    assert rig.queue.finish(0.0) == 0x281
    with pytest.raises(RegisterValueError, match="no transfer is unfinished"):
        rig.queue.finish(0.0)


def test_transfer_that_is_abandoned_ends_with_the_status() -> None:
    rig = Rig()
    rig.submit(READ)
    assert rig.queue.transfer(Opcode.FLUSH, 0, 1, 0, 0, None, 0.0) == -1
    assert rig.queue.abandon(Result.array(8), 0x371) == 1
    rig.queue.reset()
    assert rig.queue.finish(0.0) == 0x371
    assert rig.queue.in_flight == 0


def test_transfer_says_when_it_cannot() -> None:
    rig = Rig(entries=2)
    assert rig.queue.transfer(Opcode.READ, 0, 1, 0, 1, np.zeros(PAGE, "u1"), 0.0) == -2
    assert rig.queue.in_flight == 0
    with pytest.raises(RegisterValueError, match="data of 4096 bytes for 2 blocks or ranges"):
        rig.queue.transfer(Opcode.READ, 0, 1, 0, 2, rig.data[:PAGE], 0.0)
    with pytest.raises(RegisterValueError, match="past the end"):
        rig.queue.transfer(Opcode.READ, 0, 1, 1000, 1, rig.data[:PAGE], 0.0)
    with pytest.raises(RegisterValueError, match="lba is -1, expected 0 to"):
        rig.queue.transfer(Opcode.READ, 0, 1, -1, 1, rig.data[:PAGE], 0.0)
    with pytest.raises(TypeError, match="takes 7 arguments"):
        rig.queue.transfer(Opcode.READ)  # type: ignore[call-arg]
    rig.data.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        rig.queue.transfer(Opcode.READ, 0, 1, 0, 1, rig.data[:PAGE], 0.0)
    rig.submit(READ)
    assert rig.queue.transfer(Opcode.WRITE, 0, 1, 0, 1, rig.data[:PAGE], 0.0) == -3


def test_run_does_all_of_them() -> None:
    rig = Rig(entries=5, completions=6)
    requests = batch(*[replace(READ, tag=i, lba=i) for i in range(500)])
    results = Result.array(500)
    with serving(rig):
        assert rig.queue.run(requests, results, depth=3, timeout=30.0) == 500
    assert sorted(results["tag"]) == list(range(500))
    assert (results["tag"] == results["result"]).all()
    assert rig.queue.in_flight == 0


def test_run_never_has_more_in_flight() -> None:
    rig = Rig()
    results = Result.array(8)
    assert rig.queue.run(batch(*[READ] * 8), results, depth=2, timeout=0.0) == 0
    assert rig.queue.in_flight == 2
    with pytest.raises(BusyError, match="2 commands are in flight and 0 results wait; poll"):
        rig.queue.run(batch(READ), results, depth=2, timeout=0.0)


def test_run_keeps_as_many_in_flight_as_it_may() -> None:
    rig = Rig(entries=16, depth=16)
    flying, most, stop = [], [], threading.Event()

    def serve() -> None:
        while not stop.wait(0.0001):
            flying.extend(rig.device.fetch())
            most.append(len(flying))
            if flying:
                rig.device.complete(flying.pop(0).id)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert rig.queue.run(batch(*[READ] * 50), Result.array(50), depth=4, timeout=30.0) == 50
    finally:
        stop.set()
        thread.join()
    assert max(most) == 4


def test_run_ends_where_a_request_is_wrong() -> None:
    rig = Rig()
    results = Result.array(3)
    with serving(rig), pytest.raises(RegisterValueError, match=r"request 1: .*namespace 4"):
        rig.queue.run(batch(READ, Wish(namespace=4), READ), results, depth=2, timeout=30.0)
    assert results["tag"].tolist() == [77, 0, 0]
    with pytest.raises(RegisterValueError, match="3 requests with room for 2 results"):
        rig.queue.run(batch(READ, READ, READ), results[:2], depth=2, timeout=1.0)
    with pytest.raises(RegisterValueError, match="at a depth of 0"):
        rig.queue.run(batch(READ), results, depth=0, timeout=1.0)


def test_poll_waits_for_at_least_so_many() -> None:
    rig = Rig()
    rig.submit(READ, READ, READ)
    results = Result.array(8)
    with serving(rig):
        assert rig.queue.poll(results, least=3, timeout=30.0) == 3
    rig.submit(READ)
    assert rig.queue.poll(results, 1, 0.001) == 0
    assert rig.queue.poll(results, timeout=0.001, least=1) == 0
    with pytest.raises(TypeError, match="'most' is unknown"):
        rig.queue.poll(results, most=1)  # type: ignore[call-arg]


def test_poll_returns_what_there_is_when_time_is_up() -> None:
    rig = Rig()
    rig.submit(READ, READ, READ)
    first, second, _ = rig.device.fetch(PAGE)
    rig.device.complete(first.id)
    rig.device.complete(second.id)
    assert rig.queue.poll(Result.array(8), least=3, timeout=0.001) == 2


def test_poll_goes_on_where_room_ended() -> None:
    rig = Rig()
    rig.submit(*[replace(READ, tag=i) for i in range(5)])
    for command in rig.device.fetch(PAGE):
        rig.device.complete(command.id)
    assert [rig.poll(2) for _ in range(3)] == [
        [(0, 0, 0), (1, 0, 0)],
        [(2, 0, 0), (3, 0, 0)],
        [(4, 0, 0)],
    ]
    assert rig.poll(0) == []


def test_a_second_thread_is_told_so() -> None:
    rig = Rig()
    rig.submit(READ)
    inside = threading.Thread(target=rig.queue.poll, args=(Result.array(1), 1, 30.0))
    inside.start()

    def disturb() -> None:
        while inside.is_alive():
            rig.queue.tag_of(1)

    with pytest.raises(BusyError, match="queue 1: another thread is in it"):
        disturb()
    for command in rig.device.fetch(PAGE):
        rig.device.complete(command.id)
    inside.join()
    assert rig.queue.in_flight == 0


def test_a_signal_loses_no_result() -> None:
    """Its handler raises while poll() waits for more: the next one returns what was there."""
    rig = Rig()
    rig.submit(READ, READ)
    rig.device.complete(rig.device.fetch(PAGE)[0].id)

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            rig.queue.poll(Result.array(8), least=2, timeout=30.0)
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    assert rig.queue.waiting == 1
    assert rig.poll() == [(77, 0, 0)]

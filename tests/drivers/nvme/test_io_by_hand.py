"""Doorbells that Python rings: where ringing one fails, no answer that was there gets lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from uspace_drivers.nvme import Nvme, NvmeModel
from uspace_drivers.nvme.control.admin import PLACES
from uspace_drivers.nvme.engine.doorbells import RungByHand
from uspace_drivers.nvme.engine.requests import IN_FLIGHT, Result
from uspace_drivers.nvme.spec.commands import Opcode
from uspace_drv import DeviceError, DeviceGone, attach
from uspace_drv.backends.virtual import VirtualDevice

from .engine_twin import Rig, Wish, batch

TAIL, HEAD = 8, 12
"""Offsets of the doorbells of queue 1."""


class Bells:
    """A store that fails for the doorbells in `broken`, as the bus does when the device is gone."""

    def __init__(self, rig: Rig) -> None:
        self._memory = rig.doorbells.view("<u4")
        self.broken: set[int] = set()

    def store(self, offset: int, value: int) -> None:
        if offset in self.broken:
            raise DeviceGone(f"0000:00:04.0 bar 0: bus error at {offset:#x}")
        self._memory[offset // 4] = value


class Hand:
    """An engine on plain memory whose doorbells may break, and a plain device."""

    def __init__(self) -> None:
        self.rig = Rig()
        self.rig.queue.use_doorbells(np.zeros(4, "<u4"), TAIL, HEAD)  # the engine's own ring nobody
        self.bells = Bells(self.rig)
        self.engine = RungByHand(self.rig.queue, self.bells.store, TAIL, HEAD)
        self.results = Result.array(8)

    def answer(self, *tags: int) -> None:
        """Have commands with these tags go out and come back."""
        assert self.engine.submit(batch(*[Wish(tag=tag) for tag in tags])) == len(tags)
        for command in self.rig.device.fetch():
            self.rig.device.complete(command.id)

    def tags(self, count: int) -> list[int]:
        found: list[int] = self.results["tag"][:count].tolist()
        return found


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.mark.parametrize("broken", [{HEAD}, {TAIL, HEAD}])
def test_poll_returns_what_it_took_and_raises_afterwards(hand: Hand, broken: set[int]) -> None:
    hand.answer(1, 2, 3)
    hand.bells.broken = broken
    assert hand.tags(hand.engine.poll(hand.results)) == [1, 2, 3]
    with pytest.raises(DeviceGone, match="bus error at 0xc"):
        hand.engine.poll(hand.results)


def test_poll_for_more_than_there_is_does_not_lose_what_there_was(hand: Hand) -> None:
    hand.answer(1, 2)
    hand.bells.broken = {HEAD}
    assert hand.tags(hand.engine.poll(hand.results, 3, 10.0)) == [1, 2]
    with pytest.raises(DeviceGone):
        hand.engine.poll(hand.results, 1, 10.0)


def test_what_the_controller_broke_is_told_after_what_was_good(hand: Hand) -> None:
    hand.answer(1)
    hand.rig.device.complete(0x7777)
    assert hand.tags(hand.engine.poll(hand.results, 3, 10.0)) == [1]
    with pytest.raises(DeviceError, match="completion for command 30583"):
        hand.engine.poll(hand.results)
    assert hand.engine.poll(hand.results) == 0


def test_a_transfer_that_has_ended_says_so(hand: Hand) -> None:
    request = Opcode.READ, 0, 1, 0, 1, hand.rig.data[:4096]
    assert hand.engine.transfer(*request, 0.0) == IN_FLIGHT
    [command] = hand.rig.device.fetch()
    hand.rig.device.complete(command.id, 0x281)
    hand.bells.broken = {HEAD}
    assert hand.engine.finish(10.0) == 0x281
    with pytest.raises(DeviceGone):
        hand.engine.poll(hand.results)


def test_a_doorbell_that_works_again_says_what_it_missed(hand: Hand) -> None:
    hand.answer(1, 2)
    hand.bells.broken = {HEAD}
    assert hand.engine.poll(hand.results) == 2
    hand.bells.broken = set()
    with pytest.raises(DeviceGone):
        hand.engine.poll(hand.results)
    assert hand.engine.poll(hand.results) == 0
    assert hand.rig.device.head_doorbell == 2


def test_a_reset_in_between_is_the_end_of_it(hand: Hand) -> None:
    hand.answer(1)
    hand.bells.broken = {HEAD}
    assert hand.engine.poll(hand.results) == 1
    hand.bells.broken = set()
    hand.rig.queue.reset()
    hand.engine.resume()
    assert hand.engine.poll(hand.results) == 0


class WithoutInterrupts(VirtualDevice):
    """So nobody but the caller rings: no handler's thread does."""

    irq_counts = {}


class TestWholeDriver:
    """On a model, behind a window that breaks."""

    @pytest.fixture
    def nvme(self) -> Iterator[Nvme]:
        model = NvmeModel("nvme", rings="python", size="4M")
        with attach(WithoutInterrupts(model), Nvme) as driver:
            yield driver

    def test_each_command_of_a_batch_is_answered_once(
        self, nvme: Nvme, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pair = nvme.queue(8, polled=True)
        by_hand: Any = pair.engine
        head, broken = by_hand._head._store, [True]

        def store(offset: int, value: int) -> None:
            if broken:
                broken.clear()
                raise DeviceGone("nvme bar 0: bus error")
            head(offset, value)

        with nvme.memory.alloc("u1", (8, 512)) as memory:
            places = memory.iova + np.arange(8) * 512
            requests = nvme.namespaces[1].requests(Opcode.READ, np.arange(8), 1, places)
            requests["tag"] = np.arange(8)
            assert pair.submit(requests) == 8
            monkeypatch.setattr(by_hand._head, "_store", store)
            first = pair.poll(8, 10.0).copy()
            assert sorted(first["tag"].tolist()) == list(range(8))
            with pytest.raises(DeviceGone):
                pair.poll()
            assert pair.in_flight == 0
            assert len(pair.run(requests)) == 8

    def test_an_admin_command_leaves_its_place_for_data(self, nvme: Nvme) -> None:
        queue: Any = nvme.controller._queue
        store = queue._head._store

        def fail_once(offset: int, value: int) -> None:
            queue._head._store = store
            raise DeviceGone("nvme bar 0: bus error")

        queue._head._store = fail_once
        with pytest.raises(DeviceGone):
            nvme.controller.smart_log()
        assert len(queue._free) == PLACES
        assert nvme.controller.smart_log() == nvme.controller.smart_log()

    def test_an_admin_command_that_does_not_go_out_leaves_nothing(self, nvme: Nvme) -> None:
        queue: Any = nvme.controller._queue
        store = queue._tail._store

        def fail_once(offset: int, value: int) -> None:
            queue._tail._store = store
            raise DeviceGone("nvme bar 0: bus error")

        queue._tail._store = fail_once
        with pytest.raises(DeviceGone):
            nvme.controller.smart_log()
        nvme.controller.reset()
        assert (len(queue._free), queue._waiting, queue._answers) == (PLACES, set(), {})

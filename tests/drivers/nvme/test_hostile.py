"""A controller that lies, stops or vanishes in the middle: an error in words or a recovery.

Each fault is met by a blocking call, a batch, and asyncio; afterwards the next command works, or
says that the device is gone. Memory that nobody asked the controller to write stays as it was.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from uspace_drivers.nvme import Nvme, NvmeModel
from uspace_drivers.nvme.model.faults import Action, Fault
from uspace_drivers.nvme.spec.command_error import CommandError
from uspace_drivers.nvme.spec.commands import Opcode
from uspace_drivers.nvme.spec.status import CODE, Status
from uspace_drv import DeviceError, DeviceGone, DeviceTimeout, attach

RINGS = ["python", "native"]
BLOCKS = 12
LIMIT = 0.3
"""Seconds that a command may take in these tests."""

Reading = Callable[[Nvme], None]


@pytest.fixture(params=RINGS)
def model(request: pytest.FixtureRequest) -> NvmeModel:
    return NvmeModel("nvme", rings=request.param, size="4M")


@pytest.fixture
def nvme(model: NvmeModel) -> Iterator[Nvme]:
    with attached(model) as driver:
        yield driver
    assert not [each for each in model.complaints if "a test wants it" not in each]


@contextmanager
def attached(model: NvmeModel) -> Iterator[Nvme]:
    with attach(model, Nvme) as driver:
        driver.queues.timeout = LIMIT
        driver.namespaces[1].write(0, EXPECTED)
        yield driver


EXPECTED = np.random.default_rng(5).integers(0, 256, 512 * BLOCKS, np.uint8)


def by_calls(nvme: Nvme) -> None:
    """Read block by block into one array, with blocking calls."""
    namespace = nvme.namespaces[1]
    found = [namespace.read(lba, 1) for lba in range(BLOCKS)]
    assert (np.concatenate(found) == EXPECTED).all()


def by_one_call(nvme: Nvme) -> None:
    """Read into DMA memory, with one call."""
    with nvme.memory.alloc("u1", 512 * BLOCKS) as memory:
        found = [
            nvme.namespaces[1].read(lba, 1, memory.array[:512]).copy() for lba in range(BLOCKS)
        ]
    assert (np.concatenate(found) == EXPECTED).all()


def by_batch(nvme: Nvme) -> None:
    """Read with a queue of one's own, by `run`."""
    pair = nvme.queue(8)
    try:
        with nvme.memory.alloc("u1", (BLOCKS, 512)) as memory:
            places = memory.iova + np.arange(BLOCKS) * 512
            batch = nvme.namespaces[1].requests(Opcode.READ, np.arange(BLOCKS), 1, places)
            results = pair.run(batch)
            assert sorted(results["tag"].tolist()) == list(range(BLOCKS))
            good = results["tag"][results["status"] == 0].astype(int)
            assert (memory.array[good] == EXPECTED.reshape(BLOCKS, 512)[good]).all()
            for status in results["status"][results["status"] != 0].tolist():
                raise CommandError(pair.name, Opcode.READ, 1, status)
    finally:
        nvme.queues.close(pair)


def by_polling(nvme: Nvme) -> None:
    """Read with a polled queue of one's own, by `submit` and `poll`."""
    pair = nvme.queue(16, polled=True)
    try:
        with nvme.memory.alloc("u1", (BLOCKS, 512)) as memory:
            places = memory.iova + np.arange(BLOCKS) * 512
            pair.submit(nvme.namespaces[1].requests(Opcode.READ, np.arange(BLOCKS), 1, places))
            done = 0
            while done < BLOCKS:
                found = pair.poll(1, LIMIT)
                done += len(found)
                if not len(found):
                    pair.drain()
                for status in found["status"][found["status"] != 0].tolist():
                    raise CommandError(pair.name, Opcode.READ, 1, status)
            assert (memory.array.ravel() == EXPECTED).all()
    finally:
        nvme.queues.close(pair)


def by_asyncio(nvme: Nvme) -> None:
    """Read with a task for each block."""

    async def work() -> None:
        namespace = nvme.namespaces[1].aio
        async with asyncio.timeout(30):
            found = await asyncio.gather(
                *(namespace.read(lba, 1) for lba in range(BLOCKS)), return_exceptions=True
            )
        blocks = []
        for each in found:
            if isinstance(each, BaseException):
                raise each
            blocks.append(each)
        assert (np.concatenate(blocks) == EXPECTED).all()

    asyncio.run(work())


READINGS = [by_calls, by_one_call, by_batch, by_polling, by_asyncio]


@pytest.fixture(params=READINGS, ids=lambda each: each.__name__)
def read(request: pytest.FixtureRequest) -> Reading:
    reading: Reading = request.param
    return reading


def fault(action: Action, **options: Any) -> Fault:
    return Fault(action, opcode=Opcode.READ, after=3, **options)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (Action.TWICE, "not in flight"),
        (Action.UNSENT, "not in flight"),
        (Action.WRONG_ID, "not in flight"),
        (Action.WRONG_QUEUE, "queue"),
        (Action.WRONG_HEAD, "head"),
    ],
)
def test_impossible_completions(
    action: Action, words: str, nvme: Nvme, model: NvmeModel, read: Reading
) -> None:
    """It is an error in words, at once or with the next command, and all works again."""
    added = model.faults.add(fault(action))
    generation = nvme.controller.generation
    heard = error_of(lambda: read(nvme))
    if isinstance(heard, CommandError):
        assert heard.status & CODE in {Status.ABORTED_BY_HOST, Status.ABORTED_BY_QUEUE_DELETION}
    elif heard is not None:
        assert words in str(heard)
    assert added.hits == 1
    for _ in range(3):
        settle(nvme, generation)
        read(nvme)
    assert nvme.controller.generation in {generation, generation + 1}


@pytest.mark.parametrize(
    ("action", "read"),
    [
        *((Action.LOST_INTERRUPT, each) for each in READINGS),
        # A blocking call sends no next command, behind which the held one could come.
        *((Action.HOLD, each) for each in (by_batch, by_polling, by_asyncio)),
    ],
)
def test_what_is_odd_but_allowed(
    action: Action, nvme: Nvme, model: NvmeModel, read: Reading
) -> None:
    """Completions in another order, and interrupts that get lost, are no error."""
    generation = nvme.controller.generation
    added = model.faults.add(fault(action))
    read(nvme)
    assert added.hits == 1
    assert nvme.controller.generation == generation


@pytest.mark.parametrize("action", [Action.DROP, Action.WRONG_PHASE])
def test_commands_that_never_end(
    action: Action, nvme: Nvme, model: NvmeModel, read: Reading
) -> None:
    """They are aborted, or a reset ends them; nobody waits for ever."""
    added = model.faults.add(fault(action))
    begin = time.monotonic()
    with pytest.raises(DeviceError) as error:
        read(nvme)
    assert time.monotonic() - begin < 10
    assert added.hits == 1
    assert "abort" in str(error.value), error.value
    assert isinstance(error.value, CommandError | DeviceTimeout)
    read(nvme)


def test_a_controller_that_gives_up(nvme: Nvme, model: NvmeModel, read: Reading) -> None:
    """CSTS.CFS is noticed long before the time-out, and a reset brings it back."""
    nvme.queues.timeout = 30.0
    read(nvme)
    added = model.faults.add(fault(Action.FATAL))
    begin = time.monotonic()
    with pytest.raises(DeviceError):
        read(nvme)
    assert time.monotonic() - begin < 10
    assert added.hits == 1
    read(nvme)


def test_a_device_that_vanishes(model: NvmeModel, read: Reading) -> None:
    """All ones in the middle: everybody hears that it is gone, now and later."""
    begin = time.monotonic()
    with pytest.raises(DeviceGone, match="remove"), attached(model) as nvme:  # noqa: PT012
        model.faults.add(fault(Action.VANISH))
        with pytest.raises(DeviceError):
            read(nvme)
        with pytest.raises(DeviceGone):
            nvme.namespaces[1].read(0, 1)
        model.faults.clear()
    assert time.monotonic() - begin < 10


def test_a_reset_in_the_middle_of_everything(nvme: Nvme) -> None:
    """Other threads see their commands end with an error or well, and go on."""
    stop = threading.Event()
    rounds = [0] * 3

    def work(number: int) -> None:
        while not stop.is_set():
            heard = error_of(lambda: by_calls(nvme))
            if heard is not None and "aborted by host" not in str(heard):
                raise heard
            rounds[number] += 1

    def wait_for_a_round(threads: list[Future[None]]) -> None:
        before, end = list(rounds), time.monotonic() + 10
        while not all(now > then for now, then in zip(rounds, before, strict=True)):
            assert time.monotonic() < end
            for thread in threads:
                assert not thread.done(), thread.result()
            time.sleep(0.001)

    with ThreadPoolExecutor(3) as pool:
        threads = [pool.submit(work, number) for number in range(3)]
        try:
            for _ in range(5):
                nvme.controller.rescue(None, "a test wants it")
                wait_for_a_round(threads)
        finally:
            stop.set()
        for thread in threads:
            thread.result(10)


def error_of(work: Callable[[], object]) -> DeviceError | None:
    """What it raised."""
    try:
        work()
    except DeviceError as error:
        return error
    return None


def settle(nvme: Nvme, generation: int) -> None:
    """Let a completion that came after all results be found, by the next command."""
    if error_of(lambda: nvme.namespaces[1].read(0, 1)):
        assert nvme.controller.generation > generation

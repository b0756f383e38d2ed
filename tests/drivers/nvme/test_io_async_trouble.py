"""What goes wrong with asyncio: calls are cancelled, refused or late, and the controller leaves."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from tests.drivers.nvme.test_io_async import RINGS, a_model, run
from uspace_drivers.nvme import Nvme, NvmeModel
from uspace_drivers.nvme.model.faults import Action, Fault
from uspace_drivers.nvme.spec.command_error import CommandError
from uspace_drivers.nvme.spec.commands import Opcode
from uspace_drivers.nvme.spec.status import Status, code_of
from uspace_drivers.nvme.storage.async_queue import AsyncQueue
from uspace_drv import (
    BusyError,
    ClosedError,
    DeviceError,
    DeviceGone,
    HostError,
    IrqKind,
    RegisterValueError,
    UspaceError,
)
from uspace_drv.layout import Structures


@pytest.fixture(params=RINGS)
def model(request: pytest.FixtureRequest) -> NvmeModel:
    return a_model(request.param, mdts=3)


def test_a_cancelled_write_is_not_sent_with_the_data_of_the_next() -> None:
    async def work(nvme: Nvme) -> None:
        namespace, aio = nvme.namespaces[1], nvme.namespaces[1].aio
        first, second, third = (np.full(1 << 20, each, np.uint8) for each in (1, 2, 3))
        before = asyncio.create_task(aio.write(0, first))
        cancelled = asyncio.create_task(aio.write(2048, second))
        await two_turns()
        assert nvme.queues.of_loop()._later
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await asyncio.gather(before, aio.write(4096, third))
        assert set(namespace.read(2048, 2048)) == {0}
        assert set(namespace.read(4096, 2048)) == {3}

    run(a_model(mdts=1, latency=0.05), work)


def test_a_cancelled_read_does_not_fill_the_memory_of_the_next() -> None:
    async def work(nvme: Nvme) -> None:
        namespace, aio = nvme.namespaces[1], nvme.namespaces[1].aio
        for start, value in enumerate((1, 2, 3)):
            namespace.write(start * 2048, np.full(1 << 20, value, np.uint8))
        before = asyncio.create_task(aio.read(0, 2048))
        cancelled = asyncio.create_task(aio.read(2048, 2048))
        await two_turns()
        cancelled.cancel()
        after = asyncio.create_task(aio.write(4096, np.full(1 << 20, 4, np.uint8)))
        assert set(await before) == {1}
        await after
        assert set(namespace.read(4096, 2048)) == {4}

    run(a_model(mdts=1, latency=0.05), work)


def test_parts_of_a_cancelled_write_that_were_not_sent_never_are() -> None:
    async def work(nvme: Nvme) -> None:
        queue, aio = nvme.queues.of_loop(), nvme.namespaces[1].aio
        with nvme.memory.alloc("u1", 2 << 20) as memory:
            task = asyncio.create_task(aio.write(0, memory.array))
            await two_turns()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await queue_is_empty(queue)
        assert queue.pair.hot.submitted == queue.pair.depth

    run(a_model(mdts=1, latency=0.05), work)


def test_suspended_it_says_so_and_resumed_it_goes_on(model: NvmeModel) -> None:
    async def work(nvme: Nvme) -> None:
        aio = nvme.namespaces[1].aio
        await aio.read(0, 1)
        await asyncio.to_thread(nvme.suspend)
        found = await asyncio.gather(*(aio.read(0, 1) for _ in range(200)), return_exceptions=True)
        assert {type(each) for each in found} == {ClosedError}
        assert len({id(each) for each in found}) == 200
        await asyncio.to_thread(resume, nvme)
        assert len(await aio.read(0, 1)) == 512
        assert is_whole(nvme.queues.of_loop())

    run(model, work)


def test_what_is_in_flight_when_it_is_suspended_is_answered() -> None:
    model = a_model()

    async def work(nvme: Nvme) -> None:
        aio = nvme.namespaces[1].aio
        model.faults.add(Fault(Action.DROP, opcode=Opcode.READ))
        task = asyncio.create_task(aio.read(0, 1))
        await asyncio.sleep(0.01)
        await asyncio.to_thread(nvme.suspend)
        with pytest.raises(CommandError, match="abort"):
            await task
        await asyncio.to_thread(resume, nvme)
        assert len(await aio.read(0, 1)) == 512

    run(model, work)


@pytest.mark.parametrize("lba", [-1, 1 << 64, 0.0])
@pytest.mark.parametrize("before", [0, 128])
def test_what_no_command_can_say_takes_no_slot(model: NvmeModel, lba: Any, before: int) -> None:
    async def work(nvme: Nvme) -> None:
        queue, aio = nvme.queues.of_loop(), nvme.namespaces[1].aio
        with nvme.memory.alloc("u1", 512) as memory:
            others = [queue.request(2, 0, 1, 0, 1, memory.iova) for _ in range(before)]
            with pytest.raises(RegisterValueError, match=f"blocks from {lba}"):
                await aio.read(lba, 1, memory.array)
            assert set(await asyncio.gather(*others)) <= {0}
            await aio.read(0, 1, memory.array)
        assert is_whole(queue)

    run(model, work)


def test_what_is_no_memory_is_refused(model: NvmeModel) -> None:
    async def work(nvme: Nvme) -> None:
        with pytest.raises(RegisterValueError):
            await nvme.namespaces[1].aio.read(0, 1, [0] * 512)

    run(model, work)


def test_more_refusals_than_slots_leave_the_rest_its_turn(model: NvmeModel) -> None:
    async def work(nvme: Nvme) -> None:
        queue = nvme.queues.of_loop()
        with nvme.memory.alloc("u1", 512) as memory:
            asked = [9000] * queue.pair.depth + [0] * 3
            futures = [queue.request(2, 0, 1, lba, 1, memory.iova) for lba in asked]
            found = await asyncio.gather(*futures, return_exceptions=True)
        assert found[-3:] == [0, 0, 0]
        assert {type(each) for each in found[:-3]} == {RegisterValueError}
        assert is_whole(queue)

    run(model, work)


@pytest.mark.parametrize("kind", [IrqKind.MSIX, None])
def test_a_loop_that_sleeps_sends_what_is_asked_for(kind: IrqKind | None) -> None:
    async def work(nvme: Nvme) -> None:
        queue, aio = nvme.queues.of_loop(), nvme.namespaces[1].aio
        tasks = [asyncio.create_task(aio.read(0, 1))]
        await asyncio.sleep(0.02)
        tasks += [asyncio.create_task(aio.read(1, 1))]
        await asyncio.sleep(0.01)
        assert queue.pair.in_flight == 2
        await asyncio.gather(*tasks)

    run(a_model(latency=0.2), work, irq_kind=kind)


def test_a_pause_makes_nothing_late() -> None:
    async def work(nvme: Nvme) -> None:
        queue, aio = nvme.queues.of_loop(), nvme.namespaces[1].aio
        queue.pair.timeout = 0.2
        await aio.read(0, 1)
        await asyncio.sleep(0.3)
        await aio.read(0, 1)

    run(a_model(latency=0.05), work)


@pytest.mark.parametrize("kind", [DeviceError, HostError])
@pytest.mark.parametrize("sent", [0, 2, 128])
@pytest.mark.parametrize("count", [3, 128, 200])
def test_an_error_that_is_about_no_request_hurts_none(
    kind: type[UspaceError], sent: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the doorbell cannot be rung: the engine has the commands, or some of them."""

    async def work(nvme: Nvme) -> None:
        queue = nvme.queues.of_loop()
        submit = queue.pair.submit
        asyncio.get_running_loop().set_exception_handler(lambda _, what: None)

        def fail_once(requests: Structures) -> int:
            monkeypatch.setattr(queue.pair, "submit", submit)
            submit(requests[:sent])
            raise kind("the doorbell is stuck")

        monkeypatch.setattr(queue.pair, "submit", fail_once)
        with nvme.memory.alloc("u1", 512) as memory:
            futures = [queue.request(2, 0, 1, lba, 1, memory.iova) for lba in range(count)]
            statuses = await asyncio.gather(*futures)
            assert {code_of(each) for each in statuses} <= {0, Status.ABORTED_BY_HOST}
            assert await queue.request(2, 0, 1, 0, 1, memory.iova) in {0, Status.ABORTED_BY_HOST}
        assert is_whole(queue)
        assert queue.pair.hot.submitted == count + 1

    run(a_model("native"), work)


def test_closed_in_the_middle_each_is_refused_once(
    model: NvmeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(nvme: Nvme) -> None:
        queue = nvme.queues.of_loop()
        submit = queue.pair.submit

        def close_next(requests: Structures) -> int:
            monkeypatch.setattr(queue.pair, "submit", refuse)
            return submit(requests)

        monkeypatch.setattr(queue.pair, "submit", close_next)
        with nvme.memory.alloc("u1", 512) as memory:
            futures = [queue.request(2, 0, 1, lba, 1, memory.iova) for lba in (0, 9000, 1)]
            found = await asyncio.gather(*futures, return_exceptions=True)
        assert [type(each) for each in found] == [int, RegisterValueError, ClosedError]
        assert is_whole(queue)

    def refuse(_: Structures) -> int:
        raise ClosedError("closed")

    run(model, work)


@pytest.mark.parametrize("count", [1, 200])
def test_answers_that_came_with_an_error_are_not_lost(
    model: NvmeModel, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when they are taken, and then the doorbell cannot be rung."""

    async def work(nvme: Nvme) -> None:
        queue = nvme.queues.of_loop()
        take = queue.pair.take

        def fail_once() -> Structures:
            results = take()
            if len(results):
                monkeypatch.setattr(queue.pair, "take", take)
                raise DeviceError("the doorbell is stuck")
            return results

        monkeypatch.setattr(queue.pair, "take", fail_once)
        with nvme.memory.alloc("u1", 512) as memory:
            futures = [queue.request(2, 0, 1, lba, 1, memory.iova) for lba in range(count)]
            statuses = await asyncio.gather(*futures)
            assert {code_of(each) for each in statuses} <= {0, Status.ABORTED_BY_HOST}
        assert is_whole(queue)

    run(model, work)


@pytest.mark.parametrize("method", ["submit", "take"])
def test_another_thread_in_the_engine_is_waited_for(
    model: NvmeModel, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(nvme: Nvme) -> None:
        queue, aio = nvme.queues.of_loop(), nvme.namespaces[1].aio
        real, tries = getattr(queue.pair, method), iter(range(3))

        def busy(*arguments: Any) -> Any:
            if next(tries, None) is None:
                return real(*arguments)
            raise BusyError("another thread is in it")

        monkeypatch.setattr(queue.pair, method, busy)
        await asyncio.gather(*(aio.read(lba, 1) for lba in range(200)))
        assert is_whole(queue)
        assert nvme.controller.generation == 1

    run(model, work)


def test_a_queue_that_takes_fewer_gets_the_others_later(
    model: NvmeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(nvme: Nvme) -> None:
        queue, aio = nvme.queues.of_loop(), nvme.namespaces[1].aio
        submit = queue.pair.submit
        monkeypatch.setattr(queue.pair, "submit", lambda requests: submit(requests[:3]))
        await asyncio.gather(*(aio.read(lba, 1) for lba in range(200)))
        assert is_whole(queue)

    run(model, work)


def test_nobody_is_told_of_an_error_while_his_command_is_in_flight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = a_model()

    async def work(nvme: Nvme) -> None:
        queue, aio = nvme.queues.of_loop(), nvme.namespaces[1].aio
        queue.pair.timeout = 0.1
        model.faults.add(Fault(Action.DROP, opcode=Opcode.READ))
        monkeypatch.setattr(nvme.controller, "abort_all", refuse_busy)
        in_flight: list[int] = []
        task = asyncio.ensure_future(aio.read(0, 1))
        task.add_done_callback(lambda _: in_flight.append(queue.pair.in_flight))
        await asyncio.wait([task])
        assert isinstance(task.exception(), CommandError)
        assert in_flight == [0]
        await aio.read(0, 1)
        async with asyncio.timeout(10):  # the reset, in a thread, may end after that read
            while nvme.controller.generation != 2:
                await asyncio.sleep(0.001)

    def refuse_busy(_: object) -> None:
        raise BusyError("the loop is in it")

    run(model, work)


def test_a_late_command_beside_many_others() -> None:
    """The abort looks for it while the loop takes answers, one batch after the other."""
    model = a_model("native")

    async def work(nvme: Nvme) -> None:
        queue, aio = nvme.queues.of_loop(), nvme.namespaces[1].aio
        queue.pair.timeout = 0.2
        model.faults.add(Fault(Action.DROP, opcode=Opcode.READ))
        late = asyncio.create_task(aio.read(0, 1))
        await asyncio.sleep(0.01)
        statuses: set[int] = set()
        with nvme.memory.alloc("u1", 512) as memory:
            while not late.done():
                futures = [queue.request(2, 0, 1, 0, 1, memory.iova) for _ in range(8)]
                statuses.update(code_of(each) for each in await asyncio.gather(*futures))
        assert isinstance(late.exception(), CommandError)
        assert statuses <= {0, Status.ABORTED_BY_HOST, Status.ABORT_REQUESTED}
        await aio.read(0, 1)
        assert is_whole(queue)

    run(model, work)


def test_whatever_is_raised_the_next_turn_comes(
    model: NvmeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(nvme: Nvme) -> None:
        queue, aio = nvme.queues.of_loop(), nvme.namespaces[1].aio
        take, told = queue.pair.take, list[Any]()
        asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(what))

        def fail_once() -> Structures:
            monkeypatch.setattr(queue.pair, "take", take)
            raise HostError("out of everything")

        monkeypatch.setattr(queue.pair, "take", fail_once)
        await aio.read(0, 1)
        assert [type(each["exception"]) for each in told] == [HostError]

    run(model, work)


def test_a_controller_that_is_gone_for_good() -> None:
    model, kinds = a_model(), list[set[type]]()

    async def work(nvme: Nvme) -> None:
        aio = nvme.namespaces[1].aio
        model.faults.add(Fault(Action.VANISH, opcode=Opcode.READ))
        for _ in range(2):
            reads = (aio.read(0, 1) for _ in range(200))
            found = await asyncio.gather(*reads, return_exceptions=True)
            kinds.append({type(each) for each in found})

    with pytest.raises(DeviceGone, match="all ones"):  # out of `remove`
        run(model, work)
    assert kinds[0] <= {CommandError, DeviceGone}
    assert kinds[1] == {DeviceGone}


async def two_turns() -> None:
    """Let tasks ask, and the queue send."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def resume(nvme: Nvme) -> None:
    """As the framework does."""
    nvme.device.set_bus_master(True)
    nvme.resume()


async def queue_is_empty(queue: AsyncQueue) -> None:
    """Wait until all that was sent is answered."""
    while not is_whole(queue):
        await asyncio.sleep(0.01)


def is_whole(queue: AsyncQueue) -> bool:
    """Whether each slot is free, once."""
    return sorted(queue._free) == list(range(queue.pair.depth)) and not any(queue._futures)

"""Reading and writing with asyncio, on both kinds of rings of the model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from uspace_drivers.nvme import Nvme, NvmeModel
from uspace_drivers.nvme.model.faults import Action, Fault
from uspace_drivers.nvme.spec.command_error import CommandError
from uspace_drivers.nvme.spec.commands import Opcode
from uspace_drivers.nvme.spec.status import Status
from uspace_drivers.nvme.storage.async_queue import AsyncQueue
from uspace_drv import IrqKind, RegisterValueError, attach

RINGS = ["python", "native"]


def some_bytes(size: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def a_model(rings: str = "python", **options: Any) -> NvmeModel:
    return NvmeModel("nvme", rings=rings, **{"size": "4M", **options})


@pytest.fixture(params=RINGS)
def model(request: pytest.FixtureRequest) -> NvmeModel:
    return a_model(request.param, mdts=3)


def run(
    model: NvmeModel, work: Callable[[Nvme], Awaitable[None]], *, irq_kind: IrqKind | None = None
) -> None:
    """Run a coroutine on a driver that has just been attached, and leave it."""
    with attach(model, Nvme, irq_kind=irq_kind) as nvme:
        asyncio.run(within(work(nvme)))


async def within(work: Awaitable[None]) -> None:
    async with asyncio.timeout(30):
        await work


@pytest.mark.parametrize("count", [1, 64, 65, 1000, 8000])
def test_any_length_comes_back(model: NvmeModel, count: int) -> None:
    async def work(nvme: Nvme) -> None:
        namespace, data = nvme.namespaces[1].aio, some_bytes(count * 512)
        await namespace.write(5, data)
        assert (await namespace.read(5, count) == data).all()

    run(model, work)


def test_dma_memory_is_not_copied(model: NvmeModel) -> None:
    async def work(nvme: Nvme) -> None:
        namespace = nvme.namespaces[1].aio
        with nvme.memory.alloc("u1", 512 * 200) as memory:
            memory.array[:] = some_bytes(512 * 200)
            expected = memory.array.copy()
            await namespace.write(3, memory.array)
            memory.array[:] = 0
            assert await namespace.read(3, 200, memory.array) is memory.array
            assert (memory.array == expected).all()
        assert not nvme.queues.of_loop().pair.bounce.is_used

    run(model, work)


def test_the_other_commands(model: NvmeModel) -> None:
    async def work(nvme: Nvme) -> None:
        namespace, data = nvme.namespaces[1].aio, some_bytes(200 * 512)
        await namespace.write(0, data)
        await namespace.flush()
        assert await namespace.compare(0, data)
        assert not await namespace.compare(1, data)
        await namespace.verify(0, 200)
        await namespace.write_zeroes(0, 10)
        await namespace.trim((lba, 1) for lba in range(20, 620, 2))
        found = (await namespace.read(0, 200)).reshape(200, 512).any(axis=1)
        assert not found[:10].any()
        assert found[10:20].all()
        assert not found[20::2].any()

    run(model, work)


def test_many_more_at_once_than_the_queue_holds(model: NvmeModel) -> None:
    async def work(nvme: Nvme) -> None:
        namespace, data = nvme.namespaces[1].aio, some_bytes(1000 * 512)
        await namespace.write(0, data)
        with nvme.memory.alloc("u1", (1000, 512)) as memory:
            rows = list(memory.array)
            await asyncio.gather(*(namespace.read(lba, 1, row) for lba, row in enumerate(rows)))
            assert (memory.array.ravel() == data).all()

    run(model, work)


@pytest.mark.parametrize("kind", [IrqKind.MSIX, IrqKind.INTX, None])
def test_slow_devices_let_the_loop_sleep(
    kind: IrqKind | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pumps = count_pumps(monkeypatch)

    async def work(nvme: Nvme) -> None:
        for lba in range(3):
            await nvme.namespaces[1].aio.read(lba, 1)

    run(a_model(latency=0.05), work, irq_kind=kind)
    assert len(pumps) < 400


def test_nothing_runs_while_nothing_is_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    pumps = count_pumps(monkeypatch)

    async def work(nvme: Nvme) -> None:
        await nvme.namespaces[1].aio.read(0, 1)
        before = len(pumps)
        await asyncio.sleep(0.05)
        assert len(pumps) == before

    run(a_model(), work)


def test_an_error_reaches_the_one_who_asked(model: NvmeModel) -> None:
    async def work(nvme: Nvme) -> None:
        fault = Fault(Action.STATUS, opcode=Opcode.READ, status=Status.UNRECOVERED_READ_ERROR)
        nvme_model.faults.add(fault)
        namespace = nvme.namespaces[1].aio
        found = await asyncio.gather(
            *(namespace.read(lba, 1) for lba in range(20)), return_exceptions=True
        )
        wrong = [each for each in found if isinstance(each, CommandError)]
        assert len(wrong) == 1
        assert "unrecovered read error" in str(wrong[0])

    nvme_model = model
    run(model, work)


def test_one_wrong_request_does_not_hurt_the_others(model: NvmeModel) -> None:
    async def work(nvme: Nvme) -> None:
        queue = nvme.queues.of_loop()
        with nvme.memory.alloc("u1", 4096) as memory:
            ask = [0, 1, 8192, 2, 9000, 3]
            futures = [queue.request(2, 0, 1, lba, 1, memory.iova) for lba in ask]
            found = await asyncio.gather(*futures, return_exceptions=True)
        kinds = [type(each) for each in found]
        assert kinds == [int, int, RegisterValueError, int, RegisterValueError, int]

    run(model, work)


@pytest.mark.parametrize(
    ("lba", "count", "into"), [(8192, 1, None), (0, 0, None), (0, 2, bytearray(512))]
)
def test_refusals(model: NvmeModel, lba: int, count: int, into: bytearray | None) -> None:
    async def work(nvme: Nvme) -> None:
        with pytest.raises(RegisterValueError):
            await nvme.namespaces[1].aio.read(lba, count, into)

    run(model, work)


def test_a_cancelled_read_keeps_its_slot_and_memory_until_the_answer() -> None:
    model = a_model(latency=0.05)

    async def work(nvme: Nvme) -> None:
        namespace = nvme.namespaces[1].aio
        queue = nvme.queues.of_loop()
        await namespace.read(0, 1)
        piece = queue.pair.bounce.free(512)[-1]
        task = asyncio.create_task(namespace.read(0, 1))
        await asyncio.sleep(0.01)
        assert queue.pair.in_flight == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert queue.pair.in_flight == 1
        assert all(each is not piece for each in queue.pair.bounce.free(512))
        await namespace.read(0, 1)
        assert queue.pair.in_flight == 0
        assert any(each is piece for each in queue.pair.bounce.free(512))

    run(model, work)


def test_requests_that_wait_for_a_slot_may_be_cancelled() -> None:
    model = a_model(latency=0.005)

    async def work(nvme: Nvme) -> None:
        namespace = nvme.namespaces[1].aio
        tasks = [asyncio.create_task(namespace.read(lba, 1)) for lba in range(200)]
        await asyncio.sleep(0)
        for task in tasks[100:180]:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        kinds = [isinstance(each, asyncio.CancelledError) for each in found]
        assert kinds == [False] * 100 + [True] * 80 + [False] * 20

    run(model, work)


def test_loops_leave_their_queue_to_the_next(model: NvmeModel) -> None:
    async def work() -> int:
        await nvme.namespaces[1].aio.read(0, 1)
        return nvme.queues.of_loop().pair.number

    with attach(model, Nvme) as nvme:
        assert asyncio.run(work()) == asyncio.run(work())


def test_a_loop_that_ended_in_the_middle_leaves_a_clean_queue(model: NvmeModel) -> None:
    async def stop_early() -> None:
        namespace = nvme.namespaces[1].aio
        tasks = [asyncio.create_task(namespace.read(lba, 1)) for lba in range(50)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)

    async def work() -> None:
        data = some_bytes(512 * 50)
        await nvme.namespaces[1].aio.write(0, data)
        assert (await nvme.namespaces[1].aio.read(0, 50) == data).all()

    with attach(model, Nvme) as nvme:
        asyncio.run(stop_early())
        asyncio.run(work())


def test_blocking_calls_beside(model: NvmeModel) -> None:
    async def work(nvme: Nvme) -> None:
        namespace, data = nvme.namespaces[1], some_bytes(512)
        task = asyncio.create_task(namespace.aio.read(0, 100))
        await asyncio.sleep(0)
        namespace.write(200, data)
        await task
        assert (await asyncio.to_thread(namespace.read, 200, 1) == data).all()

    run(model, work)


def count_pumps(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    pumps: list[None] = []
    pump = AsyncQueue._pump

    def counted(self: AsyncQueue) -> None:
        pumps.append(None)
        pump(self)

    monkeypatch.setattr(AsyncQueue, "_pump", counted)
    return pumps

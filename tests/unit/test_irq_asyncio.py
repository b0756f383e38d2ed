"""Interrupts in asyncio: await, async for, one waiter, cancelling, and every way to the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import TypeVar

import pytest

from tests.unit.specimens import WAIT, Line
from uspace_drv.errors import BusyError, ClosedError
from uspace_drv.irq import Irq

T = TypeVar("T")

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def irq(line: Line) -> Iterator[Irq]:
    irq = Irq(line, "bell msi 0", lambda: None)
    yield irq
    irq.close()


async def waiting_task(irq: Irq) -> asyncio.Task[int]:
    """A task that sleeps on the interrupt by now."""

    async def wait() -> int:
        return await irq

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    return task


def run(coroutine: Coroutine[object, object, None]) -> None:
    """Run it, and let it take no longer than a hang."""
    asyncio.run(asyncio.wait_for(coroutine, WAIT))


def test_await(line: Line, irq: Irq) -> None:
    async def main() -> None:
        line.fire()
        assert await irq == 1  # it has come already
        task = await waiting_task(irq)
        line.fire()
        line.fire()
        assert await task == 2
        assert irq.count == 3

    run(main())


def test_async_for_until_closed(line: Line, irq: Irq) -> None:
    rounds = []

    async def main() -> None:
        line.fire()
        async for fired in irq:
            rounds.append(fired)
            if len(rounds) == 3:
                irq.close()
            else:
                line.fire()

    with pytest.raises(ClosedError):
        run(main())
    assert rounds == [1, 1, 1]


def test_one_waiter_among_tasks_and_threads(line: Line, irq: Irq) -> None:
    async def main() -> None:
        task = await waiting_task(irq)
        with pytest.raises(BusyError):
            await irq
        with pytest.raises(BusyError):
            irq.poll()
        with pytest.raises(BusyError):
            await asyncio.to_thread(irq.wait, WAIT)
        line.fire()
        assert await task == 1

    run(main())


def test_a_task_may_not_wait_beside_a_thread(line: Line, irq: Irq) -> None:
    async def main() -> None:
        line.watched.clear()
        thread = asyncio.create_task(asyncio.to_thread(irq.wait, WAIT))
        await asyncio.to_thread(line.watched.wait, WAIT)
        with pytest.raises(BusyError):
            await irq
        line.fire()
        assert await thread == 1

    run(main())


def test_a_cancelled_wait_makes_room(line: Line, irq: Irq) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await irq
        assert not asyncio.get_running_loop().remove_reader(line.fileno())
        line.fire()
        assert await irq == 1

    run(main())


def test_close_in_the_same_loop(line: Line, irq: Irq) -> None:
    async def main() -> None:
        task = await waiting_task(irq)
        fd = line.fileno()
        irq.close()
        assert not asyncio.get_running_loop().remove_reader(fd)
        with pytest.raises(ClosedError, match="bell msi 0 is closed"):
            await task

    run(main())


def test_close_when_it_has_fired_and_the_task_has_not_run_yet(line: Line, irq: Irq) -> None:
    """Both descriptors are readable in one round of the loop; tasks go on in the next."""
    end = Line()

    async def main() -> None:
        task = await waiting_task(irq)
        loop = asyncio.get_running_loop()
        line.fire()
        end.fire()
        loop.add_reader(end.fileno(), irq.close)
        with pytest.raises(ClosedError):
            await task
        loop.remove_reader(end.fileno())

    run(main())
    end.close()


def test_close_from_another_thread(irq: Irq) -> None:
    async def main() -> None:
        task = await waiting_task(irq)
        await asyncio.to_thread(irq.close)
        with pytest.raises(ClosedError):
            await task

    run(main())


def test_close_that_looks_before_the_task_sleeps(line: Line, irq: Irq) -> None:
    """The task has the seat and has not told anybody how to wake it, when `close()` comes."""

    class Seat(threading.Condition):
        looked = threading.Event()

        def wait_for(self, predicate: Callable[[], T], timeout: float | None = None) -> T:
            self.looked.set()
            return super().wait_for(predicate, timeout)

    irq._seat = Seat()
    closer = threading.Thread(target=irq.close)
    fileno = line.fileno

    def fileno_while_closing() -> int:
        closer.start()
        assert Seat.looked.wait(WAIT)
        return fileno()

    line.fileno = fileno_while_closing  # type: ignore[method-assign]

    async def main() -> None:
        with pytest.raises(ClosedError):
            await irq

    run(main())
    closer.join(WAIT)


def test_close_from_another_thread_while_the_task_is_cancelled(line: Line, irq: Irq) -> None:
    async def main() -> None:
        task = await waiting_task(irq)
        fd = line.fileno()
        closer = threading.Thread(target=irq.close)
        closer.start()
        task.cancel()
        with pytest.raises((asyncio.CancelledError, ClosedError)):
            await task
        await asyncio.to_thread(closer.join, WAIT)
        assert not asyncio.get_running_loop().remove_reader(fd)

    run(main())


@pytest.mark.parametrize("closed", [False, True])
def test_close_after_the_loop_came_to_a_stop(irq: Irq, closed: bool) -> None:
    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(waiting_task(irq))
    if closed:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()
    irq.close()
    if not closed:
        with pytest.raises(ClosedError):
            loop.run_until_complete(task)
        loop.close()


def test_close_from_another_loop(irq: Irq) -> None:
    """The loop of the waiter stands still; the one that runs here is another."""
    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(waiting_task(irq))

    async def main() -> None:
        irq.close()

    run(main())
    with pytest.raises(ClosedError):
        loop.run_until_complete(task)
    loop.close()

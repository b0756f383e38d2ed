"""Drivers that react: top half first, deferred work in order and bounded, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from tests.unit.specimens import WAIT, Bell, BellModel, Line
from uspace_drv import IrqKind, attach, handlers, interrupt
from uspace_drv.backends.virtual import VirtualDevice
from uspace_drv.errors import (
    BusyError,
    ClosedError,
    DeviceGone,
    DeviceTimeout,
    LayoutError,
    RegisterValueError,
    UnsupportedError,
)
from uspace_drv.handlers import InterruptLoop, handlers_of
from uspace_drv.irq import Irq
from uspace_drv.testing import FaultyBackend

pytestmark = pytest.mark.usefixtures("nothing_left")


class Bench:
    """An interrupt, a loop that serves it, and what was done in which order."""

    def __init__(self) -> None:
        self.line = Line(IrqKind.INTX)
        self.irq = Irq(self.line, "bell", lambda: None)
        self.loop = InterruptLoop("bell")
        self.log: list[str] = []
        self.finished = threading.Event()

    def start(self, handler: Callable[[], None]) -> None:
        self.loop.start({self.irq: handler})

    def finish(self) -> None:
        """Work that is deferred last."""
        self.log.append("finished")
        self.finished.set()

    def stop(self) -> list[str]:
        assert self.finished.wait(WAIT)
        self.loop.stop()
        return self.log


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.loop.stop()
    bench.irq.close()


def test_handler_is_called_and_the_level_armed_after_it(bench: Bench) -> None:
    def handler() -> None:
        bench.line.log.append("handler")
        bench.loop.defer(bench.finish)

    bench.start(handler)
    bench.line.fire()
    bench.stop()
    assert bench.line.log == ["handler", "unmask"]
    assert bench.irq.count == 1


def test_interrupts_come_before_deferred_work(bench: Bench) -> None:
    def handler() -> None:
        bench.log.append("top")
        if bench.irq.count == 1:
            bench.loop.defer(first)
            bench.loop.defer(lambda: bench.log.append("second"))
            bench.loop.defer(bench.finish)

    def first() -> None:
        bench.log.append("first")
        bench.line.fire()

    bench.start(handler)
    bench.line.fire()
    assert bench.stop() == ["top", "first", "top", "second", "finished"]


def test_deferred_work_keeps_its_order(bench: Bench) -> None:
    def handler() -> None:
        for number in range(100):
            bench.loop.defer(lambda number=number: bench.log.append(str(number)))  # type: ignore[misc]
        bench.loop.defer(bench.finish)

    bench.start(handler)
    bench.line.fire()
    assert bench.stop() == [*map(str, range(100)), "finished"]


def test_queue_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "QUEUE_LIMIT", 3)
    refused: list[BusyError] = []

    def handler() -> None:
        bench.loop.defer(lambda: None)
        bench.loop.defer(lambda: None)
        bench.loop.defer(bench.finish)
        try:
            bench.loop.defer(lambda: bench.log.append("too much"))
        except BusyError as error:
            refused.append(error)

    bench.start(handler)
    bench.line.fire()
    assert bench.stop() == ["finished"]
    assert str(refused[0]) == "bell: 3 pieces of deferred work wait already"


def test_nothing_to_defer_to(bench: Bench) -> None:
    with pytest.raises(ClosedError, match="none is running"):
        bench.loop.defer(bench.finish)
    bench.start(lambda: None)
    bench.loop.stop()
    with pytest.raises(ClosedError, match="none is running"):
        bench.loop.defer(bench.finish)


@pytest.mark.parametrize(
    ("failure", "words", "has_trace"),
    [
        (DeviceGone("bell: is gone"), "bell: is gone; no handler will be called any more", False),
        (ValueError("bad"), "bell: a handler failed, and no other will be called", True),
    ],
)
def test_a_trace_is_for_what_the_handler_did(
    bench: Bench,
    caplog: pytest.LogCaptureFixture,
    failure: Exception,
    words: str,
    has_trace: bool,
) -> None:
    def fail() -> None:
        bench.finished.set()
        raise failure

    bench.start(fail)
    bench.line.fire()
    with pytest.raises(type(failure)):
        bench.stop()
    (record,) = caplog.records
    assert (record.getMessage(), bool(record.exc_info)) == (words, has_trace)


@pytest.mark.parametrize("where", ["handler", "deferred work"])
def test_what_a_handler_raises_comes_out_at_the_end(bench: Bench, where: str) -> None:
    def fail() -> None:
        bench.finished.set()
        raise ZeroDivisionError(where)

    bench.start(fail if where == "handler" else lambda: bench.loop.defer(fail))
    bench.line.fire()
    with pytest.raises(ZeroDivisionError, match=where):
        bench.stop()
    bench.loop.stop()


def test_after_a_failure_nothing_can_be_deferred(bench: Bench) -> None:
    def fail() -> None:
        raise ZeroDivisionError("handler")

    bench.start(fail)
    bench.line.fire()
    assert bench.loop._thread is not None
    bench.loop._thread.join(WAIT)
    with pytest.raises(ZeroDivisionError, match="handler"):
        bench.loop.defer(lambda: None)
    with pytest.raises(ZeroDivisionError):
        bench.loop.stop()


def test_what_handlers_bring_about_is_waited_for(bench: Bench) -> None:
    def handler() -> None:
        bench.log.append("top")
        bench.loop.defer(lambda: bench.log.append("bottom"))

    bench.start(handler)
    assert not bench.loop.wait_until(lambda: bench.log != [], 0.01)
    bench.line.fire()
    assert bench.loop.wait_until(lambda: bench.log == ["top", "bottom"], WAIT)
    bench.line.fire()
    assert bench.loop.wait_until(lambda: len(bench.log) == 4, WAIT)


@pytest.mark.parametrize("where", ["handler", "deferred work"])
def test_waiter_is_told_at_once_when_a_handler_fails(bench: Bench, where: str) -> None:
    def fail() -> None:
        raise ZeroDivisionError(where)

    def asked() -> bool:  # the waiter holds the lock here, so it is waiting when the handler fails
        bench.line.fire()
        return False

    bench.start(fail if where == "handler" else lambda: bench.loop.defer(fail))
    with pytest.raises(ZeroDivisionError, match=where):
        bench.loop.wait_until(asked, 5 * WAIT)
    with pytest.raises(ZeroDivisionError):
        bench.loop.stop()


def test_nobody_to_wait_for(bench: Bench) -> None:
    with pytest.raises(ClosedError, match="none is running"):
        bench.loop.wait_until(lambda: False, WAIT)
    assert bench.loop.wait_until(lambda: True, WAIT)


def test_waiter_leaves_with_the_handlers(bench: Bench) -> None:
    bench.start(lambda: None)
    stopper = threading.Thread(target=bench.loop.stop)

    def asked() -> bool:
        if not stopper.ident:
            stopper.start()
        return False

    with pytest.raises(ClosedError, match="none is running"):
        bench.loop.wait_until(asked, 5 * WAIT)
    stopper.join()


def test_handler_cannot_wait_for_handlers(bench: Bench) -> None:
    bench.start(lambda: bench.log.append(str(bench.loop.wait_until(lambda: False, WAIT))))
    bench.line.fire()
    with pytest.raises(BusyError, match="a handler cannot wait"):
        bench.loop.wait_until(lambda: False, 5 * WAIT)
    with pytest.raises(BusyError):
        bench.loop.stop()


def test_the_loop_is_the_only_waiter(bench: Bench) -> None:
    bench.start(bench.finish)
    bench.line.fire()
    assert bench.finished.wait(WAIT)
    with pytest.raises(BusyError, match="another task or thread is waiting"):
        bench.irq.wait(WAIT)
    bench.stop()
    assert bench.irq.poll() == 0


def test_stop_waits_for_a_handler_and_drops_what_is_queued(bench: Bench) -> None:
    running, go_on = threading.Event(), threading.Event()

    def handler() -> None:
        running.set()
        go_on.wait(WAIT)
        bench.log.append("returned")
        bench.loop.defer(lambda: bench.log.append("late"))

    bench.start(handler)
    bench.line.fire()
    assert running.wait(WAIT)
    stopper = threading.Thread(target=bench.loop.stop)
    stopper.start()
    while not bench.loop._stopping:
        stopper.join(0.001)
    go_on.set()
    stopper.join(WAIT)
    bench.start(lambda: bench.loop.defer(bench.finish))
    bench.line.fire()
    assert bench.stop() == ["returned", "finished"]


def test_handler_that_does_not_return(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    running, go_on = threading.Event(), threading.Event()

    def handler() -> None:
        running.set()
        go_on.wait(WAIT)

    bench.start(handler)
    bench.line.fire()
    assert running.wait(WAIT)
    with monkeypatch.context() as patch:
        patch.setattr(handlers, "STOP_TIMEOUT", 0.0)
        with pytest.raises(DeviceTimeout, match="a handler did not return in 0 s"):
            bench.loop.stop()
    go_on.set()


def test_handler_cannot_leave_its_own_device(bench: Bench) -> None:
    def handler() -> None:
        bench.finished.set()
        bench.loop.stop()

    bench.start(handler)
    bench.line.fire()
    with pytest.raises(BusyError, match="a handler cannot leave the device"):
        bench.stop()


def test_loop_starts_again(bench: Bench) -> None:
    for _ in range(2):
        bench.finished.clear()
        bench.start(lambda: bench.loop.defer(bench.finish))
        bench.line.fire()
        bench.stop()
    assert bench.log == ["finished", "finished"]


def test_a_forgotten_loop_does_not_keep_the_process(bench: Bench) -> None:
    bench.start(lambda: None)
    assert bench.loop._thread is not None
    assert bench.loop._thread.daemon


class Ringer(Bell):
    """Counts interrupts in its handler, and notes the rest in deferred work."""

    def probe(self) -> None:
        super().probe()
        self.rounds = 0
        self.enough = threading.Event()

    @interrupt(0)
    def on_ring(self) -> None:
        self.registers.quiet.write(1)
        self.defer(self.count)

    def count(self) -> None:
        self.rounds += 1
        if self.rounds < 5:
            self.registers.ring.write(1)
        else:
            self.enough.set()


@pytest.mark.parametrize("kind", [IrqKind.INTX, IrqKind.MSI])
def test_driver_reacts_until_it_is_left(kind: IrqKind) -> None:
    with attach(BellModel(), Ringer, irq_kind=kind) as ringer:
        assert ringer.device.irq_kind is kind
        ringer.registers.ring.write(1)
        assert ringer.enough.wait(WAIT)
    assert ringer.rounds == 5


def test_driver_waits_for_its_handlers() -> None:
    with attach(BellModel(), Ringer) as ringer:
        ringer.registers.ring.write(1)
        ringer.wait_until(lambda: ringer.rounds == 5, WAIT, "no five rounds")
        with pytest.raises(DeviceTimeout, match=r"BellModel.*: no sixth round within 0\.010 s"):
            ringer.wait_until(lambda: ringer.rounds == 6, 0.01, "no sixth round")


def test_without_a_reset_the_handlers_go_on() -> None:
    backend = FaultyBackend(VirtualDevice(BellModel()))
    backend.can_reset = False
    attachment = attach(backend, Ringer)
    with pytest.raises(UnsupportedError):
        attachment.reset()
    attachment.driver.registers.ring.write(1)
    assert attachment.driver.enough.wait(WAIT)
    attachment.close()


def test_handlers_go_on_after_reset_and_resume() -> None:
    attachment = attach(BellModel(), Ringer)
    for steps in ([attachment.reset], [attachment.suspend, attachment.resume]):
        for step in steps:
            step()
        attachment.driver.registers.ring.write(1)
        assert attachment.driver.enough.wait(WAIT)
    attachment.close()


def test_handlers_by_interrupt() -> None:
    class Both(Ringer):
        @interrupt(3)
        def on_other(self) -> None: ...

    with attach(BellModel(), Both) as driver:
        assert handlers_of(driver) == {0: driver.on_ring, 3: driver.on_other}


def test_optional_handler_is_left_out_where_its_interrupt_does_not_exist() -> None:
    class Polling(Ringer):
        @interrupt(4, optional=True)
        def on_none(self) -> None: ...

    class Insisting(Ringer):
        @interrupt(4)
        def on_none(self) -> None: ...

    with attach(BellModel(), Polling) as ringer:
        ringer.registers.ring.write(1)
        assert ringer.enough.wait(WAIT)
    with pytest.raises(RegisterValueError, match="no interrupt 4; msi has 4"):
        attach(BellModel(), Insisting)


def test_two_handlers_for_one_interrupt() -> None:
    class Twice(Ringer):
        @interrupt(0)
        def again(self) -> None: ...

    with pytest.raises(LayoutError, match="Twice: two handlers for interrupt 0"):
        attach(BellModel(), Twice)


def test_decorator_without_its_number() -> None:
    def handler(_: object) -> None: ...

    with pytest.raises(LayoutError, match="takes the number of an interrupt, not <function"):
        interrupt(handler)  # type: ignore[arg-type]

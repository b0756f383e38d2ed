"""Interrupts as a driver holds them, in threads and selectors: one waiter, deadlines, the end."""

from __future__ import annotations

import math
import os
import select
import selectors
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.unit.specimens import WAIT, Line
from uspace_drv import irq as irq_module
from uspace_drv.deadline import Deadline
from uspace_drv.errors import (
    BusyError,
    ClosedError,
    DeviceGone,
    DeviceTimeout,
    RegisterValueError,
    UnsupportedError,
)
from uspace_drv.irq import Irq
from uspace_drv.port import IrqKind

pytestmark = pytest.mark.usefixtures("nothing_left", "heeding_ctrl_c")


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def irq(line: Line) -> Iterator[Irq]:
    irq = Irq(line, "bell msi 0", lambda: None)
    yield irq
    irq.close()


@pytest.fixture
def level() -> Iterator[tuple[Line, Irq]]:
    line = Line(IrqKind.INTX)
    irq = Irq(line, "bell intx 0", lambda: None)
    yield line, irq
    irq.close()


class Waiter:
    """A thread that waits for an interrupt; `outcome()` is what came of it."""

    def __init__(self, irq: Irq, line: Line, *, spin: float = 0.0) -> None:
        self._outcome: int | BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(irq, spin))
        line.watched.clear()
        self._thread.start()
        assert line.watched.wait(WAIT)

    def _run(self, irq: Irq, spin: float) -> None:
        try:
            self._outcome = irq.wait(WAIT, spin=spin)
        except BaseException as error:  # noqa: BLE001 - it is what the test looks at
            self._outcome = error

    def outcome(self) -> int | BaseException | None:
        self._thread.join(WAIT)
        return self._outcome


def test_poll_never_blocks_and_counts(line: Line, irq: Irq) -> None:
    assert irq.poll() == 0
    line.fire()
    line.fire()
    assert (irq.poll(), irq.poll(), irq.count) == (2, 0, 2)


@pytest.mark.parametrize("spin", [0.0, WAIT])
def test_wait_returns_what_came(line: Line, irq: Irq, spin: float) -> None:
    line.fire()
    assert irq.wait(0, spin=spin) == 1
    waiter = Waiter(irq, line, spin=spin)
    line.fire()
    assert waiter.outcome() == 1
    assert irq.count == 2


def test_a_word_to_leave_that_is_taken_with_others_is_heard(
    line: Line, irq: Irq, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes after the waiter looked, and before it takes the wake-up for what roused it."""
    closing, take_all = threading.Thread(target=irq.close), line.take

    def take() -> int:
        take_all()
        closing.start()
        assert select.select([irq._wake.fileno()], [], [], WAIT)[0]
        return 0

    line.fire()
    monkeypatch.setattr(line, "take", take)
    with pytest.raises(ClosedError):
        irq.wait(0.5)
    closing.join(WAIT)


def test_an_interrupt_that_comes_twice_is_two(line: Line, irq: Irq) -> None:
    line.fire()
    line.fire()
    assert irq.wait(WAIT) == 2
    with pytest.raises(DeviceTimeout):
        irq.wait(0)


def test_an_interrupt_that_never_comes(irq: Irq) -> None:
    expected = r"bell msi 0: no interrupt within 0\.010 s; 0 came before"
    with pytest.raises(DeviceTimeout, match=expected):
        irq.wait(0.01)


def test_a_timeout_asks_whether_the_device_is_there(line: Line) -> None:
    def gone() -> None:
        raise DeviceGone("bell: reads all ones")

    irq = Irq(line, "bell", gone)
    with pytest.raises(DeviceGone, match="all ones"):
        irq.wait(0)
    irq.close()


@pytest.mark.parametrize("timeout", [-1.0, math.inf, math.nan])
def test_a_wait_needs_a_deadline(irq: Irq, timeout: float) -> None:
    with pytest.raises(RegisterValueError, match="a timeout is"):
        irq.wait(timeout)
    assert irq.poll() == 0  # nobody is left waiting


def test_second_waiter_is_refused_and_the_first_goes_on(line: Line, irq: Irq) -> None:
    waiter = Waiter(irq, line)
    for ask in (irq.poll, lambda: irq.wait(WAIT)):
        with pytest.raises(BusyError, match="bell msi 0: another task or thread is waiting"):
            ask()
    line.fire()
    assert waiter.outcome() == 1
    assert irq.poll() == 0


def test_ctrl_c_in_the_middle_of_a_wait(line: Line, irq: Irq) -> None:
    def interrupt() -> None:
        line.watched.wait(WAIT)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        irq.wait(WAIT)
    thread.join(WAIT)
    line.fire()
    assert irq.wait(WAIT) == 1


def test_ctrl_c_that_the_kernel_hands_to_another_thread(line: Line, irq: Irq) -> None:
    """It does not end the sleep of the waiter, who has to look up now and then."""

    def interrupt() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        line.watched.wait(WAIT)
        os.kill(os.getpid(), signal.SIGINT)

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    thread = threading.Thread(target=interrupt)
    thread.start()
    deadline = Deadline(WAIT)
    with pytest.raises(KeyboardInterrupt):
        irq.wait(WAIT)
    thread.join(WAIT)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    assert deadline.remaining() > WAIT / 2


@pytest.mark.parametrize("spin", [0.0, WAIT])
def test_close_wakes_the_waiter_then_closes(line: Line, irq: Irq, spin: float) -> None:
    waiter = Waiter(irq, line, spin=spin)
    assert line.log == []
    irq.close()
    outcome = waiter.outcome()
    assert isinstance(outcome, ClosedError)
    assert str(outcome) == "bell msi 0 is closed"
    assert line.log == ["close"]


def test_close_goes_on_without_a_waiter_that_does_not_leave(
    line: Line, irq: Irq, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(irq_module, "LEAVE_TIMEOUT", 0.0)
    with pytest.raises(BusyError, match="its waiter did not leave"), irq._as_waiter():
        irq.close()
    assert line.log == ["close"]


@pytest.mark.parametrize(
    "use",
    [
        Irq.poll,
        Irq.fileno,
        Irq.mask,
        Irq.unmask,
        lambda irq: irq.wait(0),
        lambda irq: next(irq.__await__()),
    ],
)
def test_closed_is_closed(irq: Irq, use: Callable[[Irq], object]) -> None:
    irq.close()
    irq.close()
    assert irq.closed
    with pytest.raises(ClosedError, match="bell msi 0 is closed"):
        use(irq)


def test_selector_sees_it(line: Line, irq: Irq) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(irq, selectors.EVENT_READ)
        assert selector.select(0) == []
        line.fire()
        assert [key.fileobj for key, _ in selector.select(0)] == [irq]
        assert irq.poll() == 1
        assert selector.select(0) == []


def test_level_is_armed_again_by_the_next_question(level: tuple[Line, Irq]) -> None:
    line, irq = level
    irq.poll()
    assert line.log == []  # nothing fired, nothing to arm
    line.fire()
    irq.wait(WAIT)
    assert line.log == []  # the driver has not quieted the cause yet
    irq.poll()
    irq.poll()
    assert line.log == ["unmask"]


def test_level_is_armed_again_by_rearm(level: tuple[Line, Irq]) -> None:
    line, irq = level
    irq.rearm()
    assert line.log == []
    line.fire()
    irq.poll()
    irq.rearm()
    irq.rearm()
    assert line.log == ["unmask"]


def test_what_the_driver_masked_stays_masked(level: tuple[Line, Irq]) -> None:
    line, irq = level
    line.fire()
    irq.poll()
    irq.mask()
    irq.poll()
    assert line.log == ["mask"]
    irq.unmask()
    irq.poll()
    assert line.log == ["mask", "unmask"]


def test_a_closed_level_is_not_armed(level: tuple[Line, Irq]) -> None:
    line, irq = level
    line.fire()
    irq.poll()
    irq.close()
    irq.rearm()
    assert line.log == ["close"]


def test_messages_need_no_arming(line: Line, irq: Irq) -> None:
    line.fire()
    irq.poll()
    irq.rearm()
    irq.poll()
    assert line.log == []


def test_a_failing_line_leaves_no_descriptor(line: Line) -> None:
    irq = Irq(line, "bell", lambda: None)

    def broken() -> None:
        line._event.close()
        raise OSError("the kernel says no")

    line.close = broken  # type: ignore[method-assign]
    with pytest.raises(OSError, match="the kernel says no"):
        irq.close()


def test_line_that_software_cannot_fire(irq: Irq) -> None:
    with pytest.raises(UnsupportedError, match="bell msi 0: software cannot fire it this way"):
        irq.trigger()


def test_rousing_without_a_reason_changes_nothing(line: Line, irq: Irq) -> None:
    waiter = Waiter(irq, line)
    irq.rouse()
    line.fire()
    assert waiter.outcome() == 1
    irq.rouse()
    with pytest.raises(DeviceTimeout):
        irq.wait(0.01)
    irq.close()
    irq.rouse()

"""Timers and background work of a model: in order, deterministic when frozen, gone when closed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import pytest

from uspace_drv import BusyError, DeviceTimeout
from uspace_drv.models import clock as clock_module
from uspace_drv.models.clock import Clock

pytestmark = pytest.mark.usefixtures("nothing_left")
WAIT = 10.0


def fail(error: Exception) -> None:
    raise error


@pytest.fixture
def failures() -> list[Exception]:
    return []


@pytest.fixture
def clock(failures: list[Exception]) -> Iterator[Clock]:
    clock = Clock("toy clock", threading.RLock(), failures.append)
    yield clock
    clock.close()


def test_frozen_time_passes_by_advance_alone(clock: Clock) -> None:
    clock.freeze()
    start, log = clock.now(), list[tuple[str, float]]()

    def note(name: str) -> None:
        log.append((name, round(clock.now() - start, 6)))

    def note_and_go_on() -> None:
        note("second")
        clock.after(0.05, lambda: note("nested"))

    clock.after(0.3, lambda: note("third"))
    clock.after(0.1, lambda: note("first"))
    clock.after(0.2, note_and_go_on)
    clock.advance(0.1)
    assert log == [("first", 0.1)]
    clock.advance(0.2)
    assert log == [("first", 0.1), ("second", 0.2), ("nested", 0.25), ("third", 0.3)]
    assert round(clock.now() - start, 6) == 0.3


@pytest.mark.parametrize("before", [0.0137 * step for step in range(20)])
def test_parts_of_a_second_add_up_wherever_time_began(clock: Clock, before: float) -> None:
    clock.freeze()
    clock.advance(before)
    log: list[str] = []
    clock.after(0.3, partial(log.append, "due"))
    clock.advance(0.1)
    clock.advance(0.2)
    assert log == ["due"]


def test_zero_is_at_once(clock: Clock) -> None:
    log: list[int] = []
    clock.after(0.0, lambda: log.append(1))
    assert log == [1]


def test_same_moment_in_the_order_of_asking(clock: Clock) -> None:
    clock.freeze()
    log: list[int] = []
    for number in range(5):
        clock.after(1.0, partial(log.append, number))
    clock.advance(1.0)
    assert log == [0, 1, 2, 3, 4]


def test_cancelled_timer_is_not_called(clock: Clock) -> None:
    clock.freeze()
    clock.after(1.0, lambda: pytest.fail("it was cancelled")).cancel()
    clock.advance(2.0)


def test_real_time_is_kept_by_a_thread(clock: Clock) -> None:
    done = threading.Event()
    names: list[str] = []

    def note() -> None:
        names.append(threading.current_thread().name)
        done.set()

    clock.after(0.002, note)
    clock.after(60.0, lambda: pytest.fail("too early"))
    assert done.wait(WAIT)
    assert names == ["toy clock"]


def test_real_time_cannot_be_advanced(clock: Clock) -> None:
    with pytest.raises(BusyError, match="toy clock: time is real; freeze"):
        clock.advance(1.0)


def test_earlier_timer_wakes_the_thread(clock: Clock) -> None:
    done = threading.Event()
    clock.after(60.0, lambda: pytest.fail("too early"))
    clock.after(0.001, done.set)
    assert done.wait(WAIT)


def test_work_runs_without_the_lock_and_in_order() -> None:
    turn, done = threading.RLock(), threading.Event()
    clock = Clock("toy clock", turn, lambda _: None)
    log: list[int] = []
    free: list[bool] = []

    def look(number: int) -> int:
        free.append(turn.acquire(timeout=WAIT))
        turn.release()
        return number

    for number in range(3):
        clock.work(partial(look, number), log.append)
    clock.work(lambda: None, lambda _: done.set())
    assert done.wait(WAIT)
    assert (log, free) == ([0, 1, 2], [True] * 3)
    clock.close()


def test_frozen_work_is_delivered_by_advance(clock: Clock) -> None:
    clock.freeze()
    log: list[int] = []
    clock.work(lambda: 6 * 7, log.append)
    clock.advance(0.0)
    assert log == [42]


def test_what_fails_in_a_thread_is_reported(clock: Clock, failures: list[Exception]) -> None:
    timer, work = threading.Event(), threading.Event()
    clock.after(0.001, lambda: fail(KeyError()))
    clock.after(0.002, timer.set)
    clock.work(lambda: fail(IndexError()), lambda _: None)
    clock.work(lambda: None, lambda _: work.set())
    assert timer.wait(WAIT)
    assert work.wait(WAIT)
    assert sorted(type(each).__name__ for each in failures) == ["IndexError", "KeyError"]


def test_what_fails_in_frozen_time_is_raised(clock: Clock) -> None:
    clock.freeze()
    clock.after(0.1, lambda: fail(KeyError()))
    with pytest.raises(KeyError):
        clock.advance(1.0)


def test_clear_forgets_timers_and_results(clock: Clock) -> None:
    clock.freeze()
    started, go = threading.Event(), threading.Event()

    def slow() -> None:
        started.set()
        go.wait(WAIT)

    clock.after(0.1, lambda: pytest.fail("it was forgotten"))
    clock.work(slow, lambda _: pytest.fail("it was forgotten"))
    started.wait(WAIT)
    clock.clear()
    go.set()
    clock.advance(1.0)


def test_work_that_does_not_return_is_told(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_module, "STOP_TIMEOUT", 0.01)
    started, go = threading.Event(), threading.Event()

    def hang() -> None:
        started.set()
        go.wait(WAIT)

    clock.work(hang, lambda _: None)
    started.wait(WAIT)
    with pytest.raises(DeviceTimeout, match=r"toy clock work: it did not end in 0\.01 s"):
        clock.close()
    go.set()
    for thread in threading.enumerate():
        if thread.name == "toy clock work":
            thread.join(WAIT)


def test_closed_clock_works_again(clock: Clock) -> None:
    clock.after(60.0, lambda: None)
    clock.close()
    assert clock.due_in() is None
    done = threading.Event()
    clock.after(0.001, done.set)
    assert done.wait(WAIT)

"""Waiting for a descriptor: ready, woken, timed out, interrupted, misused."""

from __future__ import annotations

import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import pytest

from uspace_drv.errors import HostError
from uspace_drv.native import wait_readable

SPINS = pytest.mark.parametrize("spin", [0.0, 30.0], ids=["sleep", "spin"])


@pytest.fixture
def event() -> Iterator[int]:
    fd = os.eventfd(0, os.EFD_CLOEXEC)
    yield fd
    os.close(fd)


@pytest.fixture
def wake() -> Iterator[int]:
    fd = os.eventfd(0, os.EFD_CLOEXEC)
    yield fd
    os.close(fd)


@contextmanager
def alarm(seconds: float, error: type[BaseException] | None) -> Iterator[list[int]]:
    """A signal that comes once while something blocks; its handler may raise."""
    seen: list[int] = []

    def handler(number: int, _frame: FrameType | None) -> None:
        seen.append(number)
        if error:
            raise error

    old = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield seen
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


@contextmanager
def no_thread_switches() -> Iterator[None]:
    """Keep the GIL until this thread gives it away."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@SPINS
def test_readable_at_once(event: int, spin: float) -> None:
    os.eventfd_write(event, 3)
    assert wait_readable(event, -1, 0.0, spin)
    assert wait_readable(event, -1, 30.0, spin)
    assert os.eventfd_read(event) == 3, "waiting must not consume"


@SPINS
def test_readable_from_another_thread(event: int, wake: int, spin: float) -> None:
    """The writer gets the GIL only when the waiter lets go of it."""

    def write_when(go: threading.Event, fd: int) -> None:
        go.wait()
        os.eventfd_write(fd, 1)

    for fd in (event, wake):
        go = threading.Event()
        writer = threading.Thread(target=write_when, args=(go, fd))
        writer.start()
        with no_thread_switches():
            go.set()
            assert wait_readable(event, wake, 5.0, spin)
        writer.join()
        os.eventfd_read(fd)


@pytest.mark.parametrize(("timeout", "spin"), [(0.0, 0.0), (0.03, 0.0), (0.03, 9.0), (0.03, 0.01)])
def test_false_after_the_timeout_and_not_before(event: int, timeout: float, spin: float) -> None:
    start = time.monotonic()
    assert wait_readable(event, -1, timeout, spin) is False
    assert time.monotonic() - start >= timeout


def test_spinning_keeps_the_processor_and_sleeping_does_not(event: int) -> None:
    def busy(spin: float) -> float:
        before = time.thread_time()
        wait_readable(event, -1, 0.1, spin)
        return time.thread_time() - before

    assert busy(0.1) > 5 * busy(0.0)


def test_integers_are_seconds_too(event: int) -> None:
    assert wait_readable(event, -1, 0, 0) is False


@SPINS
def test_a_handler_that_raises_ends_the_wait(event: int, spin: float) -> None:
    start = time.monotonic()
    with alarm(0.02, KeyboardInterrupt) as seen, pytest.raises(KeyboardInterrupt):
        wait_readable(event, -1, 30.0, spin)
    assert seen == [signal.SIGALRM]
    assert time.monotonic() - start < 15, "the handler ran only after the wait"


@SPINS
def test_a_handler_that_returns_does_not_shorten_it(event: int, spin: float) -> None:
    start = time.monotonic()
    with alarm(0.02, None) as seen:
        assert wait_readable(event, -1, 0.1, spin) is False
    assert time.monotonic() - start >= 0.1
    assert seen == [signal.SIGALRM]


def test_a_hang_up_counts_as_readable() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    assert wait_readable(reader, -1, 30.0, 0.0)
    assert select.select([reader], [], [], 0)[0] == [reader]
    os.close(reader)


def test_a_closed_descriptor_is_an_error() -> None:
    fd = os.eventfd(0)
    os.close(fd)
    with pytest.raises(HostError, match=f"file descriptor {fd} is not open") as seen:
        wait_readable(fd, -1, 30.0, 0.0)
    assert seen.value.errno == 9


@pytest.mark.parametrize("seconds", [-0.001, math.inf, math.nan, -math.inf])
def test_times_are_finite_and_not_negative(event: int, seconds: float) -> None:
    with pytest.raises(ValueError, match=r"timeout is .*, expected 0 or more seconds"):
        wait_readable(event, -1, seconds, 0.0)
    with pytest.raises(ValueError, match=r"spin is .*, expected 0 or more seconds"):
        wait_readable(event, -1, 0.0, seconds)


def test_a_huge_time_does_not_overflow(event: int) -> None:
    os.eventfd_write(event, 1)
    assert wait_readable(event, -1, 1e300, 1e300)


def test_descriptors_are_checked(event: int) -> None:
    for fd, wake_fd, words in [(-1, -1, "fd is -1, expected 0"), (event, -2, "wake_fd is -2")]:
        with pytest.raises(ValueError, match=words):
            wait_readable(fd, wake_fd, 0.0, 0.0)
    with pytest.raises(TypeError):
        wait_readable("0", -1, 0.0, 0.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"4 arguments \(2 given\)"):
        wait_readable(event, -1)  # type: ignore[call-arg]

"""The way out: every step runs once, whatever fails, whoever interrupts, however many call it."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from types import FrameType
from typing import Any

import pytest

from tests.unit.specimens import WAIT
from uspace_drv import DeviceGone, teardown
from uspace_drv.teardown import Teardown

pytestmark = pytest.mark.usefixtures("nothing_left", "heeding_ctrl_c")


@pytest.fixture
def done() -> list[str]:
    return []


@pytest.fixture
def pile(done: list[str]) -> Teardown:
    """Three steps that note their name."""
    pile = Teardown()
    for name in ("lock", "file", "mapping"):
        pile.push(f"give back the {name}", partial(done.append, name))
    return pile


def fail(error: BaseException) -> Callable[[], None]:
    def step() -> None:
        raise error

    return step


def test_runs_from_the_top_once(pile: Teardown, done: list[str]) -> None:
    pile.run()
    pile.run()
    assert done == ["mapping", "file", "lock"]


def test_first_failure_is_raised_and_carries_the_others(pile: Teardown, done: list[str]) -> None:
    pile.push("second", fail(OSError("no disk")))
    pile.push("first", fail(ValueError("bad")))
    with pytest.raises(ValueError, match="bad") as caught:
        pile.run()
    assert done == ["mapping", "file", "lock"]
    assert caught.value.__notes__ == [
        "while leaving: first",
        "then, while leaving: second: OSError: no disk",
    ]


def test_error_that_is_on_its_way_takes_the_notes(pile: Teardown, done: list[str]) -> None:
    error = RuntimeError("the reason")
    pile.push("top", fail(OSError("no disk")))
    pile.run(error)
    assert done == ["mapping", "file", "lock"]
    assert error.__notes__ == ["then, while leaving: top: OSError: no disk"]


def test_a_device_that_is_gone_is_told_once(pile: Teardown) -> None:
    error = DeviceGone("the server closed the connection")
    pile.push("second", fail(OSError("no disk")))
    pile.push("first", fail(DeviceGone("the peer closed the connection")))
    pile.run(error)
    assert error.__notes__ == ["then, while leaving: second: OSError: no disk"]


def test_even_system_exit_skips_no_step(pile: Teardown, done: list[str]) -> None:
    pile.push("top", fail(SystemExit(3)))
    with pytest.raises(SystemExit):
        pile.run()
    assert done == ["mapping", "file", "lock"]


def test_ctrl_c_in_a_step_waits_for_the_last_one(pile: Teardown, done: list[str]) -> None:
    pile.push("top", lambda: signal.raise_signal(signal.SIGINT))
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        pile.run()
    assert done == ["mapping", "file", "lock"]
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_is_not_lost_in_another_error(pile: Teardown, done: list[str]) -> None:
    pile.push("ctrl-c", lambda: signal.raise_signal(signal.SIGINT))
    pile.push("top", fail(OSError("no disk")))
    with pytest.raises(KeyboardInterrupt) as caught:
        pile.run()
    assert done == ["mapping", "file", "lock"]
    assert isinstance(caught.value.__context__, OSError)


@contextmanager
def ctrl_c_at_line(number: int) -> Iterator[None]:
    """Send SIGINT before the line of teardown.py that is executed as `number`-th."""
    lines = count(1)

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != teardown.__file__:
            return None
        if event == "line" and next(lines) == number:
            signal.raise_signal(signal.SIGINT)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def interrupted_at_line(number: int) -> bool:
    """Take a way out of three steps, again if nothing had begun; whether the line was reached."""
    done: list[int] = []
    pile = Teardown()
    for step in range(3):
        pile.push("a step", partial(done.append, step))
    interrupted = False
    try:
        with ctrl_c_at_line(number):
            pile.run()
    except KeyboardInterrupt:
        interrupted = True
        assert done in ([], [2, 1, 0])
        pile.run()
    assert done == [2, 1, 0]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    return interrupted


def test_ctrl_c_at_any_line_loses_no_step() -> None:
    """Either nothing has begun, and the way out can be taken again, or every step runs once."""
    number = 1
    while interrupted_at_line(number):
        number += 1
    assert number > 20


def test_sigterm_by_default_ends_the_process_after_the_last_step() -> None:
    code = """
        import signal
        from uspace_drv.teardown import Teardown
        pile = Teardown()
        pile.push("last", lambda: print("last step", flush=True))
        pile.push("first", lambda: signal.raise_signal(signal.SIGTERM))
        pile.run()
        print("not reached")
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ran.stdout, ran.returncode) == ("last step\n", -signal.SIGTERM)


def test_handler_that_a_step_puts_in_place_stays(pile: Teardown) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    before = signal.getsignal(signal.SIGTERM)
    pile.push("top", ignore)
    try:
        pile.run()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_second_thread_waits_for_the_first(pile: Teardown, done: list[str]) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def linger() -> None:
        inside.set()
        go_on.wait(WAIT)
        done.append("top")

    pile.push("top", linger)
    first = threading.Thread(target=pile.run)
    first.start()
    inside.wait(WAIT)
    second = threading.Thread(target=pile.run)
    second.start()
    second.join(0.05)  # long enough to go wrong
    assert second.is_alive()
    go_on.set()
    first.join(WAIT)
    second.join(WAIT)
    assert done == ["top", "mapping", "file", "lock"]


def test_works_in_any_thread(pile: Teardown, done: list[str]) -> None:
    thread = threading.Thread(target=pile.run)
    thread.start()
    thread.join(WAIT)
    assert done == ["mapping", "file", "lock"]

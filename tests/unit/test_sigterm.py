"""SIGTERM takes the way out, also of attachments that are nested, and is put back afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from tests.unit.specimens import WAIT, Bell, BellModel
from uspace_drv import attach

pytestmark = pytest.mark.usefixtures("nothing_left")

PROGRAM = """
    import signal, sys
    from tests.unit.specimens import Bell, BellModel
    from uspace_drv import attach

    class Loud(Bell):
        def remove(self):
            print("removed", self.device.address, flush=True)

    def hang(bell):
        print("waiting", flush=True)
        bell.device.irq(0).wait(60)
"""


def terminate(rest: str) -> tuple[str, int]:
    """Run a program until it waits, send SIGTERM; what else it said and how it ended."""
    code = textwrap.dedent(PROGRAM) + textwrap.dedent(rest)
    command = [sys.executable, "-c", code]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        before = ""
        for line in process.stdout:
            if line == "waiting\n":
                break
            before += line
        process.terminate()
        said, _ = process.communicate(timeout=60)
        return before + said, process.returncode


def test_the_way_out_is_taken() -> None:
    said, code = terminate("""
        with attach(BellModel("a"), Loud) as a:
            hang(a)
    """)
    assert (said, code) == ("removed a\n", 128 + signal.SIGTERM)


def test_nested_attachments_are_both_left_also_if_the_outer_one_was_first() -> None:
    said, code = terminate("""
        outer = attach(BellModel("outer"), Loud)
        with attach(BellModel("inner"), Loud) as inner:
            outer.close()
            hang(inner)
    """)
    assert (said, code) == ("removed outer\nremoved inner\n", 128 + signal.SIGTERM)


def test_a_program_with_its_own_idea_keeps_it() -> None:
    said, code = terminate("""
        def own(number, frame):
            print("own idea", flush=True)
            sys.exit(7)
        signal.signal(signal.SIGTERM, own)
        with attach(BellModel("a"), Loud) as a:
            hang(a)
    """)
    assert (said, code) == ("own idea\nremoved a\n", 7)


def test_default_comes_back_with_the_last_one() -> None:
    first, second = attach(BellModel(), Bell), attach(BellModel(), Bell)
    first.close()
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    second.close()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_failed_attach_puts_it_back() -> None:
    class Failing(Bell):
        def probe(self) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        attach(BellModel(), Failing)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_handler_that_came_later_stays() -> None:
    attachment = attach(BellModel(), Bell)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        attachment.close()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_other_threads_attach_and_leave_without_it() -> None:
    def work() -> None:
        with attach(BellModel(), Bell):
            handlers.append(signal.getsignal(signal.SIGTERM))

    handlers: list[object] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(WAIT)
    assert handlers == [signal.SIG_DFL]


def test_left_in_another_thread_is_taken_up_again() -> None:
    attachment = attach(BellModel(), Bell)
    thread = threading.Thread(target=attachment.close)
    thread.start()
    thread.join(WAIT)
    attach(BellModel(), Bell).close()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

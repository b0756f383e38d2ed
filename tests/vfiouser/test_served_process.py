"""The process of a served model: no signal to our group reaches it, and it does not outlive us."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

from uspace_drivers.edu import EduModel
from uspace_drv.testing import with_parent
from uspace_drv.testing.served import ServedModel

PATIENCE = 30.0
PROGRAM = """
import signal
from uspace_drivers.edu import EduModel
from uspace_drv.testing.served import ServedModel
print(ServedModel(EduModel, quiet=True).start().pid, flush=True)
signal.pause()
"""


def test_ctrl_c_in_a_terminal_does_not_reach_it() -> None:
    with ServedModel(EduModel) as served:
        assert os.getsid(served.pid) == served.pid


def test_it_ends_with_a_parent_that_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        server = os.pidfd_open(int(parent.stdout.readline()))
        try:
            parent.kill()
            parent.wait()
            assert select.select([server], [], [], PATIENCE)[0], "it outlives its parent"
        except BaseException:
            signal.pidfd_send_signal(server, signal.SIGKILL)
            raise
        finally:
            os.close(server)


def test_a_parent_that_is_gone_already_wants_nothing() -> None:
    words = [sys.executable, "-m", with_parent.__name__, "1", "serve", "no model", "/no/path"]
    done = subprocess.run(words, capture_output=True, check=False, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_model_may_be_named_as_the_command_line_does() -> None:
    with ServedModel("edu?dma_bits=32") as served:
        assert served.path.exists()

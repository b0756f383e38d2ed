"""QEMU as a child process: its output as it comes, a deadline, and an end on every way out."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from uspace_drv.errors import UspaceError

Sink = Callable[[bytes], object]
"""Takes the command's output piece by piece, as it comes."""

_LOG_LINES = 25
_PIECE = 65536


class GuestFailed(UspaceError):
    """The guest hung, panicked or never booted; the message ends with the end of its log."""

    def __init__(self, reason: str, output: str, kernel_log: str) -> None:
        end = "\n".join(kernel_log.splitlines()[-_LOG_LINES:]) or "(it is empty)"
        super().__init__(f"guest: {reason}; the end of its kernel log:\n{end}")
        self.output = output
        self.kernel_log = kernel_log


def supervise(
    command: Callable[[int], Sequence[str]], errors: Path, timeout: float, sink: Sink | None
) -> tuple[int, bytes, bool]:
    """Run `command`, given the descriptor to write to, for at most `timeout` seconds.

    What the program itself says goes to the file `errors`. Returns its exit code, what it wrote
    to the descriptor, and whether it ended by itself; it is dead in any case.
    """
    deadline = time.monotonic() + timeout
    output = bytearray()
    with ExitStack() as cleanup:
        read_end, write_end = os.pipe()
        cleanup.callback(os.close, read_end)
        try:
            process = cleanup.enter_context(_child(command(write_end), write_end, errors))
        finally:
            os.close(write_end)
        for piece in _pieces(read_end, deadline):
            output += piece
            if sink is not None:
                sink(piece)
        try:
            code = process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return 0, bytes(output), False
    return code, bytes(output), True


@contextmanager
def _child(
    command: Sequence[str], descriptor: int, errors: Path
) -> Iterator[subprocess.Popen[bytes]]:
    with errors.open("wb") as log:
        # A session of its own: Ctrl-C reaches this process only, which then ends the child.
        process = subprocess.Popen(
            command, pass_fds=[descriptor], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _pieces(descriptor: int, deadline: float) -> Iterator[bytes]:
    """Yield what comes out of a pipe until its other end is closed or the deadline has passed."""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            piece = os.read(descriptor, _PIECE)
            if not piece:
                return
            yield piece
            if time.monotonic() > deadline:
                return  # a command that never stops printing has a deadline too

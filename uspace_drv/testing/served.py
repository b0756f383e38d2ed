"""A model in a process of its own, behind a vfio-user socket: what `--via vfio-user` tests on."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Self

from uspace_drv.errors import DeviceTimeout, HostError
from uspace_drv.models import DeviceModel
from uspace_drv.native import wait_readable
from uspace_drv.testing import with_parent

START_TIMEOUT = 30.0
"""Seconds until it listens: a machine may be busy, and a model may take its time."""

LEAVE_TIMEOUT = 10.0
"""Seconds that the process gets to end."""


class ServedModel:
    """`uspace serve` on a model, from `start()` to `close()`, or until the starting thread ends.

    `model` is a class that can be imported, or what `uspace serve` takes. `address` is what
    `attach` takes. Everybody who attaches gets the same model, one at a time. What the server says
    of its clients goes to standard error, unless it is to be `quiet`.
    """

    def __init__(self, model: type[DeviceModel] | str, *, quiet: bool = False) -> None:
        if not isinstance(model, str):
            model = f"{model.__module__}:{model.__qualname__}"
        self._name = model
        self._folder = tempfile.TemporaryDirectory(prefix="uspace-")
        self.path = Path(self._folder.name, "socket")
        self.address = f"vfio-user:{self.path}"
        self._process: subprocess.Popen[str] | None = None
        self._said = Path(self._folder.name, "said") if quiet else None

    @property
    def pid(self) -> int:
        """The process, 0 when it was not started."""
        return self._process.pid if self._process else 0

    def start(self, *options: str) -> Self:
        """Start the process and wait until it listens; `options` are those of `uspace serve`."""
        words = ["serve", self._name, str(self.path), *options]
        command = [sys.executable, "-m", with_parent.__name__, str(os.getpid()), *words]
        with self._errors() as errors:
            # A session of its own: Ctrl-C reaches this process only, which then ends the server.
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
            )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.close()
            raise
        return self

    def _wait_until_ready(self, process: subprocess.Popen[str]) -> None:
        """Its first line, which comes in one piece, says that it listens."""
        if process.stdout is None:
            return
        with process.stdout as output:
            if not wait_readable(output.fileno(), -1, START_TIMEOUT, 0.0):
                raise DeviceTimeout(
                    f"uspace serve {self._name} does not listen after {START_TIMEOUT:g} s"
                )
            if not output.readline():
                said = "is in its output" if self._said is None else f"is: {self._said.read_text()}"
                raise HostError(f"uspace serve {self._name} ended; its reason {said}")

    def _errors(self) -> AbstractContextManager[IO[bytes] | None]:
        """Where the process says what is wrong; None: where this one does."""
        return nullcontext() if self._said is None else self._said.open("wb")

    def close(self) -> None:
        """End the process. Twice is fine."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(LEAVE_TIMEOUT)
            finally:
                process.kill()
                process.wait()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

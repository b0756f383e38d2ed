"""Ctrl-C and SIGTERM in the middle of a wait: the driver is removed, the exit code says which."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SILENT = '''
"""A device whose interrupt never comes."""
from uspace_drv import Driver, IrqKind, PciId, Plugin
from uspace_drv.models import DeviceModel, PciIdentity


class Silent(Driver):
    """Waits."""

    id_table = [PciId(0x1234, 1)]

    def remove(self) -> None:
        print("removed", flush=True)

    def listen(self) -> int:
        print("listening", flush=True)
        return self.device.irq(0).wait(50)


class SilentModel(DeviceModel):
    identity = PciIdentity(0x1234, 1)
    irqs = {IrqKind.MSI: 1}


plugin = Plugin(driver=Silent, model=SilentModel)
'''


@pytest.mark.parametrize(
    ("number", "code", "words"), [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, 143, "")]
)
def test_a_wait_is_left_the_usual_way(
    number: signal.Signals, code: int, words: str, add_plugin: Callable[[str, str], Path]
) -> None:
    folder = add_plugin("silent", SILENT)
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "uspace_drv", "run", "silent", "virtual:silent", "listen"],
        env={**os.environ, "PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    assert (output, errors, process.returncode) == ("removed\n", words, code)

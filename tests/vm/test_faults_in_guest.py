"""Faults that a kernel shows: one boot of the kernel built here, which has every way in.

In there run kills_in_guest.py, faults_in_guest.py and tests/backends/test_on_faults.py by two ways;
out here, QEMU is told to unplug what they ask for.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from uspace_drv.testing.guest import Guest, order, own_kernel

pytestmark = pytest.mark.timeout(1500)

RESULTS = os.environ.get("RESULTS")  # scripts/test counts what ran in the guest
EDU = "0000:00:04.0"
CARDS = range(6, 12)
DEVICES = (
    "edu,addr=4",
    "pcie-pci-bridge,id=bridge,addr=5",
    "edu,bus=bridge,addr=1",
    "e1000,bus=bridge,addr=2",
    "nvme,serial=faults,addr=0xc",
    *(f"pcie-root-port,id=slot{slot},chassis={slot},addr={slot:#x}" for slot in CARDS),
    *(f"virtio-rng-pci,bus=slot{slot},id=card{slot}" for slot in CARDS),
)
TROUBLE = re.compile(
    r"(BUG|Oops|WARNING|general protection fault|Call Trace|blocked for more than|refcount)"
    r".*"
)


class Unplugger:
    """Reads what the guest prints, and pulls the cards that it asks for."""

    def __init__(self, monitor: Path) -> None:
        self._monitor = monitor
        self._line = b""

    def __call__(self, piece: bytes) -> None:
        *lines, self._line = (self._line + piece).split(b"\n")
        for line in lines:
            asked = re.fullmatch(rb"please unplug (card\d+)\.", line.strip())
            if asked:
                order(self._monitor, "device_del", id=asked[1].decode())


def test_the_unplugger_hears_what_comes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(
        f"{__name__}.order", lambda monitor, command, **words: told.append(words["id"])
    )
    unplugger = Unplugger(Path("monitor"))
    for piece in (b"..plea", b"se\nplease unplug ca", b"rd7", b".\nplease unplug card8.\r\n"):
        unplugger(piece)
    assert told == ["card7", "card8"]


def test_faults_in_the_guest(tmp_path: Path) -> None:
    results = Path(RESULTS or tmp_path)
    monitor = tmp_path / "monitor"
    guest = Guest(
        devices=DEVICES, iommu="intel", kernel=own_kernel(), shares=[results], monitor=monitor
    )
    result = guest.run(
        ["sh", "-c", script(results)],
        timeout=1400.0,
        environment={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        sink=Unplugger(monitor),
    )
    print(result.output)
    assert result.exit_code == 0, f"{result.output}\n{result.kernel_log[-2000:]}"
    _, _, log = result.kernel_log.partition("uspace guest: ready")
    assert log
    assert [found[0] for found in TROUBLE.finditer(log)] == []


def script(results: Path) -> str:
    """Words for the shell: each run of pytest; all are run, and one that fails is enough.

    Without coverage, which would make a killed process twice as slow and has nothing from it.
    """
    runs = {
        "faults": ["tests/vm/kills_in_guest.py", "tests/vm/faults_in_guest.py"],
        **{
            f"faults-{via}": ["--device", EDU, "--via", via, "--bind", ON_FAULTS]
            for via in ("vfio-cdev", "vfio-type1")
        },
    }
    lines = ["code=0"]
    for name, words in runs.items():
        command = shlex.join(
            [
                sys.executable, "-m", "pytest", "-q", "-s", "-p", "pytest_timeout",
                "-p", "no:cacheprovider",
                f"--junitxml={results / f'{name}.xml'}", *words,
            ]
        )  # fmt: skip
        lines.append(f"{command} || code=1")
    return "\n".join([*lines, "exit $code"])


ON_FAULTS = "tests/backends/test_on_faults.py"

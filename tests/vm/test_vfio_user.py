"""Our models in QEMU's machine: one under the kernel's own driver, one under ours through VFIO.

Two boots: the first machine is killed in the middle of its work, the second has the same servers.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from uspace_drivers.idio16 import Idio16Model
from uspace_drv.testing.guest import Guest, GuestFailed
from uspace_drv.vfiouser.server import Server

pytestmark = pytest.mark.timeout(420)

EDU, CARD = "0000:00:10.0", "0000:00:11.0"
RESULTS = os.environ.get("RESULTS")  # scripts/test counts what ran in the guest


class WatchedCard(Idio16Model):
    """A card that remembers which of its outputs have ever been on."""

    seen = 0

    def follow_wires(self) -> None:
        self.seen |= self.outputs
        super().follow_wires()


@dataclass(frozen=True)
class Served:
    edu: subprocess.Popen[bytes]
    card: WatchedCard
    card_server: Server
    sockets: tuple[Path, Path]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("sockets")
    sockets = (folder / "edu", folder / "card")
    command = [sys.executable, "-m", "uspace_drv", "serve", "edu", str(sockets[0])]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as edu:
        try:
            assert edu.stdout is not None
            assert edu.stdout.readline()
            card = WatchedCard(loopback=True)
            with closing(card), Server(card, sockets[1]) as server:
                yield Served(edu, card, server, sockets)
        finally:
            edu.terminate()


def test_servers_outlive_a_machine_that_is_killed(served: Served) -> None:
    def kill(_piece: bytes) -> None:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        (machine,) = {int(word) for word in children} - {served.edu.pid}
        os.kill(machine, signal.SIGKILL)

    work = f"while cat /sys/bus/pci/devices/{EDU}/config >/dev/null; do :; done & echo up; wait"
    guest = Guest(vfio_user=served.sockets, memory="512M")
    with pytest.raises(GuestFailed, match=r"QEMU ended \(exit code -9\)"):
        guest.run(["sh", "-c", work], timeout=120.0, sink=kill)
    assert served.edu.poll() is None


def test_drivers_in_the_guest(served: Served, tmp_path: Path) -> None:
    results = Path(RESULTS or tmp_path)
    guest = Guest(
        vfio_user=served.sockets, iommu="intel", modules=["gpio-pci-idio-16"], shares=[results]
    )
    tests = ("tests/drivers/test_edu.py", "tests/vm/gpio_in_guest.py")
    result = guest.run(
        [
            sys.executable, "-m", "coverage", "run", "-m", "pytest", "-q",
            "-p", "pytest_timeout", "--timeout", "120", f"--junitxml={results / 'vfio-user.xml'}",
            "--device", EDU, "--via", "vfio", "--bind", *tests,
        ],
        timeout=400.0,
        environment={
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "COVERAGE_FILE": str(results / ".coverage.vfio-user"),
        },
    )  # fmt: skip
    assert result.exit_code == 0, f"{result.output}\n{result.kernel_log[-2000:]}"
    assert served.card.seen == 0xFFFF
    assert list(served.card_server.complaints) == []
    assert served.edu.poll() is None

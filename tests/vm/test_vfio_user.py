"""Our models in QEMU's machine: two under the kernel's own drivers, one under ours through VFIO.

Two boots: the first machine is killed in the middle of its work, the second has the same servers.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from uspace_drivers.idio16 import Idio16Model
from uspace_drivers.virtio_rng import VirtioRngModel
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


class RecordedRng(VirtioRngModel):
    """It remembers what it has given."""

    def __init__(self, name: str | None = None) -> None:
        self.given = bytearray()
        super().__init__(name)

    def draw(self, size: int) -> bytes:
        data = super().draw(size)
        self.given += data
        return data


@dataclass(frozen=True)
class Served:
    edu: subprocess.Popen[bytes]
    card: WatchedCard
    rng: RecordedRng
    servers: tuple[Server, ...]
    sockets: tuple[Path, Path, Path]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("sockets")
    sockets = (folder / "edu", folder / "card", folder / "rng")
    command = [sys.executable, "-m", "uspace_drv", "serve", "edu", str(sockets[0])]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as edu:
        try:
            assert edu.stdout is not None
            assert edu.stdout.readline()
            card, rng = WatchedCard(loopback=True), RecordedRng()
            with ExitStack() as stack:
                for model in (card, rng):
                    stack.enter_context(closing(model))
                servers = tuple(
                    stack.enter_context(Server(model, path))
                    for model, path in zip((card, rng), sockets[1:], strict=True)
                )
                yield Served(edu, card, rng, servers, sockets)
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
        vfio_user=served.sockets, iommu="intel", modules=["gpio-pci-idio-16", "virtio-rng"],
        shares=[results, tmp_path],
    )  # fmt: skip
    tests = ("tests/drivers/test_edu.py", "tests/vm/gpio_in_guest.py", "tests/vm/hwrng_in_guest.py")
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
            "RANDOM_BYTES": str(tmp_path / "random"),
        },
    )  # fmt: skip
    assert result.exit_code == 0, f"{result.output}\n{result.kernel_log[-2000:]}"
    assert served.card.seen == 0xFFFF
    check_random(served.rng, (tmp_path / "random").read_bytes())
    assert [each for server in served.servers for each in server.complaints] == []
    assert served.edu.poll() is None


def check_random(rng: RecordedRng, received: bytes) -> None:
    """All that the guest's /dev/hwrng gave is what the model wrote to its memory."""
    pieces = {received[start : start + 8] for start in range(0, len(received), 8)}
    assert len(pieces) == 512
    assert all(piece in rng.given for piece in pieces)

"""Not one wrong byte: random sizes, places, depths and queues, with a checksum in every block.

On the model in this process with both kinds of rings, on the target that the options name (a model
behind vfio-user, QEMU's device in a guest), and across the death of the device. These are short;
`uspace run nvme ADDR soak` goes on for as long as one likes.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uspace_drivers.nvme import Nvme, NvmeModel
from uspace_drivers.nvme.verbs.ledger import Ledger
from uspace_drivers.nvme.verbs.soak import Plan, Soak, SoakFacts
from uspace_drivers.nvme.verbs.soak_worker import Worker
from uspace_drv import DeviceError, attach
from uspace_drv.native import wait_readable
from uspace_drv.testing import Target
from uspace_drv.testing.pytest_plugin import parametrize_targets

STEPS = 60
"""Of each thread; one of them is up to 256 commands."""

REGION = 1500
"""Blocks."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize_targets(metafunc, "nvme_target", NvmeModel)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"block_size": 4096, "mdts": 1},
    {"sgl": True, "mdts": 2},
    {"cmb": "256K", "shadow": True},
    {"latency": 0.0002},
]


@pytest.mark.parametrize("rings", ["python", "native"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda each: "-".join(each) or "plain")
def test_on_the_model(rings: str, options: dict[str, Any]) -> None:
    model = NvmeModel("nvme", rings=rings, **{"size": "32M", "mdts": 3, **options})
    with attach(model, Nvme) as nvme:
        soak(nvme, workers=3)
    assert not model.complaints


def test_on_the_target(nvme_target: Target) -> None:
    with nvme_target.attach(Nvme) as nvme:
        found = soak(nvme, workers=2)
        assert min(found.written, found.checked, found.writes, found.reads) > 0


def soak(nvme: Nvme, workers: int) -> SoakFacts:
    """Do a short one."""
    plan = Plan(seed=1, workers=workers, size=workers << 20)
    return Soak(nvme.controller, nvme.queues, nvme.namespaces[1], plan).run(1e6, steps=STEPS)


@contextmanager
def served(model: str, socket: Path) -> Iterator[subprocess.Popen[str]]:
    """A model in a process of its own."""
    command = [sys.executable, "-m", "uspace_drv", "serve", model, str(socket)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert wait_readable(process.stdout.fileno(), -1, 30.0, 0.0)
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("rings", ["python", "native"])
def test_a_power_cut(rings: str, tmp_path: Path) -> None:
    """What was flushed is there after the model was killed in the middle of other writes."""
    model = f"uspace_drivers.nvme:NvmeModel?size=8M&rings={rings}&medium={tmp_path / 'medium'}"
    with served(model, tmp_path / "first") as process:
        flushed = until_the_power_cut(f"vfio-user:{tmp_path / 'first'}", process)
    with (
        served(model, tmp_path / "second"),
        attach(f"vfio-user:{tmp_path / 'second'}", Nvme) as nvme,
    ):
        flushed.namespace = nvme.namespaces[1]
        flushed.audit()
        soak(nvme, workers=1)


def until_the_power_cut(address: str, process: subprocess.Popen[str]) -> Ledger:
    """Write and flush, then write elsewhere until the device dies; what was flushed."""
    with pytest.raises(DeviceError), attach(address, Nvme) as nvme:  # noqa: PT012
        namespace = nvme.namespaces[1]
        ledger = Ledger(namespace, 0, REGION, seed=1)
        worker = Worker(nvme.queues, ledger, depth=32)
        ledger.begin()
        for _ in range(STEPS):
            worker.step()
        worker.close()
        namespace.flush()
        data = np.full(400 * 512, 0xEE, np.uint8)
        going = threading.Event()

        def cut() -> None:
            going.wait(10)
            process.send_signal(signal.SIGKILL)

        killer = threading.Thread(target=cut)
        killer.start()
        try:
            for lba in range(100_000):
                namespace.write(REGION + lba % 100 * 100, data)
                if lba == 20:
                    going.set()
        finally:
            killer.join()
    return ledger

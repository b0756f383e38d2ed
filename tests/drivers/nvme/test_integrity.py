"""Not one wrong byte: random sizes, places, depths and queues, with a checksum in every block.

On the model in this process with both kinds of rings, on the target that the options name (a model
behind vfio-user, QEMU's device in a guest), and across the death of the device. `ROUNDS` of the
environment (USPACE_NVME_ROUNDS) makes it as long as one likes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uspace_drivers.nvme import Nvme, NvmeModel
from uspace_drv import DeviceError, attach
from uspace_drv.native import wait_readable
from uspace_drv.testing import Target
from uspace_drv.testing.pytest_plugin import parametrize_targets

from .ledger import Ledger, Worker

ROUNDS = int(os.environ.get("USPACE_NVME_ROUNDS", "40"))
REGION = 1500
"""Blocks for each worker."""


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
        work_hard(nvme, 3, ROUNDS)
    assert not model.complaints


def test_on_the_target(nvme_target: Target) -> None:
    with nvme_target.attach(Nvme) as nvme:
        work_hard(nvme, 2, ROUNDS)


def test_with_asyncio(nvme_target: Target) -> None:
    with nvme_target.attach(Nvme) as nvme:
        asyncio.run(work_together(nvme, 8, ROUNDS // 2))


def work_hard(nvme: Nvme, threads: int, rounds: int) -> None:
    """So many threads, each on blocks of its own; every second one has a queue for batches too."""
    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(work, nvme, number, rounds) for number in range(threads)]
        for each in running:
            each.result()


def work(nvme: Nvme, number: int, rounds: int) -> None:
    namespace = nvme.namespaces[1]
    region = min(REGION, namespace.blocks // 4)
    pair = nvme.queue(32, polled=number % 4 == 0) if number % 2 == 0 else None
    ledger = Ledger(namespace, number * region, region, seed=number)
    worker = Worker(nvme, ledger, pair)
    ledger.begin()
    for _ in range(rounds):
        worker.step()
    ledger.check(0, region, namespace.read(ledger.first, region))
    worker.memory.close()
    if pair is not None:
        nvme.queues.close(pair)


async def work_together(nvme: Nvme, tasks: int, rounds: int) -> None:
    """Tasks of one loop, each on blocks of its own."""

    async def task(number: int) -> None:
        ledger = Ledger(namespace, number * region, region, seed=number)
        worker = Worker(nvme, ledger)
        mine = namespace.aio
        await mine.write(ledger.first, bytes(region * namespace.block_size))
        for _ in range(rounds):
            start, count = ledger.choose()
            place = worker.place(count * namespace.block_size)
            if ledger.random.integers(2):
                place[:] = ledger.renew(start, count)
                await mine.write(ledger.first + start, place)
            ledger.check(start, count, await mine.read(ledger.first + start, count, place))
        await mine.flush()
        ledger.check(0, region, await mine.read(ledger.first, region))
        worker.memory.close()

    namespace = nvme.namespaces[1]
    region = min(REGION, namespace.blocks // tasks)
    await asyncio.gather(*(task(number) for number in range(tasks)))


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
        found = nvme.namespaces[1].read(flushed.first, len(flushed.versions))
        flushed.check(0, len(flushed.versions), found)
        work(nvme, 0, ROUNDS)


def until_the_power_cut(address: str, process: subprocess.Popen[str]) -> Ledger:
    """Write and flush, then write elsewhere until the device dies; what was flushed."""
    with pytest.raises(DeviceError), attach(address, Nvme) as nvme:  # noqa: PT012
        namespace = nvme.namespaces[1]
        ledger = Ledger(namespace, 0, REGION, seed=1)
        worker = Worker(nvme, ledger)
        ledger.begin()
        for _ in range(ROUNDS):
            worker.step()
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

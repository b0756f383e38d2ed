"""A queue pair that several threads share, because the controller gave no more of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from uspace_drivers.nvme import Nvme, NvmeModel
from uspace_drivers.nvme.model.faults import Action, Fault
from uspace_drivers.nvme.spec.commands import Opcode
from uspace_drv import DeviceTimeout, UspaceError, attach

MIB = 1 << 20
THREADS = 4


@pytest.fixture
def model() -> NvmeModel:
    return NvmeModel(size="16M", mdts=3)


@pytest.fixture
def nvme(model: NvmeModel) -> Iterator[Nvme]:
    with attach(model, Nvme) as driver:
        driver.queues._numbers = [1]
        yield driver


def test_reads_of_many_commands_take_turns(nvme: Nvme) -> None:
    disk = nvme.namespaces[1]
    blocks = MIB // disk.block_size
    for number in range(THREADS):
        disk.write(number * blocks, np.full(MIB, number + 1, "u1"))
    failures: list[object] = []

    def work(number: int) -> None:
        try:
            for _ in range(10):
                found = disk.read(number * blocks, blocks)
                if not (found == number + 1).all():
                    failures.append(f"thread {number} got somebody else's data")
        except UspaceError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert failures == []


def test_a_timeout_that_an_abort_has_cured_resets_nothing(model: NvmeModel, nvme: Nvme) -> None:
    disk = nvme.namespaces[1]
    disk.read(0, 1)
    nvme.queues.here().timeout = 0.3
    before = nvme.controller.generation
    model.faults.add(Fault(Action.DROP, opcode=Opcode.READ))
    with pytest.raises(DeviceTimeout, match="aborted"):
        disk.read(0, 1)
    assert nvme.controller.generation == before

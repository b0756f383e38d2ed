"""A queue pair that cannot be made, whatever the step: it leaves no memory, vector or number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

from uspace_drivers.nvme import Nvme, NvmeModel
from uspace_drivers.nvme.engine import queue_life
from uspace_drivers.nvme.engine.controller_memory import ControllerMemory
from uspace_drivers.nvme.engine.requests import Result
from uspace_drivers.nvme.engine.shadow import ShadowDoorbells
from uspace_drivers.nvme.spec.commands import Opcode
from uspace_drv import DeviceGone, attach
from uspace_drv.dma import Dma

STEPS: list[tuple[object, str]] = [
    (Dma, "alloc"),
    (ControllerMemory, "take"),
    (queue_life, "Queue"),
    (Result, "array"),
    (queue_life, "join_doorbells"),
    (queue_life.QueueLife, "_use"),
    (ShadowDoorbells, "serve"),
    (queue_life._in_this_process, "add"),
]
"""What is called on the way, in this order."""


@pytest.fixture
def model() -> NvmeModel:
    return NvmeModel("nvme", size="4M", rings="native", cmb="64K", shadow=True)


@pytest.fixture
def nvme(model: NvmeModel) -> Iterator[Nvme]:
    with attach(model, Nvme) as driver:
        driver.namespaces[1].read(0, 1)
        yield driver


def what_is_taken(nvme: Nvme, model: NvmeModel) -> tuple[Any, ...]:
    queues = nvme.queues
    pieces, vectors, numbers = queues._nearby._free, queues._vectors._free, queues._numbers
    mapped = {(each.iova, each.size) for each in model.memory.mappings}
    return mapped, set(pieces), set(vectors), set(numbers), set(queues._open)


@pytest.mark.parametrize("error", [DeviceGone, KeyboardInterrupt])
@pytest.mark.parametrize(("where", "name"), STEPS, ids=[name for _, name in STEPS])
def test_a_step_that_fails(
    nvme: Nvme,
    model: NvmeModel,
    where: object,
    name: str,
    error: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise error("half-way")

    before = what_is_taken(nvme, model)
    with monkeypatch.context() as patch:
        patch.setattr(where, name, fail)
        with pytest.raises(error, match="half-way"):
            nvme.queue(8)
    assert what_is_taken(nvme, model) == before
    results = nvme.queue(8).run(nvme.namespaces[1].requests(Opcode.FLUSH, [0], 0))
    assert results["status"].tolist() == [0]

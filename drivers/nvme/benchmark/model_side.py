"""What Python costs: the driver against a loop that is written wholly in C, on the model.

The model is another process on a processor of its own, behind vfio-user: doorbells, queues and data
are shared memory. So its data path in C is the fastest device that there is.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np

from uspace_drivers.nvme.benchmark.user_side import Reader, read_by_user
from uspace_drivers.nvme.benchmark.work import Work
from uspace_drivers.nvme.driver import Nvme
from uspace_drv import attach
from uspace_drv.bench import Comparison, Figure, Histogram, Sample, Setting, Stopwatch
from uspace_drv.bench.suites.processors import pin
from uspace_drv.testing.served import ServedModel

BLOCK = 4096
DEPTHS, QUICK_DEPTHS = (1, 32, 128), (32,)
TASKS = 64
CHART = "model: reads a second by depth"


def compare_on_model(setting: Setting) -> Iterator[Comparison]:
    """All of it on a device that keeps nothing, then a part with the data copied."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        setting.skip("nvme on the model", "needs two processors, and this process may use one")
        return
    try:
        os.sched_setaffinity(0, allowed[:1])
        with _served(allowed[1], "discard") as nvme:
            for depth in QUICK_DEPTHS if setting.quick else DEPTHS:
                yield _loops(nvme, setting, depth, "nothing copied", chart=CHART)
            yield _calls(nvme, setting)
            if not setting.quick:
                yield _awaited(nvme, setting)
        if not setting.quick:
            with _served(allowed[1], "memory") as nvme:
                # Pages that were never written are all one page of zeroes, which is in the cache.
                nvme.namespaces[1].write(0, np.random.default_rng(0).bytes(64 << 20))
                yield _loops(nvme, setting, DEPTHS[-1], "copied")
    finally:
        os.sched_setaffinity(0, allowed)


@contextmanager
def _served(processor: int, medium: str) -> Iterator[Nvme]:
    """Serve a model from a process of its own, and attach the driver to it."""
    model = f"nvme?size=64M&block_size={BLOCK}&medium={medium}&rings=native"
    with ServedModel(model, quiet=True) as served:
        pin(served.pid, processor)  # the threads that serve are started for each client
        with attach(served.address, Nvme) as nvme:
            yield nvme


def _loops(nvme: Nvme, setting: Setting, depth: int, kind: str, *, chart: str = "") -> Comparison:
    """The same queue kept full by C, and by Python."""
    measure = partial(read_by_user, nvme, Work(depth), setting.seconds)
    return Comparison(
        name=f"model, 4 KiB random reads, {depth} at once, {kind}",
        operation="read",
        ways={
            "loop in C": partial(measure, Reader.in_c),
            "Python, in batches": partial(measure, Reader.in_python),
        },
        baseline="loop in C",
        figure=Figure.RATE,
        size=BLOCK,
        axes={"depth": depth},
        chart=chart,
    )


def _calls(nvme: Nvme, setting: Setting) -> Comparison:
    """What a read takes from Python, if the next one waits for it."""
    measure = partial(read_by_user, nvme, Work(1), setting.seconds)
    return Comparison(
        name="model, 4 KiB random reads, one after the other",
        operation="read",
        ways={
            "loop in C": partial(measure, Reader.in_c),
            "blocking call": partial(measure, Reader.one_by_one),
            "await": partial(_await_reads, nvme, 1, setting.seconds),
        },
        baseline="loop in C",
        figure=Figure.LATENCY,
        size=BLOCK,
    )


def _awaited(nvme: Nvme, setting: Setting) -> Comparison:
    """Many tasks of an event loop, each with one read at a time."""
    measure = partial(read_by_user, nvme, Work(TASKS), setting.seconds)
    return Comparison(
        name=f"model, 4 KiB random reads, {TASKS} at once, by asyncio",
        operation="read",
        ways={
            "loop in C": partial(measure, Reader.in_c),
            f"asyncio, {TASKS} tasks": partial(_await_reads, nvme, TASKS, setting.seconds),
        },
        baseline="loop in C",
        figure=Figure.RATE,
        size=BLOCK,
        axes={"depth": TASKS},
    )


def _await_reads(nvme: Nvme, tasks: int, seconds: float) -> Sample:
    memory = nvme.memory.alloc("u1", (tasks, BLOCK))
    try:
        return asyncio.run(_read_in_tasks(nvme, memory.array, seconds))
    finally:
        memory.close()


async def _read_in_tasks(nvme: Nvme, blocks: np.ndarray, seconds: float) -> Sample:
    namespace, taken, clock = nvme.namespaces[1].aio, list[int](), time.perf_counter_ns
    places = np.random.default_rng(1).integers(0, namespace.blocks, 1 << 12).tolist()

    async def work(block: np.ndarray, end: int) -> None:
        before = clock()
        while before < end:
            for place in places:
                await namespace.read(place, 1, block)
                after = clock()
                taken.append(after - before)
                before = after
                if after >= end:
                    break

    await work(blocks[0], clock() + int(seconds * 1e8))  # a tenth of it, to be warm
    taken.clear()
    with Stopwatch() as watch:
        end = clock() + int(seconds * 1e9)
        await asyncio.gather(*(work(block, end) for block in blocks))
    return watch.sample(len(taken), Histogram.of(taken))

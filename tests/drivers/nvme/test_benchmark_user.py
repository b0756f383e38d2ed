"""Our side of the suite: loops over a model, timed results, and who has the device when."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from uspace_drivers.nvme import Nvme, NvmeModel, Opcode, Result
from uspace_drivers.nvme.benchmark import comparisons, devices, model_side, suite, user_side
from uspace_drivers.nvme.benchmark.comparisons import BY_INTERRUPT, POLLED
from uspace_drivers.nvme.benchmark.devices import Devices
from uspace_drivers.nvme.benchmark.kernel_side import ENGINES
from uspace_drivers.nvme.benchmark.user_side import Loop, Reader, read_by_user
from uspace_drivers.nvme.benchmark.work import Work
from uspace_drivers.nvme.model.faults import Action, Fault
from uspace_drivers.nvme.spec.command_error import CommandError
from uspace_drivers.nvme.spec.status import Status
from uspace_drivers.nvme.verbs.bench import Pattern
from uspace_drv import HostError, attach
from uspace_drv.bench import Figure, Sample, Setting

from .engine_twin import Rig, Wish

SECONDS = 0.01


@pytest.fixture
def model() -> NvmeModel:
    return NvmeModel(size="8M")


@pytest.fixture
def nvme(model: NvmeModel) -> Iterator[Nvme]:
    with attach(model, Nvme) as driver:
        yield driver


@pytest.mark.parametrize("loop", [Reader.in_c, Reader.in_python, Reader.one_by_one])
@pytest.mark.parametrize("work", [Work(1), Work(8, 1 << 14, Pattern.SEQUENTIAL)])
def test_every_read_is_counted_and_timed(nvme: Nvme, work: Work, loop: Loop) -> None:
    before = nvme.smart().read_commands
    sample = read_by_user(nvme, work, SECONDS, loop)
    assert sample.latencies is not None
    assert sample.latencies.count == sample.operations > 0
    assert sample.operations <= nvme.smart().read_commands - before
    assert sample.seconds >= SECONDS
    assert 0 < sample.latencies.percentile(0) <= sample.latencies.percentile(100) < 10e9


def test_random_places_are_never_the_same_again(
    nvme: Nvme, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a device with a cache would answer us from there, and fio from its medium."""
    monkeypatch.setattr(user_side, "POOL", 64)
    reader = Reader(nvme, Work(4), polled=True)
    read: list[list[int]] = []
    try:
        for _ in range(8):
            reader.in_c()
            read.append(reader.places.tolist())
    finally:
        reader.close()
    assert len({tuple(places) for places in read}) > 1


def test_places_in_order_stay(nvme: Nvme, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_side, "POOL", 64)
    reader = Reader(nvme, Work(4, pattern=Pattern.SEQUENTIAL), polled=True)
    try:
        before = reader.places.tolist()
        for _ in range(8):
            reader.in_c()
        assert reader.places.tolist() == before
    finally:
        reader.close()


def test_a_thread_for_each_queue(nvme: Nvme) -> None:
    sample = read_by_user(nvme, Work(4, queues=2), SECONDS, Reader.in_c, polled=False)
    assert sample.latencies is not None
    assert sample.latencies.count == sample.operations


def test_queues_and_memory_are_given_back(nvme: Nvme) -> None:
    for _ in range(3 * nvme.controller.queue_limit):
        read_by_user(nvme, Work(2), 1e-6, Reader.in_c)


@pytest.mark.parametrize("loop", [Reader.in_c, Reader.in_python, Reader.one_by_one])
def test_a_read_that_fails(model: NvmeModel, nvme: Nvme, loop: Loop) -> None:
    model.faults.add(Fault(Action.STATUS, opcode=Opcode.READ, status=Status.UNRECOVERED_READ_ERROR))
    with pytest.raises(CommandError):
        read_by_user(nvme, Work(2), SECONDS, loop)


def test_results_of_a_timed_queue_say_how_long_they_took() -> None:
    rig = Rig()
    results = Result.array(2)
    for timed in (False, True):
        rig.queue.timed = timed
        rig.submit(Wish(tag=1), Wish(tag=2))
        for command in rig.device.fetch():
            rig.device.complete(command.id)
        assert rig.queue.poll(results) == 2
        assert bool(results["nanoseconds"].all()) == timed
        assert results["nanoseconds"][0] == results["nanoseconds"][1]  # all at once


def test_the_model_beside_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, with the model in a process of its own."""
    monkeypatch.setattr(model_side, "QUICK_DEPTHS", (8,))
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("needs two processors")
    setting = Setting(seconds=SECONDS, quick=True)
    found = {}
    for comparison in suite.compare(setting):
        samples = {name: way() for name, way in comparison.ways.items()}
        found[comparison.name] = list(samples)
        assert comparison.baseline in samples
        assert all(sample.figure(comparison.figure) > 0 for sample in samples.values())
    assert found == {
        "model, 4 KiB random reads, 8 at once, nothing copied": ["loop in C", "Python, in batches"],
        "model, 4 KiB random reads, one after the other": ["loop in C", "blocking call", "await"],
    }
    assert [(each.what, each.why) for each in setting.skipped] == [
        ("the kernel's side", "needs a device; run: uspace bench nvme --vm")
    ]
    assert os.sched_getaffinity(0) == allowed


def test_more_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_side, "DEPTHS", (2,))
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two processors")
    names = []
    for comparison in suite.compare(Setting(seconds=SECONDS)):
        names.append(comparison.name)
        if "asyncio" in comparison.name:
            samples = [way() for way in comparison.ways.values()]
            assert all(sample.figure(Figure.RATE) > 0 for sample in samples)
    assert names[2:] == [
        "model, 4 KiB random reads, 64 at once, by asyncio",
        "model, 4 KiB random reads, 2 at once, copied",
    ]


def test_one_processor_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    setting = Setting()
    assert list(suite.compare(setting)) == []
    assert setting.skipped[1].why == "needs two processors, and this process may use one"


def test_a_model_that_cannot_be_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_side, "BLOCK", 1000)
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two processors")
    with pytest.raises(HostError, match="block_size=1000: expected 512 or 4096"):
        next(suite.compare(Setting()))


class FakeHand:
    """Stands for `HandOver`, and notes who gets the device."""

    log: list[str] = []

    def __init__(self, address: str, via: str | None) -> None:
        self.log = FakeHand.log = [f"{address} by {via}"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.log.append("back")

    def to_user(self) -> None:
        self.log.append("user")

    def to_kernel(self) -> None:
        self.log.append("kernel")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel and a fio of which only calls are seen; our side has a model."""

    def read_by_kernel(disk: str, *_: object) -> Sample:
        FakeHand.log.append(f"fio {disk}")
        return Sample(operations=1, seconds=1.0)

    def attach_model(address: str, driver: type[Nvme], **options: object) -> object:
        FakeHand.log.append(f"attach {address} {options}")
        return attach(NvmeModel(size="8M", mdts=4), driver)

    monkeypatch.setattr(comparisons, "require_fio", lambda: None)
    monkeypatch.setattr(comparisons, "usable_engines", lambda disk, setting: ENGINES)
    monkeypatch.setattr(comparisons, "read_by_kernel", read_by_kernel)
    monkeypatch.setattr(comparisons, "LEAST", SECONDS)
    monkeypatch.setattr(devices, "HandOver", FakeHand)
    monkeypatch.setattr(devices, "attach", attach_model)
    monkeypatch.setattr(devices, "find_disk", lambda address: f"disk of {address}")
    monkeypatch.setattr(devices, "require_equal", lambda device, beside: None)


@pytest.mark.usefixtures("machine")
def test_one_device_goes_to_and_fro() -> None:
    setting = Setting(device="A", via="vfio", seconds=SECONDS, quick=True)
    suites = suite.compare(setting)
    first = next(suites)
    assert list(first.ways) == [
        "io_uring", "io_uring, polled", "libaio", "pread", POLLED, BY_INTERRUPT
    ]  # fmt: skip
    assert (first.baseline, first.chart) == ("io_uring", "IOPS by depth")
    FakeHand.log.clear()
    for way in ("io_uring", "pread", POLLED, BY_INTERRUPT, BY_INTERRUPT, POLLED, "io_uring"):
        first.ways[way]()
    attached = "attach A {'via': 'vfio', 'unsafe_dma_without_iommu': False}"
    assert FakeHand.log == [
        "kernel", "fio disk of A", "kernel", "fio disk of A", "user", attached, "kernel",
        "fio disk of A",
    ]  # fmt: skip
    assert [comparison.axes for comparison in suites] == [{"depth": 32}]
    assert FakeHand.log[-1] == "back"


@pytest.mark.usefixtures("machine")
def test_two_devices_stay_where_they_are() -> None:
    setting = Setting(
        device="A", beside="B", via="vfio-noiommu-cdev", seconds=SECONDS,
        unsafe_dma_without_iommu=True,
    )  # fmt: skip
    names = []
    for comparison in suite.compare(setting):
        names.append(comparison.name)
        comparison.ways["io_uring"]()
        comparison.ways[POLLED]()
    attached = "attach A {'via': 'vfio-noiommu-cdev', 'unsafe_dma_without_iommu': True}"
    assert FakeHand.log == [
        "A by vfio-noiommu-cdev", "user", attached, *["fio disk of B"] * len(names), "back"
    ]  # fmt: skip
    assert len(names) == 5
    assert [(each.what, each.why) for each in setting.skipped] == [
        ("128 KiB sequential reads, 8 at once", "A: a command moves up to 65536 bytes")
    ]


@pytest.mark.usefixtures("machine")
def test_the_device_goes_back_when_the_suite_is_interrupted() -> None:
    suites = suite.compare(Setting(device="A", beside="B", seconds=SECONDS))
    next(suites).ways[POLLED]()
    suites.close()  # type: ignore[attr-defined]
    assert FakeHand.log[-1] == "back"


def test_who_has_no_interrupts_is_told(monkeypatch: pytest.MonkeyPatch, machine: None) -> None:
    look = comparisons._look_at

    def without(devices: Devices) -> tuple[int, bool]:
        return look(devices)[0], False

    monkeypatch.setattr(comparisons, "_look_at", without)
    setting = Setting(device="A", seconds=SECONDS, quick=True)
    assert all(BY_INTERRUPT not in each.ways for each in suite.compare(setting))
    assert setting.skipped[0].what == BY_INTERRUPT


def test_many_commands_leave_nothing_behind() -> None:
    """The resident size of the driver's process stays as it is (proc_pid_statm(5))."""
    with attach(NvmeModel(size="1M", medium="discard"), Nvme) as nvme:
        pair, memory = nvme.queue(32, polled=True), nvme.memory.alloc("u1", (32, 4096))
        places = int(memory.iova) + np.arange(20_000) % 32 * 4096
        batch = nvme.namespaces[1].requests(Opcode.READ, np.zeros(20_000, int), 8, places)
        results = Result.array(len(batch))
        read: Callable[[], object] = lambda: pair.run(batch, results)  # noqa: E731
        sizes = []
        for _ in range(10):
            read()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            sizes.append(pages * os.sysconf("SC_PAGESIZE"))
        assert sizes[-1] - sizes[1] <= 1 << 19

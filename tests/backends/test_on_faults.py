"""Faults that a real kernel's VFIO shows, on QEMU's devices in the guest, by each way.

All vectors of a device with many of them stormed, by software and, on edu, by the device; too
little lockable memory in the middle, for an ordinary user.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import resource
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.backends.as_user import as_user, handed_over
from uspace_drivers.edu import Edu
from uspace_drivers.edu.registers import Cause
from uspace_drv import ClosedError, Driver, HostError, IrqKind, interrupt
from uspace_drv.attachment import attach
from uspace_drv.backends.vfio import VfioDevice
from uspace_drv.backends.vfio.ways import nodes_of
from uspace_drv.deadline import Deadline
from uspace_drv.device import Device
from uspace_drv.dma import DmaBuffer
from uspace_drv.irq import Irq
from uspace_drv.pci.binding import VFIO, bind, restore
from uspace_drv.pci.sysfs import PciBus
from uspace_drv.port import HasDmaCalls
from uspace_drv.testing import Target

pytestmark = [
    pytest.mark.via("vfio"),
    pytest.mark.usefixtures("nothing_left"),
    pytest.mark.timeout(300),
]

PAGE = mmap.PAGESIZE
WAIT = 100.0
"""Seconds: no more than the patience of these tests; a busy machine emulates slowly."""

MANY = 2000
"""How often each vector fires."""

STORMED = [(0x1B36, 0x0010), (0x8086, 0x10D3), (0x1AF4, 0x1044)]
"""QEMU's nvme (65 vectors), e1000e (5) and virtio-rng (2): the first one that is there."""


@pytest.fixture
def target(request: pytest.FixtureRequest) -> Target:
    """The device, by the way that the run is about."""
    option = request.config.getoption
    return Target(None, option("--device"), option("--via"), None, True)


@pytest.fixture
def stormed(target: Target) -> Iterator[Target]:
    """The device with the most vectors that this machine has."""
    found = {(f.ids.vendor, f.ids.device): f.address for f in PciBus().functions()}
    address = next((found[ids] for ids in STORMED if ids in found), None)
    if address is None:
        pytest.skip("no device with MSI-X here: boot the guest with --device nvme,serial=1")
    bind(address, VFIO)
    yield replace(target, address=str(address))
    restore(address)


@pytest.fixture
def storm(stormed: Target) -> Iterator[Storm]:
    backend = stormed.open()
    assert isinstance(backend, VfioDevice)
    with closing(backend), closing(Device(backend)) as device:
        yield Storm(backend, device)


class Storm:
    """Fires all vectors of a device, over and over, from a thread of its own."""

    def __init__(self, backend: VfioDevice, device: Device) -> None:
        self.count = device.irq_count
        self.irqs = [device.irq(index) for index in reversed(range(self.count))][::-1]
        self._fire = partial(backend.trigger, IrqKind.MSIX, list(range(self.count)))
        self.half_way = threading.Event()
        self.over = threading.Event()

    def fire_until_refused(self) -> None:
        """Raises what the kernel says once there is nothing to fire any more."""
        deadline = Deadline(WAIT)
        while not deadline.passed:
            self._fire()

    def rage(self) -> None:
        """In halves, between which others may act."""
        for _ in range(MANY // 2):
            self._fire()
        self.half_way.set()
        for _ in range(MANY - MANY // 2):
            self._fire()
        self.over.set()


def run_all(works: Sequence[Callable[[], object]]) -> None:
    """Each in a thread of its own; what one of them raises is raised here."""
    failures: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as failure:  # noqa: BLE001 - raised again below
            failures.append(failure)

    threads = [threading.Thread(target=run, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert not any(thread.is_alive() for thread in threads)
    if failures:
        raise failures[0]


def take_all(irq: Irq) -> None:
    """Wait until each one has come."""
    while irq.count < MANY:
        irq.wait(WAIT)


def take_until_closed(irq: Irq, ends: list[ClosedError]) -> None:
    try:
        while True:
            irq.wait(WAIT)
    except ClosedError as end:
        ends.append(end)


async def take_all_async(irqs: Sequence[Irq]) -> None:
    async def take(irq: Irq) -> None:
        while irq.count < MANY:
            await irq

    async with asyncio.timeout(WAIT), asyncio.TaskGroup() as tasks:
        for irq in irqs:
            tasks.create_task(take(irq))


def test_no_vector_of_a_storm_is_lost(storm: Storm) -> None:
    """A third waits in threads, a third in one event loop, a third is polled; each counts right."""
    waiting, awaited, polled = (storm.irqs[start::3] for start in range(3))

    def poll() -> None:
        over = False
        while not over:
            over = storm.over.is_set()  # asked first: one look follows the end
            for irq in polled:
                irq.poll()

    def loop() -> None:
        asyncio.run(take_all_async(awaited))

    run_all([storm.rage, loop, poll, *(partial(take_all, irq) for irq in waiting)])
    assert [irq.count for irq in storm.irqs] == [MANY] * storm.count


def test_vectors_are_closed_in_the_middle_of_a_storm(storm: Storm) -> None:
    """Every second one is; its waiter learns of it, and the others count on."""
    closed, kept = storm.irqs[::2], storm.irqs[1::2]
    ends: list[ClosedError] = []

    def close() -> None:
        assert storm.half_way.wait(WAIT)
        for irq in closed:
            irq.close()

    waiting = [partial(take_until_closed, irq, ends) for irq in closed[::2]]
    counting = [partial(take_all, irq) for irq in kept]
    run_all([storm.rage, close, *waiting, *counting])
    assert len(ends) == len(closed[::2])
    assert all(irq.count <= MANY for irq in closed)
    assert [irq.count for irq in kept] == [MANY] * len(kept)


def test_a_device_is_closed_in_the_middle_of_a_storm(stormed: Target) -> None:
    """The kernel takes all vectors away at once; whoever still fires is told so."""
    backend = stormed.open()
    assert isinstance(backend, VfioDevice)
    ends: list[ClosedError] = []
    with closing(backend), closing(Device(backend)) as device:
        storm = Storm(backend, device)

        def rage() -> None:
            with pytest.raises(HostError, match="SET_IRQS"):  # there is none to signal any more
                storm.fire_until_refused()

        def close() -> None:
            storm.irqs[-1].wait(WAIT)
            device.close()

        waiting = [partial(take_until_closed, irq, ends) for irq in storm.irqs[:-1]]
        run_all([rage, close, *waiting])
    assert len(ends) == len(waiting)


class Stormed(Driver):
    """Counts what its handlers are called for, and what they defer."""

    calls = 0
    deferred = 0

    @interrupt(0)
    def first(self) -> None:
        self.calls += 1
        if self.deferred < self.calls - 100:
            return  # the bottom half is far behind
        self.defer(self._note)

    @interrupt(1)
    def second(self) -> None:
        self.calls += 1

    def _note(self) -> None:
        self.deferred += 1

    @property
    def counts(self) -> list[int]:
        return [self.device.irq(index).count for index in (0, 1)]


def test_handlers_in_a_storm(stormed: Target) -> None:
    backend = stormed.open()
    assert isinstance(backend, VfioDevice)
    with attach(backend, Stormed) as driver:

        def rage() -> None:
            for _ in range(MANY):
                backend.trigger(IrqKind.MSIX, [0, 1])

        def wait() -> None:
            driver.wait_until(lambda: driver.counts == [MANY, MANY], WAIT, "not all came")

        run_all([rage, wait])
        assert 2 <= driver.calls <= 2 * MANY
        driver.wait_until(lambda: driver.deferred > 0, WAIT, "nothing was deferred")


def test_leaving_in_the_middle_of_a_storm_with_handlers(stormed: Target) -> None:
    backend = stormed.open()
    assert isinstance(backend, VfioDevice)
    attached = attach(backend, Stormed)
    begun = threading.Event()

    def fire_on() -> None:
        deadline = Deadline(WAIT)
        while not deadline.passed:
            backend.trigger(IrqKind.MSIX, [0, 1])
            begun.set()

    def rage() -> None:
        with pytest.raises(HostError, match="SET_IRQS"):
            fire_on()

    def leave() -> None:
        assert begun.wait(WAIT)
        attached.close()

    run_all([rage, leave])


@pytest.mark.parametrize("kind", [IrqKind.MSI, IrqKind.INTX])
def test_the_device_itself_storms(target: Target, kind: IrqKind) -> None:
    """A message that comes while the one before it is not served yet is one with it: at most N."""
    with replace(target, irq_kind=kind).attach(Edu) as edu:
        raised = taken = 0
        cause = Cause(factorial_done=True)
        for _ in range(MANY // 4):
            edu.registers.irq_raise.write(cause)
            raised += 1
            if kind is IrqKind.INTX or raised % 8 == 0:
                taken += edu.done.wait(WAIT)
                edu.registers.irq_acknowledge.write(cause)
        taken += edu.done.poll()
        assert raised // 8 <= taken == edu.done.count <= raised
        if kind is IrqKind.INTX:
            assert taken == raised
        assert edu.factorial(5, timeout=WAIT) == 120


def copy(edu: Edu, buffer: DmaBuffer) -> None:
    """Let edu bring 64 bytes of a mapped buffer to its other end."""
    for source, destination, to_memory in (
        (buffer.iova, 0x40000, False),
        (0x40000, buffer.at(64), True),
    ):
        edu.registers.dma_source.write(source)
        edu.registers.dma_destination.write(destination)
        edu.registers.dma_count.write(64)
        edu.registers.dma_command.write(run=True, to_memory=to_memory)
        edu.registers.dma_command.wait(run=False, timeout=WAIT)


def test_lockable_memory_runs_out_for_an_ordinary_user(target: Target) -> None:
    with closing(target.open()) as backend:
        if not isinstance(backend.dma, HasDmaCalls):
            pytest.skip("no IOMMU")
        way = backend.via
    with target.attach(Edu) as edu:
        use_up(edu, 4)  # so that all modules are there
    nodes = nodes_of(PciBus().function(str(target.address)))[way]

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (16 * PAGE, 16 * PAGE))
        with target.attach(Edu) as edu:
            use_up(edu, 16)

    with handed_over([Path(node) for node in nodes]):
        assert as_user(work)


def use_up(edu: Edu, count: int) -> None:
    """Map page after page; at the limit nothing is lost, and each one that goes makes room."""
    dma = edu.device.dma
    buffers = [dma.alloc(np.uint8, PAGE) for _ in range(count)]
    array = np.frombuffer(mmap.mmap(-1, PAGE), np.uint8)
    if os.geteuid() == 0:
        return
    for more in (
        partial(dma.alloc, np.uint8, PAGE),
        partial(dma.alloc, np.uint8, 64 * PAGE),
        partial(dma.map, array),
        partial(dma.map, array),  # once more: the first is checked in Python, the others in C
    ):
        with pytest.raises(HostError, match=r"RLIMIT_MEMLOCK.*sudo prlimit --pid"):
            more()
    assert len(dma.buffers) == count
    for number in (0, count // 2, count - 1):
        buffers[number].array[:64] = number + 1
        copy(edu, buffers[number])
        assert set(buffers[number].array[64:128]) == {number + 1}
    for number in range(0, count, 2):
        buffers[number].close()
    for number in range(0, count, 2):
        buffers[number] = dma.map(array) if number == 0 else dma.alloc(np.uint8, PAGE)
    with pytest.raises(HostError, match="RLIMIT_MEMLOCK"):
        dma.alloc(np.uint8, PAGE)
    copy(edu, buffers[0])
    assert len({buffer.iova for buffer in buffers}) == count

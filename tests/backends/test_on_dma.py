"""DMA behind a real IOMMU, with QEMU's edu as the engine. Runs in the guest, through every VFIO."""

from __future__ import annotations

import logging
import mmap
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from uspace_drivers.edu import Edu
from uspace_drv import Direction, HostError, UnsupportedError
from uspace_drv.backends.vfio.container import Container, locked_memory
from uspace_drv.device import Device
from uspace_drv.dma import Dma
from uspace_drv.huge_pages import map_huge_pages
from uspace_drv.port import HasDmaCalls, Iova
from uspace_drv.testing import Target

pytestmark = pytest.mark.via("vfio")

PAGE = mmap.PAGESIZE
HUGE = 2 << 20
BUFFER = 0x40000
"""Where edu keeps its own 4096 bytes (QEMU docs/specs/edu.rst)."""

SECRET = b"\xa5" * 64


@pytest.fixture
def target(request: pytest.FixtureRequest) -> Target:
    """The device, by the way that the run is about."""
    option = request.config.getoption
    return Target(None, option("--device"), option("--via"))


@pytest.fixture
def edu(target: Target) -> Iterator[Edu]:
    with target.attach(Edu) as driver:
        if not isinstance(driver.device._backend.dma, HasDmaCalls):
            pytest.skip("no IOMMU")
        yield driver


@pytest.fixture
def dma(edu: Edu) -> Dma:
    return edu.device.dma


def copy(edu: Edu, source: int, destination: int, *, to_memory: bool) -> None:
    """Let edu copy 64 bytes, without a word about what comes of it."""
    edu.registers.dma_source.write(source)
    edu.registers.dma_destination.write(destination)
    edu.registers.dma_count.write(len(SECRET))
    edu.registers.dma_command.write(run=True, to_memory=to_memory)
    edu.registers.dma_command.wait(run=False, timeout=10.0)


def read_by(edu: Edu, iova: int) -> bytes:
    """What edu gets when it reads there."""
    edu.store(bytes(64))
    copy(edu, iova, BUFFER, to_memory=False)
    return edu.load(64)


def write_by(edu: Edu, iova: int) -> None:
    """Let edu write there."""
    edu.store(SECRET)
    copy(edu, BUFFER, iova, to_memory=True)


def free_huge_pages() -> int:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("HugePages_Free"))


def test_an_existing_array_is_mapped_in_place(edu: Edu, dma: Dma) -> None:
    array = np.frombuffer(mmap.mmap(-1, PAGE), np.uint8)
    for _ in range(3):  # the first is checked in Python, the others in C
        with dma.map(array) as buffer:
            array[:64] = 0x5A
            assert read_by(edu, buffer.iova) == b"\x5a" * 64
            write_by(edu, buffer.at(64))
            assert array[64:128].tobytes() == SECRET


def test_memory_for_reading_is_not_written(edu: Edu, dma: Dma) -> None:
    with dma.alloc(np.uint8, 64, Direction.TO_DEVICE) as buffer:
        buffer.array[:] = 1
        write_by(edu, buffer.iova)
        assert set(buffer.array) == {1}
        assert read_by(edu, buffer.iova) == b"\x01" * 64


def test_memory_for_writing_is_not_read(edu: Edu, dma: Dma) -> None:
    with dma.alloc(np.uint8, 64, Direction.FROM_DEVICE) as buffer:
        write_by(edu, buffer.iova)
        assert buffer.array.tobytes() == SECRET
        if read_by(edu, buffer.iova) == SECRET:  # see Linux 6.1 drivers/iommu/intel/iommu.c,
            # __domain_mapping(): one bit means "present" and "may be read"
            pytest.skip("this IOMMU lets a device read what it may write")


def test_huge_pages(edu: Edu, dma: Dma) -> None:
    if not free_huge_pages():
        pytest.skip("no huge page is free: boot the guest with --hugepages")
    free = free_huge_pages()
    dma.alloc(np.uint8).close()  # so that the next IOVA is no multiple of a huge page by itself
    buffer = dma.alloc(np.uint8, 64, huge_pages=True)
    assert (buffer.page_size, buffer.iova % HUGE) == (HUGE, 0)
    assert free_huge_pages() == free - 1
    write_by(edu, buffer.iova)
    assert buffer.array.tobytes() == SECRET
    buffer.close()
    del buffer
    assert free_huge_pages() == free


def test_an_array_lies_in_huge_pages_as_in_memory(edu: Edu, dma: Dma) -> None:
    """So that the IOMMU may map them as they are; the device sees each byte where it is."""
    if free_huge_pages() < 3:
        pytest.skip("fewer than 3 huge pages are free: boot the guest with --hugepages")
    array = np.frombuffer(map_huge_pages(3 * HUGE), np.uint8)[3 * PAGE :]
    dma.alloc(np.uint8).close()
    with dma.map(array) as buffer:
        assert (buffer.iova - array.ctypes.data) % HUGE == 0
        for offset in (0, HUGE - 3 * PAGE, 2 * HUGE, array.nbytes - len(SECRET)):
            write_by(edu, buffer.at(offset))
            assert array[offset : offset + len(SECRET)].tobytes() == SECRET
            assert read_by(edu, buffer.at(offset)) == SECRET


def test_too_few_huge_pages_are_said_and_replaced(
    edu: Edu, dma: Dma, caplog: pytest.LogCaptureFixture
) -> None:
    size = (free_huge_pages() + 1) * HUGE
    with (
        caplog.at_level(logging.WARNING),
        dma.alloc(np.uint8, size, huge_pages=True) as buffer,
    ):
        assert buffer.page_size == PAGE
        assert "/proc/sys/vm/nr_hugepages" in caplog.text
        write_by(edu, buffer.at(size - 64))
        assert buffer.array[-64:].tobytes() == SECRET


def test_memory_of_a_memfd(edu: Edu, dma: Dma) -> None:
    """By the file where the kernel can, else by address: the device sees the same bytes."""
    fd = os.memfd_create("shared")
    try:
        os.truncate(fd, 4 * PAGE)
        os.pwrite(fd, SECRET, 2 * PAGE)
        with dma.map_file(fd, PAGE, 2 * PAGE) as buffer:
            assert buffer.array[:64].tobytes() == SECRET
            assert read_by(edu, buffer.iova) == SECRET
            write_by(edu, buffer.at(128))
        assert os.pread(fd, 64, 2 * PAGE + 128) == SECRET
    finally:
        os.close(fd)


def test_a_closed_device_reaches_nothing(target: Target) -> None:
    """All is unmapped at once, so the same places can be mapped again in the same space."""
    with closing(target.open()) as backend:
        if not isinstance(backend.dma, HasDmaCalls):
            pytest.skip("no IOMMU")
        first = Dma(backend.dma, "first", 28)
        places = [first.alloc(np.uint8, size).iova for size in (1, PAGE, 70 * PAGE)]
        locked = locked_memory()
        first.close()
        assert locked_memory() <= locked - 72 * PAGE
        second = Dma(backend.dma, "second", 28)
        assert [second.alloc(np.uint8, size).iova for size in (1, PAGE, 70 * PAGE)] == places
        second.close()
        second.close()
        backend.dma.unmap_all()  # with nothing mapped it is fine too


def test_dirty_pages(edu: Edu, dma: Dma) -> None:
    """type1 calls every page dirty that it pinned for a device, written or not."""
    space = edu.device._backend.dma
    if not isinstance(space, Container) or edu.device.via in {"vfio-compat", "vfio-type1v1"}:
        with pytest.raises(UnsupportedError, match="type1"):
            dma.start_dirty_tracking()
        return
    buffer = dma.alloc(np.uint8, 70 * PAGE)
    with pytest.raises(HostError, match="track"):
        dma.dirty_pages(buffer)
    dma.start_dirty_tracking()
    write_by(edu, buffer.iova)
    dirty = dma.dirty_pages(buffer)
    assert dirty.dtype == np.bool_
    assert (dirty.shape, bool(dirty[0])) == ((70,), True)
    with closing(Probe(space)) as probe:
        bitmap = space.unmap_dirty(probe.iova, PAGE)
        probe.unmapped = True
        assert bitmap[0] & 1
    dma.stop_dirty_tracking()
    with pytest.raises(HostError, match="track"):
        dma.dirty_pages(buffer)


class Probe:
    """One page that is mapped behind the back of `Dma`, far from where it maps."""

    iova = Iova(0x0800_0000)

    def __init__(self, space: Container) -> None:
        self.memory = space.memory(PAGE, -1)
        self.array = np.frombuffer(self.memory, np.uint8)
        self.space, self.unmapped = space, False
        space.map(self.array.ctypes.data, PAGE, self.iova, Direction.BOTH)

    def close(self) -> None:
        if not self.unmapped:
            self.space.unmap(self.iova, PAGE)


def in_a_child(work: Callable[[], None]) -> int:
    """Run it in a fork of this process; its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_too_little_lockable_memory_in_the_middle(target: Target) -> None:
    """What was mapped before stays usable; what is closed makes room; nothing is lost."""

    def work() -> None:
        with closing(target.open()) as backend, closing(Device(backend, dma_bits=28)) as device:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (8 * PAGE, 8 * PAGE))
            buffers = [device.dma.alloc(np.uint8, PAGE) for _ in range(8)]
            with pytest.raises(HostError, match="RLIMIT_MEMLOCK") as caught:
                device.dma.alloc(np.uint8, PAGE)
            assert "sudo prlimit --pid" in str(caught.value)
            assert len(device.dma.buffers) == len(buffers) == 8
            buffers[3].close()
            buffers[3] = device.dma.alloc(np.uint8, PAGE)
            assert len({buffer.iova for buffer in buffers}) == 8

    with closing(target.open()) as backend:
        if not isinstance(backend.dma, HasDmaCalls):
            pytest.skip("no IOMMU")
    assert in_a_child(work) == 0

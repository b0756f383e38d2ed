"""DMA memory: arrays with an IOVA, what is refused, what closing takes away and what it leaves."""

from __future__ import annotations

import gc
import mmap
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.huge_pages import huge_pages
from tests.unit.specimens import WAIT
from uspace_drv.dma import Dma, collect, publish
from uspace_drv.errors import (
    ClosedError,
    DeviceError,
    HostError,
    RegisterValueError,
    UnsupportedError,
)
from uspace_drv.huge_pages import HUGE_PAGE
from uspace_drv.models.iommu import Iommu
from uspace_drv.port import BareDmaSpace, Direction, Iova

PAGE = mmap.PAGESIZE

pytestmark = pytest.mark.usefixtures("nothing_left")


class PhysicalSpace(BareDmaSpace):
    """Fills the port's `DmaSpace` as without an IOMMU: each memory has one IOVA, far up."""

    name = "bell"
    page_size = PAGE
    ranges = None
    entry_limit: int | None = None

    def __init__(self, base: int) -> None:
        self.base = base
        self.unmapped: list[int] = []

    def memory(self, size: int, reach: int) -> mmap.mmap:
        return mmap.mmap(-1, size)

    def map(self, address: int, size: int, iova: Iova | None, direction: Direction) -> Iova:
        assert iova is None
        return Iova(self.base)

    def unmap(self, iova: Iova, size: int) -> None:
        self.unmapped.append(iova)

    def unmap_all(self) -> None: ...


@pytest.fixture
def iommu() -> Iommu:
    return Iommu("bell", lambda: True)


@pytest.fixture
def dma(iommu: Iommu) -> Iterator[Dma]:
    dma = Dma(iommu, "bell", 32)
    yield dma
    dma.close()


def pages(count: int = 1) -> npt.NDArray[np.uint8]:
    """Whole pages of ordinary memory."""
    return np.frombuffer(mmap.mmap(-1, count * PAGE), np.uint8)


def test_alloc_gives_zeroed_items_of_the_dtype(dma: Dma, iommu: Iommu) -> None:
    item = np.dtype([("address", "<u8"), ("length", "<u4")])
    buffer = dma.alloc(item, 10)
    assert (buffer.array.dtype, buffer.array.shape, buffer.size) == (item, (10,), 120)
    assert not buffer.array["address"].any()
    buffer.array[1] = (0x1122334455667788, 7)
    assert iommu.read(buffer.at(12), 8, "ring") == bytes.fromhex("8877665544332211")
    iommu.write(buffer.at(8), b"\x09\0\0\0", "ring")
    assert buffer.array["length"][0] == 9


@pytest.mark.parametrize(
    ("count", "shape"), [(3, (3,)), ((2, 5), (2, 5)), ((), ()), (np.int32(4), (4,))]
)
def test_alloc_takes_counts_and_shapes(dma: Dma, count: Any, shape: tuple[int, ...]) -> None:
    array = dma.alloc(np.uint16, count).array
    assert array.shape == shape
    assert array.flags.c_contiguous
    assert array.ctypes.data % PAGE == 0


@pytest.mark.parametrize("count", [0, -1, (4, 0), (-2, -3)])
def test_alloc_of_nothing(dma: Dma, count: Any) -> None:
    with pytest.raises(RegisterValueError, match=r"bell: a DMA buffer of .* has no memory"):
        dma.alloc(np.uint8, count)


@pytest.mark.parametrize("dtype", ["nonsense", object, [("next", "O")]])
def test_alloc_of_what_is_no_plain_memory(dma: Dma, dtype: Any) -> None:
    with pytest.raises(RegisterValueError, match=r"bell: .*(no dtype|Python objects)"):
        dma.alloc(dtype, 4)


@pytest.mark.parametrize("count", [1 << 50, 1 << 62, (1 << 40, 1 << 40), (1 << 32, 1 << 32)])
def test_alloc_of_more_than_there_is(dma: Dma, count: Any) -> None:
    with pytest.raises(HostError, match=r"bell: this machine has no 0x[0-9a-f]+ bytes"):
        dma.alloc(np.uint64, count)
    assert dma.alloc(np.uint8).iova == PAGE


def test_what_fails_to_map_takes_no_iova(
    dma: Dma, iommu: Iommu, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Iova:
        raise HostError("no memory can be locked")

    with monkeypatch.context() as patch:
        patch.setattr(iommu, "map", refuse)
        with pytest.raises(HostError, match="locked"):
            dma.alloc(np.uint8)
    assert (dma.buffers, dma._iovas and dma._iovas.count) == ((), 0)


def test_reach_of_the_device(iommu: Iommu) -> None:
    dma = Dma(iommu, "bell", 14)
    assert [dma.alloc(np.uint8).iova for _ in range(3)] == [PAGE, 2 * PAGE, 3 * PAGE]
    with pytest.raises(HostError, match="up to 0x3fff; 3 mappings exist"):
        dma.alloc(np.uint8)
    dma.close()


def test_entry_limit_of_the_host(iommu: Iommu) -> None:
    iommu.entry_limit = 2
    dma = Dma(iommu, "bell", 32)
    first, _ = dma.alloc(np.uint8), dma.alloc(np.uint8)
    with pytest.raises(HostError, match="bell: 2 DMA mappings, and the kernel allows 2; close"):
        dma.alloc(np.uint8)
    first.close()
    dma.alloc(np.uint8)
    dma.close()


def test_map_shows_the_array_itself(dma: Dma, iommu: Iommu) -> None:
    array = pages(2)
    with dma.map(array) as buffer:
        iommu.write(buffer.at(PAGE + 1), b"seen", "ring")
        assert array[PAGE + 1 : PAGE + 5].tobytes() == b"seen"
        assert (buffer.size, dma.buffers) == (2 * PAGE, (buffer,))
    assert dma.buffers == ()


def test_map_twice_at_a_time_and_after_close(dma: Dma) -> None:
    array = pages()
    first, second = dma.map(array), dma.map(array)
    assert first.iova != second.iova
    first.close()
    third = dma.map(first.array)
    assert third.iova not in {second.iova, PAGE}
    assert dma.buffers == (second, third)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (pages(2)[1:], "starts 0x1 bytes into a page"),
        (np.zeros(3 * PAGE, np.uint8)[1:2], "starts .* bytes into a page"),
        (pages(2).reshape(2, PAGE)[:, :8], "C-contiguous"),
        (pages(2).reshape(2, PAGE).T, "C-contiguous"),
        (pages(1)[::2], "C-contiguous"),
        (pages(1)[:0], "with memory"),
        (np.array([None] * 512), "Python objects"),
    ],
)
def test_arrays_that_cannot_be_mapped(dma: Dma, array: npt.NDArray[Any], reason: str) -> None:
    with pytest.raises(RegisterValueError, match=f"bell: .*{reason}"):
        dma.map(array)
    assert dma.buffers == ()


def read_only(array: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (pages(2)[1:], "starts 0x1 bytes into a page"),
        (pages(2).reshape(2, PAGE)[:, :8], "C-contiguous"),
        (pages(2).reshape(2, PAGE).T, "C-contiguous"),
        (pages(1)[:0], "with memory"),
        (read_only(pages()), "read-only"),
    ],
)
def test_arrays_are_looked_at_after_a_good_one_too(
    dma: Dma, array: npt.NDArray[np.uint8], reason: str
) -> None:
    """What was checked once is checked in C from then on."""
    dma.map(pages()).close()
    with pytest.raises(RegisterValueError, match=f"bell: .*{reason}"):
        dma.map(array)
    assert dma.buffers == ()


@pytest.mark.parametrize("dtype", [np.uint8, "<u4", "datetime64[s]", [("a", "<u8"), ("b", "<u8")]])
def test_each_dtype_and_shape_is_shown_whole(dma: Dma, iommu: Iommu, dtype: Any) -> None:
    for array in (pages(4).view(dtype), pages(4).view(dtype).reshape(4, 2, -1)):
        for _ in range(3):
            with dma.map(array, direction=Direction.TO_DEVICE) as buffer:
                (mapping,) = iommu.mappings
                assert (mapping.iova, mapping.size) == (buffer.iova, 4 * PAGE)
                assert (mapping.direction, buffer.array) == (Direction.TO_DEVICE, array)


def huge_offset(address: int) -> int:
    """How far into a huge page."""
    return address % HUGE_PAGE


def test_large_arrays_lie_in_huge_pages_as_their_memory_does(dma: Dma) -> None:
    """So that an IOMMU can map them by such pages, whether the array was seen before or not."""
    memory = pages(3 * HUGE_PAGE // PAGE)
    for start in (0, 0, 5 * PAGE):
        array = memory[start:]
        with dma.map(array) as buffer:
            assert huge_offset(buffer.iova) == huge_offset(array.ctypes.data)
            assert buffer.page_size == PAGE
    with dma.alloc(np.uint8, 2 * HUGE_PAGE) as buffer:
        assert huge_offset(buffer.iova) == huge_offset(buffer.array.ctypes.data)


def test_large_parts_of_a_file_lie_in_huge_pages_as_in_the_file(
    dma: Dma, iommu: Iommu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        iommu, "map_file", lambda _, __, size, iova, way: iommu.map(0, size, iova, way)
    )
    fd = os.memfd_create("large")
    try:
        os.truncate(fd, 4 * HUGE_PAGE)
        with dma.map_file(fd, 2 * HUGE_PAGE, 7 * PAGE) as buffer:
            assert huge_offset(buffer.iova) == 7 * PAGE
    finally:
        os.close(fd)


class OwnArray(np.ndarray[Any, Any]):
    """A class derived from numpy's."""


def test_derived_arrays(dma: Dma) -> None:
    dma.map(pages()).close()
    with dma.map(pages().view(OwnArray)) as buffer:
        assert buffer.size == PAGE


@pytest.mark.parametrize("arguments", [(), (1, 2, 3)])
def test_wrong_arguments(dma: Dma, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match="an array and a direction"):
        dma.map(*arguments)
    with pytest.raises(TypeError, match="no argument 'way'"):
        dma.map(pages(), way=Direction.BOTH)  # type: ignore[call-arg]


def test_huge_pages_that_cannot_be_had_are_said(dma: Dma, caplog: pytest.LogCaptureFixture) -> None:
    with dma.alloc(np.uint8, 8, huge_pages=True) as buffer:
        assert buffer.page_size == PAGE
    assert "bell: huge pages are for memory that the kernel maps" in caplog.text


@pytest.fixture
def memfd() -> Iterator[int]:
    fd = os.memfd_create("test")
    os.truncate(fd, 4 * PAGE)
    yield fd
    os.close(fd)


def test_file_is_mapped_by_address_where_there_is_no_other_way(
    dma: Dma, iommu: Iommu, memfd: int
) -> None:
    with dma.map_file(memfd, 2 * PAGE, PAGE) as buffer:
        iommu.write(buffer.at(PAGE), b"seen", "ring")
        assert buffer.array[PAGE : PAGE + 4].tobytes() == b"seen"
    assert os.pread(memfd, 4, 2 * PAGE) == b"seen"


@pytest.mark.parametrize(
    ("size", "offset"), [(PAGE, 0), (2 * PAGE, HUGE_PAGE + PAGE), (2 * HUGE_PAGE, 0)]
)
def test_huge_pages_of_a_file(dma: Dma, iommu: Iommu, size: int, offset: int) -> None:
    """Any pages of them, and afterwards nothing of the file is left in this process."""
    with huge_pages(2):
        fd = os.memfd_create("huge", os.MFD_HUGETLB | os.MFD_HUGE_2MB)
        try:
            os.ftruncate(fd, 2 * HUGE_PAGE)
            with dma.map_file(fd, size, offset) as buffer:
                iommu.write(buffer.at(size - 4), b"seen", "ring")
                assert (buffer.size, buffer.array.size) == (size, size)
                assert huge_offset(buffer.array.ctypes.data) == huge_offset(offset)
            del buffer
            with mmap.mmap(fd, 2 * HUGE_PAGE) as whole:
                assert whole[offset + size - 4 : offset + size] == b"seen"
            assert "memfd:huge" not in Path("/proc/self/maps").read_text(encoding="ascii")
        finally:
            os.close(fd)


def test_file_is_mapped_by_itself_where_that_can_be(
    dma: Dma, iommu: Iommu, memfd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def map_file(fd: int, offset: int, size: int, iova: Iova, direction: Direction) -> Iova:
        asked.append((fd, offset, size, direction))
        return iommu.map(0, size, iova, direction)

    monkeypatch.setattr(iommu, "map_file", map_file)
    with dma.map_file(memfd, 2 * PAGE, PAGE, Direction.TO_DEVICE) as buffer:
        assert (buffer.size, buffer.direction) == (2 * PAGE, Direction.TO_DEVICE)
    assert asked == [(memfd, PAGE, 2 * PAGE, Direction.TO_DEVICE)]


def test_file_that_cannot_be_seen_here(
    dma: Dma, iommu: Iommu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a dma-buf that its exporter lets nobody map."""
    ends = os.pipe()
    with pytest.raises(UnsupportedError, match="cannot be mapped by its file"):
        dma.map_file(ends[0], PAGE)
    monkeypatch.setattr(
        iommu, "map_file", lambda _, __, size, iova, way: iommu.map(0, size, iova, way)
    )
    with (
        dma.map_file(ends[0], PAGE) as buffer,
        pytest.raises(UnsupportedError, match=r"at IOVA 0x\w+ is a file's memory"),
    ):
        assert buffer.array is None
    for end in ends:
        os.close(end)


@pytest.mark.parametrize(
    ("size", "offset", "error"),
    [
        (100, 0, "expected multiples of the page"),
        (PAGE, 100, "expected multiples of the page"),
        (0, 0, "expected multiples of the page"),
        (-PAGE, 0, "expected multiples of the page"),
        (2 * PAGE, 3 * PAGE, "the file has no 0x2000 bytes from 0x3000 on"),
    ],
)
def test_part_of_a_file_that_cannot_be(
    dma: Dma, memfd: int, size: int, offset: int, error: str
) -> None:
    with pytest.raises(RegisterValueError, match=error):
        dma.map_file(memfd, size, offset)


def test_file_that_is_closed(dma: Dma) -> None:
    with pytest.raises(HostError, match="file descriptor 1000: Bad file descriptor"):
        dma.map_file(1000, PAGE)


def test_nobody_tracks_a_model(dma: Dma) -> None:
    with pytest.raises(UnsupportedError, match="nobody tracks"):
        dma.start_dirty_tracking()
    with pytest.raises(UnsupportedError, match="nobody tracks"):
        dma.dirty_pages(dma.alloc(np.uint8))


def page_of_numpy() -> npt.NDArray[np.uint8]:
    """An array that begins with a page, in memory that numpy owns."""
    memory = np.zeros(3 * PAGE, np.uint8)
    start = -memory.ctypes.data % PAGE
    return memory[start:]


def test_last_page_must_be_the_arrays_own(dma: Dma) -> None:
    """What follows an array in its last page would be shown to the device too."""
    array = page_of_numpy()
    dma.map(array[:PAGE])
    with pytest.raises(RegisterValueError, match="ends 0x64 bytes into a page"):
        dma.map(array[: PAGE + 100])
    dma.map(pages(2)[: PAGE + 100])  # a mapping of its own ends with its last page


def test_read_only_memory_is_not_written(dma: Dma) -> None:
    array = pages()
    array.flags.writeable = False
    with pytest.raises(RegisterValueError, match=r"read-only.*Direction\.TO_DEVICE"):
        dma.map(array)
    assert dma.map(array, Direction.TO_DEVICE).direction is Direction.TO_DEVICE


def test_no_direction_at_all(dma: Dma) -> None:
    with pytest.raises(RegisterValueError, match="may not use at all"):
        dma.alloc(np.uint8, 1, Direction(0))


def test_offsets_in_a_buffer(dma: Dma) -> None:
    buffer = dma.alloc(np.uint8, 100)
    assert buffer.at(99) == buffer.iova + 99
    for offset in (-1, 100, PAGE):
        with pytest.raises(RegisterValueError, match=r"outside of the DMA buffer \(0x64 bytes\)"):
            buffer.at(offset)


def test_closed_buffer_is_ordinary_memory(dma: Dma, iommu: Iommu) -> None:
    buffer = dma.alloc(np.uint8, 16)
    iova = buffer.iova
    buffer.array[:] = 5
    assert repr(buffer) == "<DmaBuffer IOVA 0x1000, 0x10 bytes, BOTH>"
    buffer.close()
    buffer.close()
    assert buffer.closed
    assert repr(buffer) == "<DmaBuffer closed, 0x10 bytes, BOTH>"
    buffer.array[0] += 1
    assert buffer.array.sum() == 81
    uses: list[Callable[[], object]] = [lambda: buffer.iova, lambda: buffer.at(0)]
    for use in uses:
        with pytest.raises(ClosedError, match="the DMA buffer at IOVA 0x1000 is closed"):
            use()
    with pytest.raises(DeviceError, match=r"ring \(0x10\) carried .* was unmapped before"):
        iommu.read(iova, 16, "ring (0x10)")


def is_mapped(address: int) -> bool:
    lines = Path("/proc/self/maps").read_text(encoding="ascii").splitlines()
    spans = (line.split()[0].split("-") for line in lines)
    return any(int(start, 16) <= address < int(end, 16) for start, end in spans)


def test_memory_goes_with_its_last_array(dma: Dma) -> None:
    """By counting references alone: a cycle would keep it until some later day."""
    gc.disable()
    try:
        buffer = dma.alloc(np.uint8, PAGE)
        view = buffer.array[10:20]
        address, gone = buffer.array.ctypes.data, weakref.ref(buffer)
        buffer.close()
        del buffer
        assert gone() is None
        view[:] = 1
        assert is_mapped(address)
        del view
        assert not is_mapped(address)
    finally:
        gc.enable()


def test_memory_stays_while_the_device_has_it(dma: Dma, iommu: Iommu) -> None:
    iova = dma.alloc(np.uint8, PAGE).iova
    gc.collect()
    iommu.write(iova, b"late", "ring")
    assert dma.buffers[0].array[:4].tobytes() == b"late"


def test_close_unmaps_everything_and_refuses_more(dma: Dma, iommu: Iommu) -> None:
    buffers = [dma.alloc(np.uint8) for _ in range(3)]
    dma.close()
    dma.close()
    assert all(buffer.closed for buffer in buffers)
    assert iommu._mappings == []
    uses: list[Callable[[], object]] = [lambda: dma.alloc(np.uint8), lambda: dma.map(pages())]
    for use in uses:
        with pytest.raises(ClosedError, match="bell: its DMA memory was unmapped"):
            use()


def test_array_of_a_buffer_cannot_be_replaced(dma: Dma) -> None:
    """The device would go on writing to memory that nobody keeps."""
    buffer = dma.alloc(np.uint8, 16)
    with pytest.raises(AttributeError):
        buffer.array = np.zeros(16, np.uint8)  # type: ignore[misc]


def test_nothing_is_mapped_behind_the_back_of_close(dma: Dma, iommu: Iommu) -> None:
    mapping, closing = threading.Event(), threading.Thread(target=dma.close)
    inner = iommu.map

    def slow_map(*arguments: Any) -> Iova:
        closing.start()
        mapping.wait(0.05)  # `close` has all the time to run, and waits
        return inner(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(iommu, "map", slow_map)
        buffer = dma.alloc(np.uint8, 16)
    closing.join(WAIT)
    assert buffer.closed
    assert dma.buffers == ()


def test_close_closes_every_buffer_even_if_the_host_fails(
    iommu: Iommu, monkeypatch: pytest.MonkeyPatch
) -> None:
    dma = Dma(iommu, "bell", 32)
    buffers = [dma.alloc(np.uint8), dma.alloc(np.uint8)]

    def fail() -> None:
        raise HostError("the host is on fire")

    monkeypatch.setattr(iommu, "unmap_all", fail)
    with pytest.raises(HostError, match="on fire"):
        dma.close()
    assert [buffer.closed for buffer in buffers] == [True, True]
    assert dma.buffers == ()
    dma.close()


def test_iova_of_what_could_not_be_unmapped_goes_to_nobody(dma: Dma, iommu: Iommu) -> None:
    """The device may reach it still."""
    buffer = dma.alloc(np.uint8)
    iommu.unmap(buffer.iova, PAGE)
    with pytest.raises(DeviceError, match="nothing of 0x1000 bytes is mapped at 0x1000"):
        buffer.close()
    assert dma._iovas is not None
    assert dma._iovas.count == 1


def test_physical_memory_has_one_iova() -> None:
    space = PhysicalSpace(0x7000)
    dma = Dma(space, "bell", 32)
    array = pages()
    first, second = dma.map(array), dma.map(array)
    assert first.iova == second.iova == 0x7000
    first.close()
    second.close()
    assert space.unmapped == [0x7000, 0x7000]


def test_physical_memory_out_of_reach_is_let_go() -> None:
    space = PhysicalSpace(1 << 32)
    dma = Dma(space, "bell", 32)
    expected = "bell: the memory is at 0x100000000, past the device's reach 0xffffffff"
    with pytest.raises(UnsupportedError, match=expected):
        dma.alloc(np.uint8)
    assert (space.unmapped, dma.buffers) == ([1 << 32], ())


def test_many_threads_share_it(dma: Dma, iommu: Iommu) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(50):
                with dma.alloc(np.uint8, 8) as buffer:
                    iommu.write(buffer.iova, b"12345678", "ring")
                    assert buffer.array.tobytes() == b"12345678"
        except BaseException as failure:  # noqa: BLE001 - shown by the assertion
            failures.append(failure)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert failures == []
    assert iommu._mappings == []


def test_publish_stores_and_collect_reads() -> None:
    class Doorbell:
        rung: list[int] = []

        def write(self, value: int, /) -> None:
            self.rung.append(value)

    publish(Doorbell(), 7)
    assert Doorbell.rung == [7]
    assert collect(lambda: 5) == 5


def test_dirty_pages_are_asked_for_whole_mappings() -> None:
    """A part of a huge page is mapped, and asked for, with all of that page."""

    class Tracking(PhysicalSpace):
        def dirty_pages(self, iova: Iova, size: int) -> bytes:
            assert (iova, size) == (HUGE_PAGE, HUGE_PAGE)
            return b"\x01" + bytes(size // PAGE // 8 - 1)

    dma = Dma(Tracking(HUGE_PAGE), "bell", 64)
    array = np.frombuffer(mmap.mmap(-1, HUGE_PAGE), np.uint8)[: 2 * PAGE]
    place = array.ctypes.data, array.nbytes, HUGE_PAGE, HUGE_PAGE
    buffer = dma._map_checked(array, Direction.BOTH, *place, None)
    assert list(dma.dirty_pages(buffer)) == [True, False]
    dma.close()


def test_it_is_made_once(dma: Dma, iommu: Iommu) -> None:
    with pytest.raises(TypeError, match="it has its parts already"):
        dma.__init__(iommu, "bell", 32)  # type: ignore[misc]
    assert dma.alloc(np.uint8).direction is Direction.BOTH

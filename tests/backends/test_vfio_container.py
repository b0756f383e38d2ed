"""A type1 container and a fake kernel: unmapping all, dirty pages, sizes of the structures."""

from __future__ import annotations

import ctypes
import errno
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.backends.fake_vfio import FakeVfio, iommu_info
from uspace_drv.backends.vfio import uapi
from uspace_drv.backends.vfio.container import Container, locked_memory
from uspace_drv.backends.vfio.uapi import Type1Request, dirty
from uspace_drv.errors import DeviceError, HostError, UnsupportedError
from uspace_drv.port import Iova

PAGE = 0x1000

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeVfio:
    return FakeVfio(monkeypatch)


@pytest.fixture
def container(kernel: FakeVfio) -> Iterator[Container]:
    container = Container("0000:00:04.0")
    yield container
    container.close()


@pytest.mark.parametrize(
    ("structure", "size"),
    [
        (dirty.Bitmap, 24),
        (dirty.DirtySwitch, 8),
        (dirty.DirtyGet, 48),
        (dirty.UnmapWithBitmap, 48),
        (uapi.DmaUnmap, 24),
    ],
)
def test_sizes_are_the_kernels(structure: type[ctypes.Structure], size: int) -> None:
    assert ctypes.sizeof(structure) == size
    assert dirty.DirtyGet.bitmap.offset == dirty.UnmapWithBitmap.bitmap.offset == 24


def test_all_is_unmapped_in_one_call(
    kernel: FakeVfio, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int, int]] = []
    monkeypatch.setattr(
        kernel, "iommu_unmap_dma", lambda each: calls.append((each.flags, each.iova, each.size))
    )
    container.unmap_all()
    assert calls == [(dirty.UnmapFlag.ALL, 0, 0)]


def test_kernel_before_5_12_unmaps_by_range(
    kernel: FakeVfio, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int]] = []

    def unmap(argument: Any) -> None:
        if argument.flags:
            raise OSError(errno.EINVAL, "Invalid argument")
        calls.append((argument.iova, argument.size))

    monkeypatch.setattr(kernel, "iommu_unmap_dma", unmap)
    container.unmap_all()
    assert calls == [(0, 0x10000)]


def test_other_failures_of_unmapping_all_are_said(kernel: FakeVfio, container: Container) -> None:
    kernel.fails[Type1Request.IOMMU_UNMAP_DMA.name] = errno.ENOMEM
    with pytest.raises(HostError, match="IOMMU_UNMAP_DMA"):
        container.unmap_all()


@pytest.mark.parametrize("number", [errno.ENOTTY, errno.EINVAL])
def test_no_tracking_names_the_kernel(kernel: FakeVfio, container: Container, number: int) -> None:
    kernel.fails[Type1Request.IOMMU_DIRTY_PAGES.name] = number
    with pytest.raises(UnsupportedError, match=r"takes Linux 5\.8 or newer and type1v2"):
        container.start_dirty_tracking()


def test_dirty_pages_are_the_kernels_bits(
    kernel: FakeVfio, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(argument: Any) -> None:
        if not isinstance(argument, dirty.DirtyGet):
            return
        assert (argument.flags, argument.argsz) == (dirty.DirtyFlag.GET_BITMAP, 48)
        assert (argument.bitmap.pgsize, argument.bitmap.size) == (PAGE, 16)
        ctypes.memmove(argument.bitmap.data, b"\x05" + bytes(7) + b"\x20", 9)

    monkeypatch.setattr(kernel, "iommu_dirty_pages", answer, raising=False)
    container.start_dirty_tracking()
    assert container.dirty_pages(Iova(0x1000), 70 * PAGE) == b"\x05" + bytes(7) + b"\x20" + bytes(7)
    container.stop_dirty_tracking()


def test_dirty_pages_that_nobody_tracks(kernel: FakeVfio, container: Container) -> None:
    kernel.fails[Type1Request.IOMMU_DIRTY_PAGES.name] = errno.EINVAL
    with pytest.raises(HostError, match=r"at IOVA 0x1000: track them first"):
        container.dirty_pages(Iova(0x1000), PAGE)


def test_unmapping_too_little_is_an_error(kernel: FakeVfio, container: Container) -> None:
    with pytest.raises(DeviceError, match="unmapped 0x0 of 0x1000 bytes"):
        container.unmap_dirty(Iova(0x1000), PAGE)


def test_locked_memory_is_a_number_of_bytes() -> None:
    assert locked_memory() % 1024 == 0


@pytest.mark.parametrize(
    ("place", "value"),
    [(28, 24), (28, 0x1000), (32, 1000)],
    ids=["a circle", "past the end", "more ranges than there is room for"],
)
def test_what_the_kernel_says_is_looked_at(
    kernel: FakeVfio, container: Container, place: int, value: int
) -> None:
    info = bytearray(iommu_info([(0, 0xFFFF)], 100))
    info[place : place + 4] = value.to_bytes(4, sys.byteorder)
    kernel.iommu_info = bytes(info)
    with pytest.raises(HostError, match="what the kernel says makes no sense"):
        _ = container.ranges

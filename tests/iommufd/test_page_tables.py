"""Page tables, virtual IOMMUs and options: what is asked of the kernel, and what is made of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.iommufd.fake_iommu import FakeIommu
from uspace_drv.errors import HostError
from uspace_drv.iommufd import (
    Hwpt,
    HwptData,
    HwptFlag,
    InvalidateData,
    Iommufd,
    Nesting,
    Smmuv3Command,
    ViommuType,
    VtdInvalidation,
)
from uspace_drv.iommufd.uapi.requests import Request

DEVICE = 77
PAGE = 4096


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeIommu:
    return FakeIommu(monkeypatch)


@pytest.fixture
def iommufd(fake: FakeIommu) -> Iterator[Iommufd]:
    opened = Iommufd("0000:00:04.0")
    yield opened
    opened.close()
    for fd in fake.queues.values():
        os.close(fd)


@pytest.fixture
def table(iommufd: Iommufd) -> Hwpt:
    return iommufd.alloc_hwpt(DEVICE, iommufd.alloc_ioas(), HwptFlag.DIRTY_TRACKING)


def test_any_pages_may_be_dirty(fake: FakeIommu, table: Hwpt) -> None:
    @given(st.lists(st.booleans(), min_size=1, max_size=200))
    def check(dirty: list[bool]) -> None:
        fake.dirty = sum(1 << place for place, each in enumerate(dirty) if each)
        size = len(dirty) * PAGE
        assert table.dirty_pages(0, size, PAGE, clear=False).tolist() == dirty
        assert table.dirty_pages(0, size, PAGE).tolist() == dirty
        assert not table.dirty_pages(0, size, PAGE).any()

    check()


def test_tracks_what_is_written_while_it_is_asked_to(fake: FakeIommu, table: Hwpt) -> None:
    table.start_dirty_tracking()
    assert fake.tracking
    table.stop_dirty_tracking()
    assert not fake.tracking


def test_hands_over_how_the_first_stage_looks(fake: FakeIommu, iommufd: Iommufd) -> None:
    parent = iommufd.alloc_hwpt(DEVICE, iommufd.alloc_ioas(), HwptFlag.NEST_PARENT)
    faults = iommufd.alloc_fault_queue()
    nesting = Nesting(HwptData.VTD_S1, bytes(range(24)))
    iommufd.alloc_hwpt(DEVICE, parent, HwptFlag.PASID, nesting=nesting, faults=faults)
    assert fake.page_tables == [
        (HwptFlag.NEST_PARENT, 0, HwptData.NONE, b""),
        (8 | 4, faults.id, HwptData.VTD_S1, bytes(range(24))),
    ]


def test_hands_over_invalidations_in_order(fake: FakeIommu, table: Hwpt) -> None:
    entries = VtdInvalidation.array(3)
    entries["addr"] = [0x1000, 0x2000, 0x3000]
    entries["npages"] = 1
    table.invalidate(InvalidateData.VTD_S1, entries[::-1])  # an array need not be contiguous
    assert VtdInvalidation.view(fake.invalidated)["addr"].tolist() == [0x3000, 0x2000, 0x1000]
    fake.valid = 2
    with pytest.raises(HostError, match="2 of 3 entries were done before") as caught:
        table.invalidate(InvalidateData.VTD_S1, entries)
    assert caught.value.errno == errno.EINVAL


def test_asks_whether_a_kind_is_known(fake: FakeIommu, iommufd: Iommufd, table: Hwpt) -> None:
    viommu = iommufd.alloc_viommu(DEVICE, table, ViommuType.ARM_SMMUV3)
    viommu.invalidate(InvalidateData.ARM_SMMUV3, Smmuv3Command.array(0))
    assert (fake.asked[-1], fake.invalidated) == (Request.HWPT_INVALIDATE, b"")


def test_keeps_what_the_vendor_answers(iommufd: Iommufd, table: Hwpt) -> None:
    assert iommufd.alloc_viommu(DEVICE, table, 9, bytes([1, 2, 3])).data == bytes([2, 3, 4])
    assert iommufd.alloc_viommu(DEVICE, table, 9).data == b""


def test_options_are_of_one_object_or_of_all(fake: FakeIommu, iommufd: Iommufd) -> None:
    first, second = iommufd.alloc_ioas(), iommufd.alloc_ioas()
    first.huge_pages = True
    assert (first.huge_pages, second.huge_pages, iommufd.charges_process) == (True, False, False)
    iommufd.charges_process = True
    assert iommufd.charges_process
    assert fake.options == {(1, first.id): 1, (0, 0): 1}


def test_the_old_interface_has_one_address_space_or_none(iommufd: Iommufd) -> None:
    ioas = iommufd.alloc_ioas()
    assert iommufd.vfio_ioas is None
    iommufd.vfio_ioas = ioas.id
    assert iommufd.vfio_ioas == ioas.id
    iommufd.vfio_ioas = None
    assert iommufd.vfio_ioas is None


def test_other_refusals_are_told(fake: FakeIommu, iommufd: Iommufd) -> None:
    fake.fails = {Request.VFIO_IOAS: errno.EPERM, Request.IOAS_UNMAP: errno.EBUSY}
    with pytest.raises(HostError, match="IOMMU_VFIO_IOAS"):
        iommufd.vfio_ioas  # noqa: B018
    with pytest.raises(HostError, match="something still uses it"):
        iommufd.alloc_ioas().unmap_all()


def test_an_array_of_another_kind_is_measured_by_its_entries(fake: FakeIommu, table: Hwpt) -> None:
    table.invalidate(0xDEAD, np.array([(1, 2)], [("a", "<u4"), ("b", "<u4")]))
    assert fake.invalidated == bytes([1, 0, 0, 0, 2, 0, 0, 0])

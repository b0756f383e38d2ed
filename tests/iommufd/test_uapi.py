"""Structures of /dev/iommu against those of Linux 7.3.4, as gcc lays them out on x86-64."""

from __future__ import annotations

import ctypes

import pytest

from uspace_drv.iommufd import fault_queue, page_table
from uspace_drv.iommufd.uapi import memory, page_tables, queues
from uspace_drv.iommufd.uapi.requests import Request
from uspace_drv.layout import Layout

# sizeof and offsetof of each member, in order.
STRUCTURES: dict[type[ctypes.Structure], tuple[int, list[int]]] = {
    memory.Destroy: (8, [0, 4]),
    memory.IoasAlloc: (12, [0, 4, 8]),
    memory.IovaRangeEntry: (16, [0, 8]),
    memory.IoasIovaRanges: (32, [0, 4, 8, 12, 16, 24]),
    memory.IoasAllowIovas: (24, [0, 4, 8, 12, 16]),
    memory.IoasMap: (40, [0, 4, 8, 12, 16, 24, 32]),
    memory.IoasMapFile: (40, [0, 4, 8, 12, 16, 24, 32]),
    memory.IoasCopy: (40, [0, 4, 8, 12, 16, 24, 32]),
    memory.IoasUnmap: (24, [0, 4, 8, 16]),
    memory.IoasChangeProcess: (8, [0, 4]),
    memory.IoasNoiommuGetPa: (40, [0, 4, 8, 12, 16, 24, 32]),
    memory.OptionValue: (24, [0, 4, 8, 10, 12, 16]),
    memory.VfioIoas: (12, [0, 4, 8, 10]),
    page_tables.HwptAlloc: (48, [0, 4, 8, 12, 16, 20, 24, 28, 32, 40, 44]),
    page_tables.HwInfo: (40, [0, 4, 8, 12, 16, 24, 28, 29, 32]),
    page_tables.HwptSetDirtyTracking: (16, [0, 4, 8, 12]),
    page_tables.HwptGetDirtyBitmap: (48, [0, 4, 8, 12, 16, 24, 32, 40]),
    page_tables.HwptInvalidate: (32, [0, 4, 8, 16, 20, 24, 28]),
    page_tables.HwInfoVtd: (24, [0, 4, 8, 16]),
    page_tables.HwInfoSmmuv3: (40, [0, 4, 8, 32, 36]),
    page_tables.HwInfoAmd: (16, [0, 8]),
    queues.FaultAlloc: (16, [0, 4, 8, 12]),
    queues.ViommuAlloc: (40, [0, 4, 8, 12, 16, 20, 24, 28, 32]),
    queues.VdeviceAlloc: (24, [0, 4, 8, 12, 16]),
    queues.VeventqAlloc: (32, [0, 4, 8, 12, 16, 20, 24, 28]),
    queues.HwQueueAlloc: (40, [0, 4, 8, 12, 16, 20, 24, 32]),
}

LAYOUTS: dict[type[Layout], tuple[int, list[int]]] = {
    fault_queue.Fault: (40, [0, 4, 8, 12, 16, 20, 24, 32, 36]),
    fault_queue.Answer: (8, [0, 4]),
    page_table.VtdInvalidation: (24, [0, 8, 16, 20]),
    page_table.Smmuv3Command: (16, [0]),
}


@pytest.mark.parametrize("ours", STRUCTURES, ids=lambda ours: ours.__name__)
def test_lies_as_the_kernel_has_it(ours: type[ctypes.Structure]) -> None:
    offsets = [getattr(ours, name).offset for name, *_ in ours._fields_]
    assert (ctypes.sizeof(ours), offsets) == STRUCTURES[ours]


@pytest.mark.parametrize("ours", LAYOUTS, ids=lambda ours: ours.__name__)
def test_records_lie_as_the_kernel_has_them(ours: type[Layout]) -> None:
    assert (ours.SIZE, [each.offset for each in ours.MEMBERS.values()]) == LAYOUTS[ours]


def test_requests_are_numbered_in_order() -> None:
    assert [int(each) for each in Request] == list(range(0x3B80, 0x3B96))
    assert (Request.HWPT_ALLOC, Request.IOAS_NOIOMMU_GET_PA) == (0x3B89, 0x3B95)


def test_each_structure_is_here() -> None:
    modules = (memory, page_tables, queues)
    found = {each for module in modules for each in vars(module).values() if _is_ours(each)}
    assert found == set(STRUCTURES)


def _is_ours(each: object) -> bool:
    is_structure = isinstance(each, type) and issubclass(each, ctypes.Structure)
    return is_structure and each is not ctypes.Structure

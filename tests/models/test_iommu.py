"""The IOMMU of a model: what the device reaches, and the error that names the register."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import pytest

from tests.unit.specimens import Bell, BellModel
from uspace_drv import DeviceError, Direction, Iova, attach
from uspace_drv.models.iommu import REMEMBERED, Iommu

PAGE = mmap.PAGESIZE
CARRIER = r"bell: address \(0x10\) carried IOVA"

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def iommu() -> Iommu:
    return Iommu("bell", lambda: True)


def show(bell: Bell, iova: int, size: int) -> None:
    """Give the device an address."""
    bell.registers.address.write(iova)
    bell.registers.size.write(size)


def test_device_copies_memory() -> None:
    with attach(BellModel("bell"), Bell) as bell:
        source = bell.device.dma.alloc(np.uint8, PAGE + 8, Direction.TO_DEVICE)
        target = bell.device.dma.alloc(np.uint8, PAGE + 8, Direction.FROM_DEVICE)
        source.array[:] = np.arange(PAGE + 8) & 0xFF
        show(bell, source.iova, source.size)
        bell.registers.fetch.write(1)
        show(bell, target.iova, target.size)
        bell.registers.store.write(1)
        assert (target.array == source.array).all()


@pytest.mark.parametrize(
    ("offset", "size", "what"),
    [
        (0, PAGE + 1, r"for 0x1001 bytes, which runs past the end of its mapping \(0x2000\)"),
        (PAGE, 4, "for 0x4 bytes, which was never mapped"),
        (-4, 8, "for 0x8 bytes, which was never mapped"),
    ],
)
def test_address_that_is_not_mapped_names_the_register(offset: int, size: int, what: str) -> None:
    with attach(BellModel("bell"), Bell) as bell:
        buffer = bell.device.dma.alloc(np.uint8, PAGE)
        show(bell, buffer.iova + offset, size)
        with pytest.raises(DeviceError, match=f"{CARRIER} {buffer.iova + offset:#x} {what}"):
            bell.registers.fetch.write(1)


def test_use_after_unmap_names_the_register() -> None:
    with attach(BellModel("bell"), Bell) as bell:
        with bell.device.dma.alloc(np.uint8, PAGE) as buffer:
            show(bell, buffer.iova, 8)
        with pytest.raises(DeviceError, match=f"{CARRIER} 0x1000 .* was unmapped before"):
            bell.registers.fetch.write(1)


@pytest.mark.parametrize(
    ("direction", "verb"), [(Direction.FROM_DEVICE, "fetch"), (Direction.TO_DEVICE, "store")]
)
def test_direction_is_enforced(direction: Direction, verb: str) -> None:
    with attach(BellModel("bell"), Bell) as bell:
        source = bell.device.dma.alloc(np.uint8, 8)
        show(bell, source.iova, 8)
        bell.registers.fetch.write(1)
        buffer = bell.device.dma.alloc(np.uint8, 8, direction)
        show(bell, buffer.iova, 8)
        with pytest.raises(DeviceError, match=f"{CARRIER} .* is mapped {direction.name} only"):
            getattr(bell.registers, verb).write(1)


def test_nothing_is_reached_without_bus_mastering() -> None:
    with attach(BellModel("bell"), Bell) as bell:
        buffer = bell.device.dma.alloc(np.uint8, 8)
        show(bell, buffer.iova, 8)
        bell.device.set_bus_master(False)
        with pytest.raises(DeviceError, match=f"{CARRIER} .*, but bus mastering is off"):
            bell.registers.fetch.write(1)


@pytest.mark.parametrize("start", [0x1000, 0x2000, 0x3000, 0x4000])
def test_mappings_do_not_overlap(iommu: Iommu, start: int) -> None:
    memory = np.zeros(8 * PAGE, np.uint8).ctypes.data
    iommu.map(memory, 4 * PAGE, Iova(0x10000), Direction.BOTH)
    iommu.map(memory, 2 * PAGE, Iova(0x2000), Direction.BOTH)
    if start == 0x4000:
        assert iommu.map(memory, PAGE, Iova(start), Direction.BOTH) == start
        return
    with pytest.raises(DeviceError, match=f"bell: IOVA {start:#x} is mapped already"):
        iommu.map(memory, 2 * PAGE, Iova(start), Direction.BOTH)


@pytest.mark.parametrize(("iova", "size"), [(0x1000, PAGE), (0x2000, 2 * PAGE), (0x5000, PAGE)])
def test_unmap_takes_what_was_mapped_and_nothing_else(iommu: Iommu, iova: int, size: int) -> None:
    iommu.map(0, 2 * PAGE, Iova(0x1000), Direction.BOTH)
    with pytest.raises(DeviceError, match=f"nothing of {size:#x} bytes is mapped at {iova:#x}"):
        iommu.unmap(Iova(iova), size)
    iommu.unmap(Iova(0x1000), 2 * PAGE)


def test_a_mapping_needs_an_iova(iommu: Iommu) -> None:
    with pytest.raises(DeviceError, match="a mapping needs an IOVA"):
        iommu.map(0, PAGE, None, Direction.BOTH)


def test_against_bytes_of_the_twin(iommu: Iommu) -> None:
    """Many mappings at once: each address leads to its own memory."""
    arrays: dict[int, Any] = {n: np.full(PAGE, n % 251, np.uint8) for n in range(1, 400, 3)}
    for number, array in reversed(arrays.items()):
        iommu.map(array.ctypes.data, PAGE, Iova(number * PAGE), Direction.BOTH)
    for number, array in arrays.items():
        iommu.write(number * PAGE + 5, b"\xff", "x")
        assert iommu.read(number * PAGE, PAGE, "x") == array.tobytes()
        assert array[5] == 0xFF


def test_remembers_only_so_many(iommu: Iommu) -> None:
    for number in range(1, REMEMBERED + 2):
        iommu.map(0, PAGE, Iova(number * PAGE), Direction.BOTH)
        iommu.unmap(Iova(number * PAGE), PAGE)
    with pytest.raises(DeviceError, match="never mapped"):
        iommu.read(PAGE, 1, "x")
    with pytest.raises(DeviceError, match="unmapped before"):
        iommu.read(2 * PAGE, 1, "x")

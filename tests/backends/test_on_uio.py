"""What only a real kernel's UIO can show. Runs in the guest, without an IOMMU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from uspace_drivers.edu import Edu, EduModel
from uspace_drv import BusyError, HostError, IrqKind, UnsupportedError, attach
from uspace_drv.opening import open_backend
from uspace_drv.pci.sysfs import PciBus

pytestmark = pytest.mark.via("uio")


@pytest.fixture
def address(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--device"))


@pytest.fixture
def edu(address: str) -> Iterator[Edu]:
    with attach(address, Edu, unsafe_dma_without_iommu=True) as driver:
        yield driver


def test_is_found_by_its_node(address: str) -> None:
    node = PciBus().function(address).uio
    with attach(f"uio:{node}") as driver:
        assert isinstance(driver, Edu)
        assert driver.device.irq_kind is IrqKind.INTX


def test_dma_needs_the_opt_in(address: str) -> None:
    with attach(address, Edu) as edu, pytest.raises(UnsupportedError, match="unsafe_dma_without"):
        edu.store(b"x")


def test_memory_is_physical_and_in_reach(edu: Edu) -> None:
    with edu.device.dma.alloc(np.uint8, 1 << 16) as buffer:
        assert buffer.iova + buffer.size <= 1 << edu.dma_bits
        assert buffer.iova % 4096 == 0


def test_memory_that_may_move_is_refused(edu: Edu) -> None:
    with edu.device.dma.alloc(np.uint8, 4096) as buffer:
        movable = np.empty(4 * 4096, np.uint8)
        start = -movable.ctypes.data % 4096
        with pytest.raises(UnsupportedError, match=r"only memory from dma\.alloc"):
            edu.device.dma.map(movable[start : start + 4096])
        assert not buffer.closed


def test_huge_pages_come_back(edu: Edu) -> None:
    def free() -> int:
        return int(Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").read_text())

    before = free()
    buffer = edu.device.dma.alloc(np.uint8, 4096)
    assert free() == before - 1
    buffer.close()
    del buffer
    assert free() == before


def test_running_out_of_huge_pages_says_how_to_get_more(edu: Edu) -> None:
    pages = int(Path("/proc/sys/vm/nr_hugepages").read_text())
    held = [edu.device.dma.alloc(np.uint8, 4096) for _ in range(pages)]
    with pytest.raises(HostError, match=r"no huge page of 2 MiB is free.*nr_hugepages"):
        edu.device.dma.alloc(np.uint8, 4096)
    assert len(held) == pages


def test_more_than_a_huge_page_is_refused(edu: Edu) -> None:
    with pytest.raises(UnsupportedError, match="adjacent huge pages"):
        edu.device.dma.alloc(np.uint8, (2 << 20) + 1)


def test_messages_are_not_to_be_had(address: str) -> None:
    with pytest.raises(UnsupportedError, match="no msi interrupts through uio"):
        attach(address, Edu, irq_kind=IrqKind.MSI)


def test_a_second_attach_is_refused(address: str) -> None:
    with attach(address, Edu), pytest.raises(BusyError, match="has it"):
        attach(address, Edu)


def test_vfio_says_that_it_is_bound_to_uio(address: str) -> None:
    with pytest.raises(HostError, match="bound to uio_pci_generic, not to vfio-pci"):
        attach(address, Edu, via="vfio")


def test_bars_are_those_of_the_model(address: str) -> None:
    backend = open_backend(address)
    assert backend.bar_sizes == {0: EduModel.bars[0].size}
    backend.close()

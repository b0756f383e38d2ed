"""/dev/iommu with a real device behind it, where the stand-in has nothing to say."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from uspace_drv.backends.vfio import uapi
from uspace_drv.backends.vfio.call import call
from uspace_drv.errors import HostError, UnsupportedError
from uspace_drv.iommufd import HwCapability, HwInfoType, HwptFlag, Iommufd
from uspace_drv.port import Direction

pytestmark = pytest.mark.usefixtures("nothing_left")

PAGE = mmap.PAGESIZE
SIZE = 8 * PAGE
IOVA = 0x10_0000


class Bound:
    """A function that is bound to an iommufd: the number that it has there, and its node."""

    def __init__(self, address: str) -> None:
        (node,) = Path(f"/sys/bus/pci/devices/{address}/vfio-dev").iterdir()
        self.iommufd = Iommufd(address)
        self._name = address
        self._fd = os.open(f"/dev/vfio/devices/{_node_name(node.name)}", os.O_RDWR)
        argument = uapi.BindIommufd(argsz=16, iommufd=self.iommufd.fd)
        call(address, self._fd, uapi.Request.DEVICE_BIND_IOMMUFD, argument)
        self.id: int = argument.out_devid

    def attach(self, page_table: int) -> None:
        argument = uapi.AttachIommufd(argsz=ctypes.sizeof(uapi.AttachIommufd), pt_id=page_table)
        call(self._name, self._fd, uapi.Request.DEVICE_ATTACH_IOMMUFD_PT, argument)

    def close(self) -> None:
        os.close(self._fd)
        self.iommufd.close()


def _node_name(name: str) -> str:
    """What has no IOMMU is called so, to warn whoever opens it."""
    plain = Path(f"/dev/vfio/devices/{name}")
    return name if plain.exists() else f"noiommu-{name}"


@pytest.fixture
def bound(request: pytest.FixtureRequest) -> Iterator[Bound]:
    device = Bound(request.config.getoption("--device"))
    yield device
    device.close()


@pytest.mark.via("vfio-cdev")
def test_reads_the_registers_of_the_iommu(bound: Bound) -> None:
    hardware = bound.iommufd.hardware(bound.id)
    if hardware.kind is not HwInfoType.INTEL_VTD:
        pytest.skip(f"this one is {hardware.kind!r}")
    (unit,) = Path("/sys/class/iommu").glob("dmar*/intel-iommu")
    for name in ("cap", "ecap"):
        assert int(hardware.registers[name]) == int((unit / name).read_text(), 16)
    assert HwCapability.PCI_ATS_NOT_SUPPORTED in hardware.capabilities


@pytest.mark.via("vfio-cdev")
def test_a_device_moves_between_page_tables(bound: Bound) -> None:
    ioas = bound.iommufd.alloc_ioas()
    bound.attach(ioas.id)
    table = bound.iommufd.alloc_hwpt(bound.id, ioas)
    bound.attach(table.id)
    with pytest.raises(HostError, match="detach its devices"):
        table.close()
    bound.attach(ioas.id)
    table.close()


@pytest.mark.via("vfio-cdev")
def test_says_whether_it_tracks_dirty_pages(bound: Bound) -> None:
    ioas = bound.iommufd.alloc_ioas()
    if HwCapability.DIRTY_TRACKING in bound.iommufd.hardware(bound.id).capabilities:
        bound.iommufd.alloc_hwpt(bound.id, ioas, HwptFlag.DIRTY_TRACKING).start_dirty_tracking()
    else:
        with pytest.raises(UnsupportedError, match="this machine's IOMMU"):
            bound.iommufd.alloc_hwpt(bound.id, ioas, HwptFlag.DIRTY_TRACKING)


@pytest.mark.via("vfio-noiommu-cdev")
def test_knows_where_memory_lies_without_an_iommu(bound: Bound) -> None:
    ioas = bound.iommufd.alloc_ioas()
    bound.attach(ioas.id)
    with mmap.mmap(-1, SIZE) as pages:
        pages[:] = bytes(SIZE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
        ioas.map(start, SIZE, IOVA, Direction.BOTH)
        for offset in range(0, SIZE, PAGE):
            found, length = ioas.physical(IOVA + offset, SIZE - offset)
            assert found == physical_address(start + offset)
            assert length % PAGE == 0
        found, length = ioas.physical(IOVA + 0x123, 0x10)
        assert (found, length) == (physical_address(start) + 0x123, 0x10)
        ioas.unmap_all()
        with pytest.raises(HostError, match="no object or mapping"):
            ioas.physical(IOVA, SIZE)


def physical_address(address: int) -> int:
    """As the kernel's page map has it: Linux Documentation/admin-guide/mm/pagemap.rst."""
    with Path("/proc/self/pagemap").open("rb", buffering=0) as page_map:
        entry: int = struct.unpack("<Q", os.pread(page_map.fileno(), 8, address // PAGE * 8))[0]
    return (entry & (1 << 55) - 1) * PAGE + address % PAGE

"""Every request of /dev/iommu for real, on the stand-in for an IOMMU that a test kernel has."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import select
import struct
from collections.abc import Iterator

import numpy as np
import pytest

from tests.iommufd import mock
from tests.iommufd.mock import MockDevice, is_pinned, translates_to
from uspace_drv.errors import ClosedError, HostError, UnsupportedError
from uspace_drv.iommufd import (
    FaultAccess,
    FaultFlag,
    HwCapability,
    HwInfoType,
    Hwpt,
    HwptFlag,
    Ioas,
    Iommufd,
    Nesting,
    Response,
    Viommu,
)
from uspace_drv.port import Direction, IovaRange

pytestmark = [pytest.mark.via("vfio-cdev"), pytest.mark.usefixtures("nothing_left")]

PAGE = mmap.PAGESIZE
PAGES = 8
SIZE = PAGES * PAGE
IOVA = 0x200_0000
VIRTUAL_ID = 7
NOBODY = 65534


@pytest.fixture
def iommufd() -> Iterator[Iommufd]:
    opened = Iommufd("mock")
    yield opened
    opened.close()


@pytest.fixture
def ioas(iommufd: Iommufd) -> Ioas:
    return iommufd.alloc_ioas()


@pytest.fixture
def device(iommufd: Iommufd, ioas: Ioas) -> MockDevice:
    return MockDevice(iommufd, ioas.id, MockDevice.PASID)


class Memory:
    """Some pages, of a file if there is one, and where they are."""

    def __init__(self, fd: int = -1) -> None:
        self.pages = mmap.mmap(fd, SIZE)
        self.pages[:] = bytes(SIZE)  # a page that was never touched has no place
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.pages))


@pytest.fixture
def memory() -> Iterator[Memory]:
    some = Memory()
    yield some
    some.pages.close()


@pytest.fixture
def parent(iommufd: Iommufd, ioas: Ioas, device: MockDevice) -> Hwpt:
    return iommufd.alloc_hwpt(device.id, ioas, HwptFlag.NEST_PARENT)


@pytest.fixture
def viommu(iommufd: Iommufd, device: MockDevice, parent: Hwpt) -> Viommu:
    return iommufd.alloc_viommu(device.id, parent, mock.VIOMMU)


def nesting(value: int = 0x1234) -> Nesting:
    return Nesting(mock.HWPT_DATA, struct.pack("@II", value, 0))


def test_an_attached_device_narrows_the_ranges(iommufd: Iommufd, ioas: Ioas) -> None:
    assert ioas.ranges() == [IovaRange(0, 2**64 - 1)]
    device = MockDevice(iommufd, ioas.id)
    assert ioas.ranges() == [IovaRange(mock.FIRST_IOVA, mock.LAST_IOVA)]
    assert ioas.alignment == 2048
    device.close()
    assert ioas.ranges() == [IovaRange(0, 2**64 - 1)]


def test_there_may_be_more_ranges_than_anyone_expects(iommufd: Iommufd, ioas: Ioas) -> None:
    for hole in range(40):
        mock.reserve(iommufd, ioas.id, (2 * hole + 1) * PAGE, PAGE)
    found = ioas.ranges()
    assert len(found) == 41
    assert found[1] == IovaRange(2 * PAGE, 3 * PAGE - 1)


def test_the_kernel_chooses_in_what_is_allowed(ioas: Ioas, memory: Memory) -> None:
    allowed = IovaRange(0x500_0000, 0x5FF_FFFF)
    ioas.allow([allowed])
    assert allowed.start <= ioas.map(memory.address, SIZE, None, Direction.BOTH) < allowed.end


def test_no_device_may_narrow_what_is_allowed(iommufd: Iommufd, ioas: Ioas) -> None:
    ioas.allow([IovaRange(0, 0xFFF)])
    with pytest.raises(OSError, match="in use") as caught:
        MockDevice(iommufd, ioas.id)
    assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("direction", Direction)
def test_maps_and_unmaps(
    iommufd: Iommufd, ioas: Ioas, device: MockDevice, memory: Memory, direction: Direction
) -> None:
    assert ioas.map(memory.address, SIZE, IOVA, direction) == IOVA
    assert device.maps(IOVA, SIZE, memory.address)
    assert is_pinned(iommufd, memory.address, SIZE, 1)
    assert ioas.unmap(IOVA, SIZE) == SIZE
    assert not device.maps(IOVA, SIZE, memory.address)
    assert is_pinned(iommufd, memory.address, SIZE, 0)


def test_a_range_is_mapped_once(ioas: Ioas, memory: Memory) -> None:
    ioas.map(memory.address, SIZE, IOVA, Direction.BOTH)
    with pytest.raises(HostError, match=r"mock: IOMMU_IOAS_MAP.*unmap it first") as caught:
        ioas.map(memory.address, PAGE, IOVA + PAGE, Direction.BOTH)
    assert caught.value.errno == errno.EEXIST


def test_unmaps_no_part_of_a_mapping(ioas: Ioas, memory: Memory) -> None:
    ioas.map(memory.address, SIZE, IOVA, Direction.BOTH)
    with pytest.raises(HostError, match="give its whole length"):
        ioas.unmap(IOVA, PAGE)


@pytest.mark.usefixtures("device")
def test_maps_only_where_the_device_can_reach(ioas: Ioas, memory: Memory) -> None:
    with pytest.raises(HostError, match=r"outside of what the devices can reach"):
        ioas.map(memory.address, SIZE, mock.LAST_IOVA + 1, Direction.BOTH)


@pytest.mark.usefixtures("device")
def test_a_device_cannot_write_what_this_process_cannot(ioas: Ioas) -> None:
    fd = os.memfd_create("memory")
    os.truncate(fd, SIZE)
    with mmap.mmap(fd, SIZE, prot=mmap.PROT_READ) as pages:
        os.close(fd)
        start = np.frombuffer(pages, np.uint8).ctypes.data
        assert ioas.map(start, SIZE, IOVA, Direction.TO_DEVICE) == IOVA
        ioas.unmap_all()
        for direction in (Direction.FROM_DEVICE, Direction.BOTH):
            with pytest.raises(HostError, match=r"there is no .writable. memory"):
                ioas.map(start, SIZE, IOVA, direction)


@pytest.mark.usefixtures("device")
def test_maps_only_memory(ioas: Ioas) -> None:
    with pytest.raises(HostError, match=r"there is no .writable. memory"):
        ioas.map(PAGE, SIZE, IOVA, Direction.BOTH)


def test_shares_a_mapping_between_address_spaces(
    iommufd: Iommufd, ioas: Ioas, memory: Memory
) -> None:
    other = iommufd.alloc_ioas()
    device = MockDevice(iommufd, other.id)
    ioas.map(memory.address, SIZE, IOVA, Direction.BOTH)
    iova = other.copy(ioas, IOVA, SIZE, IOVA + SIZE, Direction.BOTH)
    assert iova == IOVA + SIZE
    assert device.maps(iova, SIZE, memory.address)


def test_maps_a_file(ioas: Ioas, device: MockDevice) -> None:
    fd = os.memfd_create("memory")
    os.truncate(fd, SIZE)
    seen = Memory(fd)
    try:
        ioas.map_file(fd, PAGE, SIZE - PAGE, IOVA, Direction.BOTH)
    finally:
        os.close(fd)
    assert device.maps(IOVA, SIZE - PAGE, seen.address + PAGE)
    seen.pages.close()


def test_unmaps_everything(iommufd: Iommufd, ioas: Ioas, memory: Memory) -> None:
    for page in range(PAGES):
        ioas.map(memory.address + page * PAGE, PAGE, IOVA + 2 * page * PAGE, Direction.BOTH)
    assert ioas.unmap_all() == SIZE
    assert ioas.unmap_all() == 0
    assert is_pinned(iommufd, memory.address, SIZE, 0)


def test_another_process_takes_the_mappings_over(iommufd: Iommufd, ioas: Ioas) -> None:
    fd = os.memfd_create("memory")
    os.truncate(fd, SIZE)
    ioas.map_file(fd, 0, SIZE, IOVA, Direction.BOTH)
    os.close(fd)
    child = os.fork()
    if child == 0:
        try:
            taken = Iommufd("child", iommufd.fd)
            taken.change_process()
            os._exit(0 if taken.adopt_ioas(ioas.id).unmap(IOVA, SIZE) == SIZE else 2)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ioas.unmap_all() == 0


def test_only_mappings_of_files_change_hands(iommufd: Iommufd, ioas: Ioas, memory: Memory) -> None:
    ioas.map(memory.address, SIZE, IOVA, Direction.BOTH)
    with pytest.raises(HostError, match="use map_file"):
        iommufd.change_process()


def test_maps_page_by_page_if_asked_to(ioas: Ioas) -> None:
    assert ioas.huge_pages
    ioas.huge_pages = False
    assert not ioas.huge_pages
    ioas.huge_pages = True
    assert ioas.huge_pages


def test_chooses_page_sizes_before_it_maps(ioas: Ioas, device: MockDevice, memory: Memory) -> None:
    ioas.map(memory.address, SIZE, IOVA, Direction.BOTH)
    with pytest.raises(HostError, match="before anything is mapped"):
        ioas.huge_pages = False
    device.close()


def test_charges_the_process_if_asked_to(iommufd: Iommufd) -> None:
    assert not iommufd.charges_process
    iommufd.charges_process = True
    assert iommufd.charges_process
    iommufd.alloc_ioas()
    with pytest.raises(HostError, match="only before anything is made"):
        iommufd.charges_process = False


def test_names_the_address_space_of_the_old_interface(iommufd: Iommufd, ioas: Ioas) -> None:
    assert iommufd.vfio_ioas is None
    iommufd.vfio_ioas = ioas.id
    assert iommufd.vfio_ioas == ioas.id
    iommufd.vfio_ioas = None
    assert iommufd.vfio_ioas is None


def test_a_page_table_shows_what_the_address_space_maps(
    iommufd: Iommufd, ioas: Ioas, device: MockDevice, memory: Memory
) -> None:
    ioas.map(memory.address, SIZE, IOVA, Direction.BOTH)
    table = iommufd.alloc_hwpt(device.id, ioas)
    assert device.maps(IOVA, SIZE, memory.address, table.id)


def test_a_page_table_in_use_stays(iommufd: Iommufd, ioas: Ioas, device: MockDevice) -> None:
    table = iommufd.alloc_hwpt(device.id, ioas, HwptFlag.PASID)
    device.attach(table.id)
    with pytest.raises(HostError, match="detach its devices") as caught:
        ioas.close()
    assert caught.value.errno == errno.EBUSY
    device.close()
    ioas.close()
    with pytest.raises(ClosedError):
        table.id  # noqa: B018


def test_what_is_destroyed_is_no_more(iommufd: Iommufd, ioas: Ioas) -> None:
    number = ioas.id
    ioas.close()
    with pytest.raises(HostError, match="it was closed, or never made"):
        iommufd.adopt_ioas(number).ranges()


def test_says_what_the_iommu_can_do(iommufd: Iommufd, device: MockDevice) -> None:
    hardware = iommufd.hardware(device.id)
    assert hardware.kind == mock.HW_INFO
    assert struct.unpack("@II", hardware.data) == (0, mock.HW_INFO_VALUE)
    assert HwCapability.DIRTY_TRACKING in hardware.capabilities
    assert hardware.pasid_bits == 20
    with pytest.raises(UnsupportedError, match="IOMMU_GET_HW_INFO"):
        iommufd.hardware(device.id, HwInfoType.INTEL_VTD)


def test_refuses_dirty_tracking_without_hardware(iommufd: Iommufd, ioas: Ioas) -> None:
    device = MockDevice(iommufd, ioas.id, MockDevice.NO_DIRTY_TRACKING)
    assert HwCapability.DIRTY_TRACKING not in iommufd.hardware(device.id).capabilities
    with pytest.raises(UnsupportedError, match="this machine's IOMMU"):
        iommufd.alloc_hwpt(device.id, ioas, HwptFlag.DIRTY_TRACKING)


@pytest.mark.parametrize("dirty", [[0], [7], [0, 3, 4], list(range(PAGES)), []])
def test_finds_the_pages_that_a_device_wrote(
    iommufd: Iommufd, ioas: Ioas, device: MockDevice, memory: Memory, dirty: list[int]
) -> None:
    ioas.huge_pages = False  # one dirty bit for each page, even where they lie side by side
    table = iommufd.alloc_hwpt(device.id, ioas, HwptFlag.DIRTY_TRACKING)
    ioas.map(memory.address, SIZE, IOVA, Direction.BOTH)
    table.start_dirty_tracking()
    expected = [page in dirty for page in range(PAGES)]
    mock.write_as_a_device(iommufd, table.id, IOVA, expected)
    assert table.dirty_pages(IOVA, SIZE, PAGE, clear=False).tolist() == expected
    assert table.dirty_pages(IOVA, SIZE, PAGE).tolist() == expected
    assert not table.dirty_pages(IOVA, SIZE, PAGE).any()
    table.stop_dirty_tracking()


def test_invalidates_a_nested_page_table(
    iommufd: Iommufd, device: MockDevice, parent: Hwpt
) -> None:
    table = iommufd.alloc_hwpt(device.id, parent, nesting=nesting(0x1234))
    assert translates_to(iommufd, table.id, 1, 0x1234)
    table.invalidate(mock.HWPT_INVALIDATE, invalidations((0, 1)))
    assert translates_to(iommufd, table.id, 1, 0)
    assert translates_to(iommufd, table.id, 2, 0x1234)
    table.invalidate(mock.HWPT_INVALIDATE, invalidations((1, 0)))  # all of them
    assert translates_to(iommufd, table.id, 2, 0)


def test_says_which_invalidation_was_refused(
    iommufd: Iommufd, device: MockDevice, parent: Hwpt
) -> None:
    table = iommufd.alloc_hwpt(device.id, parent, nesting=nesting())
    with pytest.raises(HostError, match="2 of 3 entries were done before"):
        table.invalidate(mock.HWPT_INVALIDATE, invalidations((0, 0), (0, 1), (0, 99)))


def invalidations(*entries: tuple[int, ...]) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    names = ["flags", "entry"] if len(entries[0]) == 2 else ["flags", "device", "entry"]
    return np.array(list(entries), [(name, "<u4") for name in names])


def test_only_a_nesting_parent_is_one(iommufd: Iommufd, ioas: Ioas, device: MockDevice) -> None:
    table = iommufd.alloc_hwpt(device.id, ioas)
    with pytest.raises(HostError, match="nesting parent"):
        iommufd.alloc_hwpt(device.id, table, nesting=nesting())


def test_answers_the_faults_of_a_device(iommufd: Iommufd, device: MockDevice, parent: Hwpt) -> None:
    faults = iommufd.alloc_fault_queue()
    table = iommufd.alloc_hwpt(device.id, parent, nesting=nesting(), faults=faults)
    device.attach(table.id)
    assert len(faults.take()) == 0
    device.fault(0xA000, FaultAccess.READ, group=3)
    device.fault(0xB000, FaultAccess.WRITE, group=4)
    assert select.select([faults], [], [], 10)[0]
    records = faults.take()
    assert records["addr"].tolist() == [0xA000, 0xB000]
    assert records["perm"].tolist() == [FaultAccess.READ, FaultAccess.WRITE]
    assert records["grpid"].tolist() == [3, 4]
    assert records["dev_id"].tolist() == [device.id] * 2
    assert FaultFlag.LAST_PAGE in FaultFlag(int(records["flags"][0]))
    faults.answer(records["cookie"].tolist(), Response.SUCCESS)
    with pytest.raises(HostError, match="no fault waits"):
        faults.answer([records["cookie"][0]], Response.INVALID)
    device.close()
    faults.close()


def test_a_virtual_iommu_takes_data_of_its_vendor(
    iommufd: Iommufd, device: MockDevice, parent: Hwpt
) -> None:
    viommu = iommufd.alloc_viommu(
        device.id, parent, mock.VIOMMU, struct.pack("@IIQQ", 0x600DCAFE, 0, 0, 0)
    )
    _, out, offset, length = struct.unpack("@IIQQ", viommu.data)
    assert out == 0x600DCAFE
    with mmap.mmap(iommufd.fd, length, offset=offset) as shared:
        assert int.from_bytes(shared[:4], "little") == 0x600DCAFE
    viommu.close()


def test_a_virtual_iommu_needs_a_nesting_parent(
    iommufd: Iommufd, ioas: Ioas, device: MockDevice
) -> None:
    with pytest.raises(HostError, match="NEST_PARENT"):
        iommufd.alloc_viommu(device.id, iommufd.alloc_hwpt(device.id, ioas), mock.VIOMMU)


def test_a_guest_calls_its_devices_by_numbers_of_its_own(
    device: MockDevice, viommu: Viommu
) -> None:
    named = viommu.alloc_vdevice(device.id, VIRTUAL_ID)
    with pytest.raises(HostError, match="taken already"):
        viommu.alloc_vdevice(device.id, VIRTUAL_ID + 1)
    assert device.holds(2, mock.CACHE_DEFAULT)
    viommu.invalidate(mock.VIOMMU_INVALIDATE, invalidations((0, VIRTUAL_ID, 2)))
    assert device.holds(2, 0)
    assert device.holds(1, mock.CACHE_DEFAULT)
    named.close()


def test_hears_of_events_and_of_those_it_lost(
    iommufd: Iommufd, device: MockDevice, viommu: Viommu
) -> None:
    queue = viommu.alloc_event_queue(mock.EVENT_QUEUE, 2, event_size=4)
    viommu.alloc_vdevice(device.id, VIRTUAL_ID)
    table = iommufd.alloc_hwpt(device.id, viommu, nesting=nesting())
    device.attach(table.id)
    assert queue.take() == []
    for _ in range(3):
        device.event()
    assert select.select([queue], [], [], 10)[0]
    assert [event.data for event in queue.take()] == [VIRTUAL_ID.to_bytes(4, "little")] * 2
    assert queue.lost == 1
    device.event()
    assert [(event.sequence, event.lost) for event in queue.take()] == [(3, 0)]
    with pytest.raises(HostError, match="one queue of each kind"):
        viommu.alloc_event_queue(mock.EVENT_QUEUE, 2, event_size=4)
    device.close()


def test_a_queue_of_the_hardware_pins_its_mapping(
    ioas: Ioas, memory: Memory, viommu: Viommu
) -> None:
    ioas.map(memory.address, SIZE, IOVA, Direction.BOTH)
    first = viommu.alloc_hw_queue(mock.HW_QUEUE, 0, IOVA, PAGE)
    second = viommu.alloc_hw_queue(mock.HW_QUEUE, 1, IOVA + PAGE, PAGE)
    with pytest.raises(HostError, match="something still uses it"):
        ioas.unmap(IOVA, SIZE)
    second.close()
    first.close()
    assert ioas.unmap(IOVA, SIZE) == SIZE


def test_tells_no_physical_address_behind_an_iommu(
    ioas: Ioas, device: MockDevice, memory: Memory
) -> None:
    ioas.map(memory.address, SIZE, IOVA, Direction.BOTH)
    with pytest.raises(UnsupportedError, match="NOIOMMU_GET_PA"):
        ioas.physical(IOVA, SIZE)
    device.close()


def test_closes_what_was_made_from_it(
    iommufd: Iommufd, ioas: Ioas, device: MockDevice, viommu: Viommu
) -> None:
    viommu.alloc_event_queue(mock.EVENT_QUEUE, 1, event_size=4)
    iommufd.alloc_hwpt(device.id, viommu, nesting=nesting(), faults=iommufd.alloc_fault_queue())
    device.close()
    ioas.close()
    with pytest.raises(ClosedError, match="Viommu is closed"):
        viommu.id  # noqa: B018


def test_leaves_nothing_when_all_is_closed_at_once(
    iommufd: Iommufd, device: MockDevice, viommu: Viommu
) -> None:
    viommu.alloc_event_queue(mock.EVENT_QUEUE, 1, event_size=4)
    viommu.alloc_vdevice(device.id, VIRTUAL_ID)
    faults = iommufd.alloc_fault_queue()
    table = iommufd.alloc_hwpt(device.id, viommu, nesting=nesting(), faults=faults)
    device.attach(table.id)
    iommufd.close()
    with pytest.raises(ClosedError):
        faults.take()


def test_an_ordinary_user_may_lock_only_so_much(
    iommufd: Iommufd, ioas: Ioas, device: MockDevice, memory: Memory
) -> None:
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (PAGE, PAGE))
            os.setuid(NOBODY)
            ioas.map(memory.address, SIZE, IOVA, Direction.BOTH)
        except HostError as error:
            os.write(theirs, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(theirs)
    text = os.read(ours, 4096).decode()
    os.close(ours)
    assert "IOMMU_IOAS_MAP: Cannot allocate memory; this user may lock 0x1000 bytes" in text
    assert ioas.unmap_all() == 0
    device.close()
    iommufd.close()

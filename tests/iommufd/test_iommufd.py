"""Objects of /dev/iommu on a kernel that is made to fail: errors, and the order of closing."""

from __future__ import annotations

import errno
import os
import resource

import pytest

from tests.iommufd.fake_iommu import FakeIommu
from uspace_drv.errors import ClosedError, HostError, UnsupportedError
from uspace_drv.iommufd import HwptFlag, Iommufd, Response, ViommuType
from uspace_drv.iommufd.objects import OpenFile
from uspace_drv.iommufd.uapi.memory import Destroy, MapFlag
from uspace_drv.iommufd.uapi.requests import NEEDS, Request
from uspace_drv.port import Direction, IovaRange

pytestmark = pytest.mark.usefixtures("nothing_left")

NAME = "0000:00:04.0"
DEVICE = 77


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeIommu:
    return FakeIommu(monkeypatch)


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.ENOENT, "Linux 6.2 with CONFIG_IOMMUFD; run: sudo modprobe iommufd"),
        (errno.EACCES, "run: sudo chmod 666 /dev/iommu"),
    ],
)
def test_says_how_to_get_at_it(fake: FakeIommu, number: int, cure: str) -> None:
    fake.missing = number
    with pytest.raises(HostError, match=f"{NAME}: cannot open /dev/iommu: .*; .*{cure}") as caught:
        Iommufd(NAME)
    assert caught.value.errno == number
    assert caught.value.filename == "/dev/iommu"


@pytest.mark.parametrize("request_", NEEDS, ids=lambda request: request.name)
def test_names_the_kernel_that_brought_a_request(fake: FakeIommu, request_: Request) -> None:
    fake.fails[request_] = errno.ENOTTY
    file = OpenFile(NAME, os.open("/dev/iommu", os.O_RDWR))
    with pytest.raises(UnsupportedError, match=r"needs Linux \d\.\d+.*; this is Linux ") as caught:
        file.call(request_, Destroy())
    assert str(caught.value).startswith(f"{NAME}: IOMMU_{request_.name}: ")
    file.close()


def test_a_kernel_without_a_flag_is_not_broken(fake: FakeIommu) -> None:
    fake.fails[Request.HWPT_ALLOC] = errno.EOPNOTSUPP
    iommufd = Iommufd(NAME)
    with pytest.raises(UnsupportedError, match="this machine's IOMMU"):
        iommufd.alloc_hwpt(DEVICE, iommufd.alloc_ioas(), HwptFlag.DIRTY_TRACKING)
    iommufd.close()


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.EEXIST, "unmap it first"),
        (errno.EINVAL, "outside of what the devices can reach"),
        (errno.ENOSPC, "no free IOVA range"),
        (errno.EFAULT, "there is no"),
        (errno.EADDRINUSE, "reserved"),
        (errno.EPERM, "read-only"),
        (errno.EINTR, "Interrupted"),
    ],
)
def test_says_what_helps_against_a_refusal(fake: FakeIommu, number: int, cure: str) -> None:
    fake.fails[Request.IOAS_MAP] = number
    iommufd = Iommufd(NAME)
    with pytest.raises(HostError, match=f"{NAME}: IOMMU_IOAS_MAP: .*{cure}") as caught:
        iommufd.alloc_ioas().map(0, 4096, 0, Direction.BOTH)
    assert caught.value.errno == number
    iommufd.close()


@pytest.mark.parametrize(
    ("user", "limit", "cure"),
    [
        (1000, 65536, "this user may lock 0x10000 bytes .*prlimit"),
        (1000, resource.RLIM_INFINITY, "too little free memory"),
        (0, 65536, "too little free memory"),
    ],
)
def test_says_who_may_lock_how_much(
    fake: FakeIommu, monkeypatch: pytest.MonkeyPatch, user: int, limit: int, cure: str
) -> None:
    fake.fails[Request.IOAS_MAP] = errno.ENOMEM
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    iommufd = Iommufd(NAME)
    with pytest.raises(HostError, match=cure):
        iommufd.alloc_ioas().map(0, 4096, 0, Direction.BOTH)
    iommufd.close()


@pytest.mark.parametrize(
    ("direction", "access"),
    [
        (Direction.TO_DEVICE, MapFlag.READABLE),
        (Direction.FROM_DEVICE, MapFlag.WRITEABLE),
        (Direction.BOTH, MapFlag.READABLE | MapFlag.WRITEABLE),
    ],
)
def test_what_goes_to_the_device_is_what_it_reads(
    fake: FakeIommu, direction: Direction, access: MapFlag
) -> None:
    iommufd = Iommufd(NAME)
    ioas = iommufd.alloc_ioas()
    assert ioas.map(0x1000, 4096, 0, direction) == 0
    assert ioas.map(0x1000, 4096, None, direction) == 0xC0DE_0000
    assert fake.mapped == [(0, 4096, access | MapFlag.FIXED_IOVA), (0, 4096, access)]
    iommufd.close()


@pytest.mark.parametrize("count", [0, 1, 16, 17, 200])
def test_reads_any_number_of_ranges(fake: FakeIommu, count: int) -> None:
    fake.ranges = [(each << 20, (each << 20) + 0xFFFF) for each in range(count)]
    iommufd = Iommufd(NAME)
    ioas = iommufd.alloc_ioas()
    assert ioas.ranges() == [IovaRange(*each) for each in fake.ranges]
    assert fake.asked.count(Request.IOAS_IOVA_RANGES) == (2 if count > 16 else 1)
    assert ioas.alignment == 4096
    iommufd.close()


def test_closes_the_youngest_first(fake: FakeIommu) -> None:
    iommufd = Iommufd(NAME)
    ioas = iommufd.alloc_ioas()  # 1
    parent = iommufd.alloc_hwpt(DEVICE, ioas, HwptFlag.NEST_PARENT)  # 2
    viommu = iommufd.alloc_viommu(DEVICE, parent, ViommuType.ARM_SMMUV3)  # 3
    viommu.alloc_vdevice(DEVICE, 7)  # 4
    viommu.alloc_event_queue(ViommuType.ARM_SMMUV3, 8)  # 5
    faults = iommufd.alloc_fault_queue()  # 6
    iommufd.alloc_hwpt(DEVICE, viommu, faults=faults)  # 7
    faults.close()
    assert fake.destroyed == [7, 6]
    ioas.close()
    ioas.close()
    assert fake.destroyed == [7, 6, 5, 4, 3, 2, 1]
    iommufd.close()
    close_all(fake)


def test_what_cannot_be_destroyed_can_be_closed_again(fake: FakeIommu) -> None:
    iommufd = Iommufd(NAME)
    ioas = iommufd.alloc_ioas()
    fake.fails[Request.DESTROY] = errno.EBUSY
    with pytest.raises(HostError, match=r"IOMMU_DESTROY: .*detach its devices"):
        ioas.close()
    fake.fails.clear()
    ioas.close()
    assert fake.destroyed == [1]
    iommufd.close()


def test_the_kernel_destroys_what_is_left(fake: FakeIommu) -> None:
    iommufd = Iommufd(NAME)
    ioas, faults = iommufd.alloc_ioas(), iommufd.alloc_fault_queue()
    iommufd.close()
    iommufd.close()
    ioas.close()
    assert Request.DESTROY not in fake.asked
    assert (iommufd.fd, faults.fileno()) == (-1, -1)
    for use in (
        lambda: ioas.id,
        iommufd.alloc_ioas,
        faults.take,
        lambda: faults.answer([], Response.SUCCESS),
    ):
        with pytest.raises(ClosedError, match=NAME):
            use()
    close_all(fake)


def test_takes_over_what_another_process_opened(fake: FakeIommu) -> None:
    first = Iommufd(NAME)
    number = first.alloc_ioas().id
    second = Iommufd(NAME, os.dup(first.fd))
    first.close()
    second.adopt_ioas(number).close()
    assert fake.destroyed == [number]
    second.close()


def test_an_answer_that_nothing_waits_for_is_named(fake: FakeIommu) -> None:
    iommufd = Iommufd(NAME)
    faults = iommufd.alloc_fault_queue()
    with pytest.raises(HostError, match="FaultQueue 1: Bad file descriptor"):
        faults.answer([5], Response.SUCCESS)  # a pipe's end for reading: writes are refused
    iommufd.close()
    close_all(fake)


def test_asks_for_a_group_of_faults_as_large_as_it_is(
    fake: FakeIommu, monkeypatch: pytest.MonkeyPatch
) -> None:
    iommufd = Iommufd(NAME)
    faults = iommufd.alloc_fault_queue()
    rooms: list[int] = []

    def read(fd: int, room: int) -> bytes:
        rooms.append(room)
        if room < 500 * 40:
            raise OSError(errno.EINVAL, "Invalid argument")
        return bytes(500 * 40)

    monkeypatch.setattr(os, "read", read)
    assert len(faults.take()) == 500
    assert [room % 40 for room in rooms] == [0] * len(rooms)
    monkeypatch.undo()
    iommufd.close()
    close_all(fake)


def test_a_queue_of_an_unknown_kind_needs_the_size_of_its_events(fake: FakeIommu) -> None:
    iommufd = Iommufd(NAME)
    parent = iommufd.alloc_hwpt(DEVICE, iommufd.alloc_ioas(), HwptFlag.NEST_PARENT)
    viommu = iommufd.alloc_viommu(DEVICE, parent, 0x99)
    with pytest.raises(UnsupportedError, match="give event_size; known are ARM_SMMUV3"):
        viommu.alloc_event_queue(0x99, 8)
    iommufd.close()
    assert Request.VEVENTQ_ALLOC not in fake.asked


def test_says_where_memory_lies_without_an_iommu(fake: FakeIommu) -> None:
    iommufd = Iommufd(NAME)
    assert iommufd.alloc_ioas().physical(0, 0x10000) == (0x1234_5000, 0x2000)
    fake.fails[Request.IOAS_NOIOMMU_GET_PA] = errno.EPERM
    with pytest.raises(HostError, match="CAP_SYS_RAWIO"):
        iommufd.alloc_ioas().physical(0, 0x10000)
    iommufd.close()


def close_all(fake: FakeIommu) -> None:
    """Close the kernel's ends of all queues."""
    for fd in fake.queues.values():
        os.close(fd)

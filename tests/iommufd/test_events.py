"""Events of a virtual IOMMU: which came, and how many did not."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.iommufd.fake_iommu import FakeIommu
from uspace_drv.errors import PeerError
from uspace_drv.iommufd import EventQueue, Fault, HwptFlag, Iommufd, ViommuType
from uspace_drv.iommufd.uapi.queues import LOST_EVENTS

LAST_SEQUENCE = 0x7FFF_FFFF
SIZE = 32


class Source:
    """The kernel's end of a queue: numbers events, also those for which it has no room."""

    def __init__(self, queue: EventQueue, fd: int) -> None:
        self.queue = queue
        self.fd = fd
        self.sequence = 0

    def report(self, data: bytes) -> None:
        os.write(self.fd, struct.pack("=II", 0, self.sequence) + data)
        self.skip(1)

    def say_lost(self) -> None:
        """As the kernel does after it has skipped some, if nothing came since."""
        last = self.sequence - 1 & LAST_SEQUENCE
        os.write(self.fd, struct.pack("=II", LOST_EVENTS, last))

    def skip(self, count: int) -> None:
        self.sequence = self.sequence + count & LAST_SEQUENCE


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    fake = FakeIommu(monkeypatch)
    iommufd = Iommufd("0000:00:04.0")
    parent = iommufd.alloc_hwpt(1, iommufd.alloc_ioas(), HwptFlag.NEST_PARENT)
    viommu = iommufd.alloc_viommu(1, parent, ViommuType.ARM_SMMUV3)
    queue = viommu.alloc_event_queue(ViommuType.ARM_SMMUV3, 64)
    (fd,) = fake.queues.values()
    yield Source(queue, fd)
    iommufd.close()
    os.close(fd)


STEPS = st.lists(st.one_of(st.binary(min_size=SIZE, max_size=SIZE), st.integers(1, 5)), max_size=20)


def test_counts_what_was_lost(source: Source) -> None:
    @given(STEPS)
    def check(steps: list[bytes | int]) -> None:
        before, total = source.queue.lost, 0
        for step in steps:
            if isinstance(step, bytes):
                source.report(step)
            else:
                source.skip(step)
                total += step
        if steps and isinstance(steps[-1], int):
            source.say_lost()
        if not steps:
            return
        events = source.queue.take()
        assert [each.data for each in events] == [each for each in steps if isinstance(each, bytes)]
        assert source.queue.lost - before == total

    check()


def test_the_first_number_follows_the_last(source: Source) -> None:
    source.skip(LAST_SEQUENCE)
    source.report(bytes(SIZE))
    source.report(bytes(SIZE))
    first, second = source.queue.take()
    assert (first.sequence, first.lost) == (LAST_SEQUENCE, LAST_SEQUENCE)
    assert (second.sequence, second.lost) == (0, 0)


def test_an_event_of_another_size_is_no_event(source: Source) -> None:
    source.report(bytes(SIZE - 1))
    with pytest.raises(PeerError, match="event 0 ends after 31 bytes; expected 32"):
        source.queue.take()


def test_what_is_too_short_for_a_header_is_no_event(source: Source) -> None:
    source.report(bytes(SIZE + 4))
    with pytest.raises(PeerError, match="4 bytes follow the last event"):
        source.queue.take()


def test_a_large_group_of_faults_is_taken_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel hands out no part of a group."""
    fake = FakeIommu(monkeypatch)
    iommufd = Iommufd("0000:00:04.0")
    queue = iommufd.alloc_fault_queue()
    (fd,) = fake.queues.values()
    os.write(fd, bytes(100 * Fault.SIZE))
    assert len(queue.take()) == 100
    iommufd.close()
    os.close(fd)

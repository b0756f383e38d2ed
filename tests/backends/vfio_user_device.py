"""Devices for the tests of the vfio-user backend: what a scripted server tells and shares."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.vfiouser.scripted_server import READ_WRITE, Device, small_device
from uspace_drv.regions import Area
from uspace_drv.vfio_numbers import RegionFlag
from uspace_drv.vfiouser.regions import RegionInfo

PAGE = 4096


@contextmanager
def memory_file(size: int) -> Iterator[int]:
    fd = os.memfd_create("device memory", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, size)
        yield fd
    finally:
        os.close(fd)


def sharing_device(
    fd: int,
    areas: Sequence[tuple[int, int]] = (),
    *,
    size: int = 4 * PAGE,
    offset: int = 0,
    flags: int = READ_WRITE,
) -> Device:
    """Add BAR 2, which may be mapped: all of it, or areas of it."""
    device = small_device()
    shared = tuple(Area(*area) for area in areas)
    device.regions[2] = RegionInfo(2, flags | RegionFlag.MMAP, size, offset, shared)
    device.region_fds[2] = fd
    return device

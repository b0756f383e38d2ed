"""The kernel's own stand-in for an IOMMU and devices behind it (CONFIG_IOMMUFD_TEST).

Numbers and layouts: Linux drivers/iommu/iommufd/iommufd_test.h. The stand-in has pages of 2 KiB.
"""

from __future__ import annotations

import ctypes
import fcntl
import struct
from enum import IntEnum

from uspace_drv.iommufd import Iommufd
from uspace_drv.iommufd.uapi.requests import Request

TEST_REQUEST = 0x3BA0  # _IO(';', 0x80 + 32)
FIRST_IOVA, LAST_IOVA = 1 << 24, (1 << 31) - 1

HW_INFO, HW_INFO_VALUE = 0xFEEDBEEF, 0xDEADBEEF
HWPT_DATA = 0xDEAD
HWPT_INVALIDATE, VIOMMU_INVALIDATE = 0xDEADBEEF, 0xDEADBEEF
VIOMMU, HW_QUEUE = 0xDEADBEEF, 0xDEADBEEF
EVENT_QUEUE = 0xBEEFBEEF
CACHE_DEFAULT = 0xBADDAD

_HEADER = struct.Struct("@IIII")  # size, op, id, reserved
_SIZE = 72


class Op(IntEnum):
    ADD_RESERVED = 1
    MD_CHECK_MAP = 3
    MD_CHECK_REFS = 4
    MOCK_DOMAIN_REPLACE = 10
    MOCK_DOMAIN_FLAGS = 12
    DIRTY = 13
    MD_CHECK_IOTLB = 14
    TRIGGER_IOPF = 15
    DEV_CHECK_CACHE = 16
    TRIGGER_VEVENT = 17


def command(iommufd: Iommufd, op: Op, number: int, layout: str, *values: int) -> tuple[int, ...]:
    """Issue one; returns what the kernel made of `values`, laid out as C would."""
    buffer = bytearray(_SIZE)
    _HEADER.pack_into(buffer, 0, _SIZE, op, number, 0)
    struct.pack_into(f"@{layout}", buffer, _HEADER.size, *values)
    fcntl.ioctl(iommufd.fd, TEST_REQUEST, buffer, True)
    return struct.unpack_from(f"@{layout}", buffer, _HEADER.size)


class MockDevice:
    """A device of the stand-in, attached to an address space until `close()`."""

    NO_DIRTY_TRACKING = 1
    PASID = 4

    def __init__(self, iommufd: Iommufd, page_table: int, flags: int = 0) -> None:
        self._iommufd = iommufd
        answer = command(iommufd, Op.MOCK_DOMAIN_FLAGS, page_table, "IIII", 0, 0, 0, flags)
        self._number, self.page_table, self.id, _ = answer

    def attach(self, page_table: int) -> None:
        """Move it to another page table or address space."""
        command(self._iommufd, Op.MOCK_DOMAIN_REPLACE, self._number, "I", page_table)

    def maps(self, iova: int, size: int, address: int, page_table: int | None = None) -> bool:
        """Whether its page table leads to this memory, byte for byte."""
        number = page_table or self.page_table
        return _is_so(self._iommufd, Op.MD_CHECK_MAP, number, iova, size, address, layout="QQQ")

    def holds(self, entry: int, value: int) -> bool:
        """Whether an entry of its cache has this value."""
        return _is_so(self._iommufd, Op.DEV_CHECK_CACHE, self.id, entry, value)

    def fault(self, address: int, access: int, group: int) -> None:
        """Ask for a page that is not there."""
        command(self._iommufd, Op.TRIGGER_IOPF, 0, "IIIIQ", self.id, 0, group, access, address)

    def event(self) -> None:
        """Let its virtual IOMMU report something."""
        command(self._iommufd, Op.TRIGGER_VEVENT, 0, "I", self.id)

    def close(self) -> None:
        """Detach it and take it away."""
        fcntl.ioctl(self._iommufd.fd, Request.DESTROY, struct.pack("@II", 8, self._number))


def is_pinned(iommufd: Iommufd, address: int, size: int, count: int) -> bool:
    """Whether each page of this memory is pinned so many times."""
    return _is_so(iommufd, Op.MD_CHECK_REFS, 0, size, address, count, layout="QQI")


def translates_to(iommufd: Iommufd, page_table: int, entry: int, value: int) -> bool:
    """Whether an entry of a nested page table's cache has this value."""
    return _is_so(iommufd, Op.MD_CHECK_IOTLB, page_table, entry, value)


def write_as_a_device(iommufd: Iommufd, page_table: int, iova: int, dirty: list[bool]) -> None:
    """Write to these pages of 4 KiB as a device would."""
    bits = sum(1 << place for place, each in enumerate(dirty) if each)
    data = bytearray(bits.to_bytes(-(-len(dirty) // 64) * 8, "little"))
    size = len(dirty) * 4096
    address = _address(data)
    command(iommufd, Op.DIRTY, page_table, "IQQQQQ", 0, iova, size, 4096, address, 0)


def reserve(iommufd: Iommufd, ioas: int, start: int, size: int) -> None:
    """Take a range out of what an address space can map."""
    command(iommufd, Op.ADD_RESERVED, ioas, "QQ", start, size)


def _is_so(iommufd: Iommufd, op: Op, number: int, *values: int, layout: str = "II") -> bool:
    try:
        command(iommufd, op, number, layout, *values)
    except OSError:
        return False
    return True


def _address(data: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(data))

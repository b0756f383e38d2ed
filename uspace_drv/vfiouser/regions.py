"""What a vfio-user server tells of its regions: GET_REGION_INFO and GET_REGION_IO_FDS.

QEMU docs/interop/vfio-user.rst; the capability chain is that of Linux linux/vfio.h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from uspace_drv.errors import PeerError
from uspace_drv.regions import Area, check_inside, pack_areas, pack_capability, unpack_areas, walk
from uspace_drv.vfio_numbers import RegionCapability, RegionFlag


@dataclass(frozen=True, slots=True)
class RegionInfo:
    """A region; without `areas` all of it can be mapped, if its flags say MMAP.

    `offset` is where it starts in the message's descriptor.
    """

    index: int
    flags: int
    size: int
    offset: int
    areas: tuple[Area, ...] = ()


class IoFd(NamedTuple):
    """A part of a region whose writes go to a descriptor: `fd_index` counts the message's.

    `extra` is the value that is waited for, or whatever the type of the descriptor needs.
    """

    offset: int
    size: int
    fd_index: int
    type: int
    flags: int
    padding: int
    extra: int


_INFO = Struct("<IIIIQQ")  # argsz, flags, index, cap_offset, size, offset
_IO_FDS = Struct("<IIII")  # argsz, flags, index, count
_IO_FD = Struct("<QQIIIIQ")

REGION_INFO_SIZE = _INFO.size
IO_FDS_SIZE = _IO_FDS.size


def pack_region_request(index: int, argsz: int) -> bytes:
    """Ask for a region, with room for a reply of `argsz` bytes."""
    return _INFO.pack(argsz, 0, index, 0, 0, 0)


def unpack_region_request(payload: bytes) -> tuple[int, int]:
    """Index and argsz of a request; only these two count."""
    if len(payload) != _INFO.size:
        raise PeerError(f"RegionInfo: {len(payload)} bytes, expected {_INFO.size}")
    argsz, _, index, *_ = _INFO.unpack(payload)
    if argsz < _INFO.size:
        raise PeerError(f"RegionInfo: argsz is {argsz}, expected at least {_INFO.size}")
    return index, argsz


def pack_region_info(info: RegionInfo, argsz: int) -> bytes:
    """Answer a request; where `argsz` is too little, with what is needed and without the areas."""
    chain = b""
    if info.areas:
        chain = pack_capability(RegionCapability.SPARSE_MMAP, pack_areas(info.areas))
    needed = _INFO.size + len(chain)
    if needed > argsz:
        chain = b""  # nor does the flag say that there is one: QEMU's client takes offset 0 ill
    flags = info.flags | (RegionFlag.CAPS if chain else 0)
    cap_offset = _INFO.size if chain else 0
    return _INFO.pack(needed, flags, info.index, cap_offset, info.size, info.offset) + chain


def unpack_region_info(payload: bytes) -> RegionInfo:
    """Take a whole reply; every area is seen to be inside of the region."""
    if len(payload) < _INFO.size:
        raise PeerError(f"RegionInfo: {len(payload)} bytes, expected at least {_INFO.size}")
    _, flags, index, place, size, offset = _INFO.unpack_from(payload)
    areas: tuple[Area, ...] = ()
    if flags & RegionFlag.CAPS:
        for each in walk(payload, place, _INFO.size, "RegionInfo"):
            if each.id == RegionCapability.SPARSE_MMAP:
                areas = unpack_areas(each.body, "RegionInfo")
    check_inside(areas, size, f"region {index}")
    return RegionInfo(index, flags & ~RegionFlag.CAPS, size, offset, areas)


def pack_io_fds_request(index: int, argsz: int) -> bytes:
    """Ask for the descriptors of a region, with room for a reply of `argsz` bytes."""
    return _IO_FDS.pack(argsz, 0, index, 0)


def unpack_io_fds_request(payload: bytes) -> tuple[int, int]:
    """Index and argsz of a request; everything else is 0."""
    if len(payload) != _IO_FDS.size:
        raise PeerError(f"IoFds: {len(payload)} bytes, expected {_IO_FDS.size}")
    argsz, flags, index, count = _IO_FDS.unpack(payload)
    if argsz < _IO_FDS.size or flags or count:
        raise PeerError(
            f"IoFds: argsz {argsz}, flags {flags:#x}, count {count}; "
            f"expected at least {_IO_FDS.size}, 0 and 0"
        )
    return index, argsz


def pack_io_fds(index: int, io_fds: Sequence[IoFd], argsz: int) -> bytes:
    """Answer a request; where `argsz` is too little, with what is needed and none of them."""
    rest = b"".join(_IO_FD.pack(*one) for one in io_fds)
    needed = _IO_FDS.size + len(rest)
    fits = needed <= argsz
    return _IO_FDS.pack(needed, 0, index, len(io_fds) if fits else 0) + (rest if fits else b"")


def unpack_io_fds(payload: bytes, fd_count: int, region_size: int) -> list[IoFd]:
    """Take a whole reply that came with `fd_count` descriptors, for a region of that size."""
    if len(payload) < _IO_FDS.size:
        raise PeerError(f"IoFds: {len(payload)} bytes, expected at least {_IO_FDS.size}")
    *_, count = _IO_FDS.unpack_from(payload)
    rest = payload[_IO_FDS.size :]
    # The size of an entry is not to be relied on: later ones may have more fields.
    stride = len(rest) // count if count else 0
    if stride * count != len(rest) or (count and stride < _IO_FD.size):
        raise PeerError(f"IoFds: {count} entries in {len(rest)} bytes")
    found = [IoFd._make(_IO_FD.unpack_from(rest, n * stride)) for n in range(count)]
    for one in found:
        if one.fd_index >= fd_count or one.offset + one.size > region_size:
            raise PeerError(
                f"{one}: expected one of {fd_count} descriptors, and to be inside of the "
                f"{region_size:#x} bytes of the region"
            )
    return found

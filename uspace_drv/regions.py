"""What VFIO tells of a region behind its fixed fields, and the window that is made of it.

Linux include/uapi/linux/vfio.h, "struct vfio_info_cap_header" and "VFIO_DEVICE_GET_REGION_INFO";
vfio-user has the same. Nothing here is believed before it is checked: `PeerError` says what came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from struct import Struct
from typing import NamedTuple

from uspace_drv.errors import PeerError
from uspace_drv.native import Window

_HEAD = Struct("<HHI")  # id, version, next
_SPARSE = Struct("<II")  # nr_areas, reserved
_AREA = Struct("<QQ")


class Area(NamedTuple):
    """A part of a region that can be mapped: bytes from its start, and how many."""

    offset: int
    size: int


class Capability(NamedTuple):
    """One capability of a chain; `body` is everything behind its header, others included."""

    id: int
    version: int
    body: bytes


def walk(info: bytes, place: int, least: int, what: str) -> Iterator[Capability]:
    """Follow a chain of capabilities in `info`, whose fixed fields have `least` bytes.

    `place` counts from the start of the information, and 0 ends the chain. `what` is for errors.
    """
    seen: set[int] = set()
    while place:
        if place < least or place in seen or place + _HEAD.size > len(info):
            raise PeerError(
                f"{what}: a capability at {place:#x}, seen before or not within "
                f"{least:#x} to {len(info):#x}"
            )
        seen.add(place)
        kind, version, following = _HEAD.unpack_from(info, place)
        yield Capability(kind, version, info[place + _HEAD.size :])
        place = following


def pack_capability(kind: int, body: bytes) -> bytes:
    """One capability that is the last of its chain."""
    return _HEAD.pack(kind, 1, 0) + body


def pack_areas(areas: Sequence[Area]) -> bytes:
    """The body of a SPARSE_MMAP capability."""
    return _SPARSE.pack(len(areas), 0) + b"".join(_AREA.pack(*area) for area in areas)


def unpack_areas(body: bytes, what: str) -> tuple[Area, ...]:
    """Take the body of a SPARSE_MMAP capability."""
    count = _SPARSE.unpack_from(body)[0] if len(body) >= _SPARSE.size else 0
    end = _SPARSE.size + count * _AREA.size
    if end > len(body):
        raise PeerError(f"{what}: {count} areas in {len(body)} bytes")
    return tuple(map(Area._make, _AREA.iter_unpack(body[_SPARSE.size : end])))


def check_inside(areas: Iterable[Area], size: int, what: str) -> None:
    """See that every area lies in a region of `size` bytes."""
    for area in areas:
        if area.offset + area.size > size:
            raise PeerError(f"{what}: {area} is not inside of its {size:#x} bytes")


def in_order(areas: Iterable[Area], what: str) -> tuple[Area, ...]:
    """Return them ascending, once it is seen that none is empty or overlaps another one."""
    ascending = tuple(sorted(areas))
    end = 0
    for area in ascending:
        if area.offset < end or not area.size:
            raise PeerError(f"{what}: {area} is empty or overlaps another one")
        end = area.offset + area.size
    return ascending


class Calls(NamedTuple):
    """How to reach what is not mapped: `read(offset, width)` and `write(offset, width, value)`."""

    read: Callable[[int, int], int]
    write: Callable[[int, int, int], None]


def open_in_parts(
    name: str,
    size: int,
    areas: Sequence[Area],
    map_area: Callable[[str, Area], Window],
    calls: Calls,
) -> Window:
    """Open a window of `size` bytes that maps `areas`, ascending, and calls for all the rest.

    The parts close with it.
    """
    parts: list[tuple[int, Window]] = []
    try:
        parts.extend(
            (area.offset, map_area(f"{name} from {area.offset:#x}", area)) for area in areas
        )
        return Window.over_calls(name, size, *calls, tuple(parts))
    except BaseException:
        for _, part in parts:
            part.close()
        raise

"""Reads and writes of the served model's regions by message, and what the client learns of them.

QEMU docs/interop/vfio-user.rst, GET_REGION_INFO, REGION_READ, REGION_WRITE, REGION_WRITE_MULTI.
A register access of 1, 2, 4 or 8 bytes reaches the model as it is; anything else is cut into the
largest aligned pieces, in ascending order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from uspace_drv.errors import PeerError
from uspace_drv.models import DeviceModel
from uspace_drv.regions import Area
from uspace_drv.vfio_numbers import REGION_COUNT, Region, RegionFlag
from uspace_drv.vfiouser.regions import (
    RegionInfo,
    pack_region_info,
    unpack_region_request,
)
from uspace_drv.vfiouser.server.refusal import invalid
from uspace_drv.vfiouser.wire import REGION_ACCESS, WriteCount, pack, unpack_writes

COUNT = 12
"""Where the low byte of the count is in a request."""

MOST_KNOWN = 4096
"""Register reads that are remembered."""

ACCESS_SIZE = REGION_ACCESS.size
UNPACK_ACCESS = REGION_ACCESS.unpack_from


class Reply(NamedTuple):
    """A payload that descriptors go with; they stay the server's."""

    payload: bytes
    descriptors: tuple[int, ...]


class OneRegion(NamedTuple):
    """What an access needs to know."""

    size: int
    widths: frozenset[int]
    read: Callable[[int, int], int]
    write: Callable[[int, int, int], None]


NO_REGION = OneRegion(-1, frozenset(), lambda *_: 0, lambda *_: None)
"""Too small for any access, of 0 bytes too."""


class RegionsOf:
    """The regions of one model, for a client that moves `largest_transfer` bytes at once.

    `can_share`: it takes descriptors, and may map what is memory.
    """

    def __init__(self, model: DeviceModel, largest_transfer: int, *, can_share: bool) -> None:
        self._can_share = can_share
        self._model = model
        self._largest_transfer = largest_transfer
        self._known: dict[bytes, Callable[[], int]] = {}
        self._regions = {
            number: OneRegion(
                view.size,
                frozenset({1, 2, 4, 8}),
                partial(model.read_bar, number),
                partial(model.write_bar, number),
            )
            for number, view in model.bar_list.items()
        }
        self._regions[Region.CONFIG] = OneRegion(
            model.config.size, frozenset({1, 2, 4}), model.config.read, model.config.write
        )

    def info(self, payload: bytes) -> bytes | Reply:
        """GET_REGION_INFO; a region that the model does not have has 0 bytes."""
        index, argsz = unpack_region_request(payload)
        if index >= REGION_COUNT:
            raise invalid(f"there is no region {index}")
        if index not in self._regions:
            return pack_region_info(RegionInfo(index, 0, 0, 0), argsz)
        flags = RegionFlag.READ | RegionFlag.WRITE
        size = self._regions[index].size
        view = self._model.bar_list.get(index)
        if view is None or not view.areas or not self._can_share:
            return pack_region_info(RegionInfo(index, flags, size, 0), argsz)
        areas = tuple(Area(area.offset, area.size) for area in view.areas)
        if areas == (Area(0, size),):
            areas = ()  # all of it, which needs no list
        info = RegionInfo(index, flags | RegionFlag.MMAP, size, 0, areas)
        return Reply(pack_region_info(info, argsz), (view.fd,))

    def read(self, payload: bytes) -> bytes:
        """REGION_READ: the request comes back with the data behind it."""
        known = self._known.get(payload)
        if known is None:
            return self._read(payload)
        return payload + known().to_bytes(payload[COUNT], "little")

    def write(self, payload: bytes) -> bytes:
        """REGION_WRITE: the request comes back without its data."""
        size = len(payload) - ACCESS_SIZE
        if size < 0:
            raise PeerError(f"REGION_WRITE: {len(payload)} bytes, expected at least {ACCESS_SIZE}")
        offset, number, count = UNPACK_ACCESS(payload)
        if count != size:
            raise PeerError(f"REGION_WRITE: says {count} bytes of data, and {size} follow")
        self._store(offset, number, payload[ACCESS_SIZE:])
        return payload[:ACCESS_SIZE]

    def write_many(self, payload: bytes) -> bytes:
        """REGION_WRITE_MULTI: in their order, up to the first that is refused."""
        writes = unpack_writes(payload)
        for one in writes:
            self._store(one.offset, one.region, one.data)
        return pack(WriteCount(len(writes)))

    def _read(self, payload: bytes) -> bytes:
        """Check a request; one for a register need not be checked again."""
        if len(payload) != ACCESS_SIZE:
            raise PeerError(f"REGION_READ: {len(payload)} bytes, expected {ACCESS_SIZE}")
        offset, number, count = UNPACK_ACCESS(payload)
        size, widths, read, _ = self._regions.get(number, NO_REGION)
        if offset + count > size:
            raise _outside("read", offset, number, count)
        if count in widths and not offset % count:
            if len(self._known) < MOST_KNOWN:
                self._known[payload] = partial(read, offset, count)
            return payload + read(offset, count).to_bytes(count, "little")
        if count > self._largest_transfer:
            raise invalid(f"a read of {count} bytes, at most {self._largest_transfer} at once")
        return payload + b"".join(
            read(place, width).to_bytes(width, "little")
            for place, width in _pieces(offset, count, max(widths))
        )

    def _store(self, offset: int, number: int, data: bytes) -> None:
        count = len(data)
        size, widths, _, write = self._regions.get(number, NO_REGION)
        if offset + count > size:
            raise _outside("write", offset, number, count)
        if count in widths and not offset % count:
            write(offset, count, int.from_bytes(data, "little"))
            return
        for place, width in _pieces(offset, count, max(widths)):
            start = place - offset
            write(place, width, int.from_bytes(data[start : start + width], "little"))


def _outside(verb: str, offset: int, number: int, count: int) -> Exception:
    return invalid(f"a {verb} of {count} bytes at {offset:#x} is outside of region {number}")


def _pieces(offset: int, count: int, widest: int) -> Iterator[tuple[int, int]]:
    """Aligned places and widths that cover a range."""
    end = offset + count
    while offset < end:
        width = min(widest, offset & -offset or widest)
        while width > end - offset:
            width //= 2
        yield offset, width
        offset += width

"""The bodies of vfio-user messages as bytes: QEMU docs/interop/vfio-user.rst.

Everything is little-endian. A body that cannot be one raises `PeerError`, which says what came
and what was expected; values inside are the receiver's to check. A body names what it is for: the
same one may serve as request and reply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from itertools import pairwise
from struct import Struct
from typing import NamedTuple, TypeVar

from uspace_drv.errors import PeerError
from uspace_drv.vfio_numbers import IrqAction

Body = TypeVar("Body")


class _Layout(NamedTuple):
    bytes: Struct
    names: tuple[str, ...]


_LAYOUTS: dict[type, _Layout] = {}


def laid_out(layout: str) -> Callable[[type[Body]], type[Body]]:
    """Say how the fields of a body lie in memory, in the words of the module struct."""

    def register(kind: type[Body]) -> type[Body]:
        names = tuple(one.name for one in fields(kind))  # type: ignore[arg-type]  # a dataclass
        _LAYOUTS[kind] = _Layout(Struct(layout), names)
        return kind

    return register


@laid_out("<IIQQQ")
@dataclass(frozen=True, slots=True)
class DmaMap:
    """DMA_MAP: `size` bytes at `address` are `offset` bytes into the message's descriptor."""

    argsz: int
    flags: int
    offset: int
    address: int
    size: int


@laid_out("<IIQQ")
@dataclass(frozen=True, slots=True)
class DmaUnmap:
    """DMA_UNMAP, both ways."""

    argsz: int
    flags: int
    address: int
    size: int


@laid_out("<IIII")
@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """DEVICE_GET_INFO, both ways."""

    argsz: int
    flags: int
    region_count: int
    irq_count: int


@laid_out("<IIII")
@dataclass(frozen=True, slots=True)
class IrqInfo:
    """DEVICE_GET_IRQ_INFO, both ways."""

    argsz: int
    flags: int
    index: int
    count: int


@laid_out("<IIIII")
@dataclass(frozen=True, slots=True)
class IrqSet:
    """DEVICE_SET_IRQS, before its data."""

    argsz: int
    flags: int
    index: int
    start: int
    count: int


@laid_out("<QII")
@dataclass(frozen=True, slots=True)
class RegionAccess:
    """REGION_READ and REGION_WRITE, both ways, before their data."""

    offset: int
    region: int
    count: int


@laid_out("<QQ")
@dataclass(frozen=True, slots=True)
class DmaAccess:
    """DMA_READ and DMA_WRITE, both ways, before their data."""

    address: int
    count: int


class Write(NamedTuple):
    """One of the writes of REGION_WRITE_MULTI; `data` has 1 to 8 bytes."""

    offset: int
    region: int
    data: bytes


@laid_out("<Q")
@dataclass(frozen=True, slots=True)
class WriteCount:
    """REGION_WRITE_MULTI, both ways, before its writes."""

    count: int


@laid_out("<II")
@dataclass(frozen=True, slots=True)
class FeatureHead:
    """DEVICE_FEATURE, both ways, before its data: a `Feature` and `FeatureFlag`s in the flags."""

    argsz: int
    flags: int


@laid_out("<Q")
@dataclass(frozen=True, slots=True)
class MigrationSupport:
    """Data of `Feature.MIGRATION`."""

    flags: int


@laid_out("<II")
@dataclass(frozen=True, slots=True)
class DeviceState:
    """Data of `Feature.MIG_DEVICE_STATE`; the descriptor is not used by vfio-user."""

    state: int
    data_fd: int


@laid_out("<QII")
@dataclass(frozen=True, slots=True)
class DmaLogging:
    """Data of `Feature.DMA_LOGGING_START`, before its ranges."""

    page_size: int
    range_count: int
    reserved: int


@laid_out("<QQ")
@dataclass(frozen=True, slots=True, order=True)
class DmaRange:
    """One range of IOVAs whose writes are logged."""

    iova: int
    length: int


@laid_out("<QQQ")
@dataclass(frozen=True, slots=True)
class DmaReport:
    """Data of `Feature.DMA_LOGGING_REPORT`; in the reply the bitmap follows, as 64-bit words."""

    iova: int
    length: int
    page_size: int


@laid_out("<II")
@dataclass(frozen=True, slots=True)
class MigrationData:
    """MIG_DATA_READ and MIG_DATA_WRITE, before their data."""

    argsz: int
    size: int


REGION_ACCESS = Struct("<QII")
"""A `RegionAccess` without the object, for where each register access passes through."""

_WRITE = Struct("<QII8s")
_QEMU_DMA = Struct("<QI")
_MOST_WRITE = 8


def size_of(kind: type) -> int:
    """Bytes of a body, without what follows it."""
    return _LAYOUTS[kind].bytes.size


def pack(body: object, data: bytes = b"") -> bytes:
    """Join a body and what follows it."""
    layout = _LAYOUTS[type(body)]
    return layout.bytes.pack(*[getattr(body, name) for name in layout.names]) + data


def unpack(kind: type[Body], payload: bytes) -> Body:
    """Take a payload that is this body and nothing else."""
    layout = _LAYOUTS[kind].bytes
    if len(payload) != layout.size:
        raise PeerError(f"{kind.__name__}: {len(payload)} bytes, expected {layout.size}")
    return kind(*layout.unpack(payload))


def split(kind: type[Body], payload: bytes) -> tuple[Body, bytes]:
    """Take this body off the start of a payload; the rest follows it."""
    layout = _LAYOUTS[kind].bytes
    if len(payload) < layout.size:
        raise PeerError(f"{kind.__name__}: {len(payload)} bytes, expected at least {layout.size}")
    return kind(*layout.unpack_from(payload)), payload[layout.size :]


def split_counted(kind: type[Body], payload: bytes, count: str = "count") -> tuple[Body, bytes]:
    """Take a body and the bytes that follow, as many as its field `count` says."""
    body, data = split(kind, payload)
    said = getattr(body, count)
    if said != len(data):
        raise PeerError(f"{kind.__name__}: {count} is {said}, and {len(data)} bytes of data follow")
    return body, data


def split_irq_set(payload: bytes) -> tuple[IrqSet, bytes]:
    """Take a DEVICE_SET_IRQS; the rest is one byte for each interrupt, or empty.

    Exactly one DATA flag and one action are set, and nothing else.
    """
    body, data = split(IrqSet, payload)
    sources = body.flags & 7
    actions = body.flags >> 3
    if sources not in {1, 2, 4} or actions not in {1, 2, 4}:
        raise PeerError(f"IrqSet: flags {body.flags:#x}, expected one DATA flag and one action")
    # Where descriptors come with the message, some clients leave room for their numbers.
    sizes = {0: {0}, IrqAction.DATA_BOOL: {body.count}, IrqAction.DATA_EVENTFD: {0, 4 * body.count}}
    expected = sizes.get(sources, sizes[0])
    if len(data) not in expected:
        raise PeerError(f"IrqSet: {len(data)} bytes of data, expected {max(expected)}")
    return body, data if sources == IrqAction.DATA_BOOL else b""


def pack_writes(writes: Iterable[Write]) -> bytes:
    """Make the body of a REGION_WRITE_MULTI."""
    packed = [_WRITE.pack(one.offset, one.region, len(one.data), one.data) for one in writes]
    return pack(WriteCount(len(packed)), b"".join(packed))


def unpack_writes(payload: bytes) -> list[Write]:
    """Take a REGION_WRITE_MULTI apart, in the order of its writes."""
    head, data = split(WriteCount, payload)
    if len(data) != head.count * _WRITE.size:
        raise PeerError(
            f"REGION_WRITE_MULTI: {head.count} writes and {len(data)} bytes of them, "
            f"expected {_WRITE.size} bytes each"
        )
    return [_one_write(*fields) for fields in _WRITE.iter_unpack(data)]


def _one_write(offset: int, region: int, count: int, data: bytes) -> Write:
    if not 1 <= count <= _MOST_WRITE:
        raise PeerError(f"REGION_WRITE_MULTI: a write of {count} bytes, expected 1 to 8")
    return Write(offset, region, data[:count])


def pack_dma_write(address: int, data: bytes, *, to_qemu: bool) -> bytes:
    """Make the body of a DMA_WRITE.

    QEMU (hw/vfio-user/protocol.h, VFIOUserDMARW) has a count of 4 bytes and the data right behind
    it, where the specification has 8; and it refuses bodies of less than 16 bytes.
    """
    if to_qemu:
        return (_QEMU_DMA.pack(address, len(data)) + data).ljust(size_of(DmaAccess), b"\0")
    return pack(DmaAccess(address, len(data)), data)


def unpack_dma_read(payload: bytes, wanted: DmaAccess, *, from_qemu: bool) -> bytes:
    """Take the data out of the reply to the DMA_READ `wanted`; for QEMU as `pack_dma_write`."""
    layout = _QEMU_DMA if from_qemu else _LAYOUTS[DmaAccess].bytes
    least, most = layout.size + wanted.count, size_of(DmaAccess) + wanted.count
    if not least <= len(payload) <= most:
        raise PeerError(f"DMA_READ: a reply of {len(payload)} bytes, expected {most}")
    _check_dma(DmaAccess(*layout.unpack_from(payload)), wanted)
    return payload[layout.size : least]


def check_dma_written(payload: bytes, wanted: DmaAccess) -> None:
    """See that the reply to a DMA_WRITE is about all of it.

    The specification gives the count of this reply 4 bytes, libvfio-user 8; in QEMU's reply the
    second 4 are left over from the data. So they are not looked at.
    """
    if len(payload) not in {_QEMU_DMA.size, size_of(DmaAccess)}:
        raise PeerError(f"DMA_WRITE: a reply of {len(payload)} bytes, expected 12 or 16")
    _check_dma(DmaAccess(*_QEMU_DMA.unpack_from(payload)), wanted)


def _check_dma(seen: DmaAccess, wanted: DmaAccess) -> None:
    if seen != wanted:
        raise PeerError(
            f"DMA: a reply about {seen.count} bytes at {seen.address:#x}, "
            f"expected {wanted.count} at {wanted.address:#x}"
        )


def split_logging(data: bytes) -> tuple[DmaLogging, list[DmaRange]]:
    """Take the data of `Feature.DMA_LOGGING_START`: ranges that do not overlap, ascending.

    No range at all means every write.
    """
    head, rest = split(DmaLogging, data)
    layout = _LAYOUTS[DmaRange].bytes
    if len(rest) != head.range_count * layout.size:
        raise PeerError(f"DmaLogging: {head.range_count} ranges in {len(rest)} bytes")
    ranges = sorted(DmaRange(*one) for one in layout.iter_unpack(rest))
    if any(one.iova + one.length > two.iova for one, two in pairwise(ranges)):
        raise PeerError("DmaLogging: ranges overlap")
    if ranges and ranges[-1].iova + ranges[-1].length > 1 << 64:
        raise PeerError("DmaLogging: a range reaches past 64 bits")
    return head, ranges


def ask_twice(ask: Callable[[int], bytes], least: int, most: int) -> bytes:
    """Get a reply whose size only the peer knows: its first field `argsz` says what it needs.

    `ask(argsz)` sends the request and returns the reply's payload; `least` is enough for its fixed
    part, and more than `most` bytes are not asked for.
    """
    reply = ask(least)
    needed = _needed(reply, least, most)
    if needed <= least:
        return reply
    reply = ask(needed)
    again = _needed(reply, least, most)
    if again > needed:
        raise PeerError(f"a reply that needed {needed} bytes now needs {again}")
    return reply


def _needed(reply: bytes, least: int, most: int) -> int:
    needed = int.from_bytes(reply[:4], "little")
    if len(reply) < least or needed > most:
        raise PeerError(
            f"a reply of {len(reply)} bytes that would need {needed}, "
            f"expected {least} to {most} bytes"
        )
    return needed

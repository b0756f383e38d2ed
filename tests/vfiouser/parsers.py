"""Every parser of what a peer sent, under one roof: for tests on any bytes, and for the fuzzer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from uspace_drv.errors import PeerError
from uspace_drv.vfiouser import regions, version, wire


@dataclass(frozen=True)
class Parser:
    """One of them, and a way back to bytes where there is one."""

    name: str
    parse: Callable[[bytes], object]
    repack: Callable[[object], bytes] | None = None

    def refuse_or_take(self, payload: bytes) -> None:
        """Nothing but `PeerError` may come out, and what was taken packs to the same bytes."""
        with suppress(PeerError):
            taken = self.parse(payload)
            if self.repack is not None:
                assert self.repack(taken) == payload


def _body(kind: type) -> Parser:
    return Parser(kind.__name__, partial(wire.unpack, kind), wire.pack)


def _counted(name: str, kind: type, count: str) -> Parser:
    return Parser(name, lambda payload: wire.split_counted(kind, payload, count), _join)


def _join(taken: object) -> bytes:
    assert isinstance(taken, tuple)
    return wire.pack(*taken)


def _region_info(payload: bytes) -> object:
    info = regions.unpack_region_info(payload)
    assert all(area.offset + area.size <= info.size for area in info.areas)
    return info


def _version(payload: bytes) -> object:
    """What is understood is understood in the same way after a round trip."""
    taken = version.unpack_version(payload)
    again = version.unpack_version(version.pack_version(taken))
    assert (again.major, again.minor) == (taken.major, taken.minor)
    assert again.capabilities.max_msg_fds == taken.capabilities.max_msg_fds
    return version.answer(taken)


def _writes(payload: bytes) -> object:
    writes = wire.unpack_writes(payload)
    assert all(1 <= len(write.data) <= 8 for write in writes)
    assert wire.unpack_writes(wire.pack_writes(writes)) == writes
    return writes


_BODIES = (
    wire.DmaMap,
    wire.DmaUnmap,
    wire.DeviceInfo,
    wire.IrqInfo,
    wire.IrqSet,
    wire.RegionAccess,
    wire.DmaAccess,
    wire.FeatureHead,
    wire.MigrationSupport,
    wire.DeviceState,
    wire.DmaReport,
    wire.MigrationData,
)
_WANTED = wire.DmaAccess(0, 8)

PARSERS = [
    *[_body(kind) for kind in _BODIES],
    _counted("REGION_WRITE", wire.RegionAccess, "count"),
    _counted("DMA_WRITE", wire.DmaAccess, "count"),
    _counted("MIG_DATA", wire.MigrationData, "size"),
    Parser("SET_IRQS", wire.split_irq_set),
    Parser("REGION_WRITE_MULTI", _writes),
    Parser("DMA_LOGGING_START", wire.split_logging),
    Parser("reply to DMA_READ", lambda p: wire.unpack_dma_read(p, _WANTED, from_qemu=False)),
    Parser("QEMU's reply to DMA_READ", lambda p: wire.unpack_dma_read(p, _WANTED, from_qemu=True)),
    Parser("reply to DMA_WRITE", lambda p: wire.check_dma_written(p, _WANTED)),
    Parser("GET_REGION_INFO", regions.unpack_region_request),
    Parser("reply to GET_REGION_INFO", _region_info),
    Parser("GET_REGION_IO_FDS", regions.unpack_io_fds_request),
    Parser("reply to GET_REGION_IO_FDS", lambda p: regions.unpack_io_fds(p, 2, 0x1000)),
    Parser("VERSION", _version),
]

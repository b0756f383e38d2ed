"""The bodies of messages: bytes as the specification has them, and nothing else accepted."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vfiouser.parsers import PARSERS, Parser
from uspace_drv.errors import PeerError
from uspace_drv.regions import Area
from uspace_drv.vfio_numbers import IrqAction, RegionFlag
from uspace_drv.vfiouser import wire
from uspace_drv.vfiouser.numbers import Command
from uspace_drv.vfiouser.regions import (
    IoFd,
    RegionInfo,
    pack_io_fds,
    pack_io_fds_request,
    pack_region_info,
    pack_region_request,
    unpack_io_fds,
    unpack_io_fds_request,
    unpack_region_info,
    unpack_region_request,
)

# Offsets and sizes typed from QEMU docs/interop/vfio-user.rst.
BODIES = [
    (
        wire.DmaMap(32, 3, 0x1000, 0x2000, 0x3000),
        "20000000 03000000 0010000000000000 0020000000000000 0030000000000000",
    ),
    (
        wire.DmaUnmap(24, 0, 0x2000, 0x3000),
        "18000000 00000000 0020000000000000 0030000000000000",
    ),
    (wire.DeviceInfo(16, 3, 9, 5), "10000000 03000000 09000000 05000000"),
    (wire.IrqInfo(16, 9, 2, 32), "10000000 09000000 02000000 20000000"),
    (wire.IrqSet(20, 0x24, 2, 1, 3), "14000000 24000000 02000000 01000000 03000000"),
    (wire.RegionAccess(0x20, 7, 4), "2000000000000000 07000000 04000000"),
    (wire.DmaAccess(0x2000, 8), "0020000000000000 0800000000000000"),
    (wire.WriteCount(2), "0200000000000000"),
    (wire.FeatureHead(16, 0x20002), "10000000 02000200"),
    (wire.MigrationSupport(5), "0500000000000000"),
    (wire.DeviceState(3, 0xFFFF_FFFF), "03000000 ffffffff"),
    (wire.DmaLogging(4096, 1, 0), "0010000000000000 01000000 00000000"),
    (wire.DmaRange(0x1000, 0x2000), "0010000000000000 0020000000000000"),
    (wire.DmaReport(1, 2, 4096), "0100000000000000 0200000000000000 0010000000000000"),
    (wire.MigrationData(16, 8), "10000000 08000000"),
]


@pytest.mark.parametrize(("body", "text"), BODIES, ids=lambda value: type(value).__name__)
def test_bodies_are_laid_out_as_the_specification_says(body: object, text: str) -> None:
    payload = bytes.fromhex(text)
    assert wire.pack(body) == payload
    assert wire.unpack(type(body), payload) == body
    assert wire.size_of(type(body)) == len(payload)


@pytest.mark.parametrize("kind", [type(body) for body, _ in BODIES])
def test_a_body_has_exactly_one_length(kind: type) -> None:
    size = wire.size_of(kind)
    for length in [n for n in range(129) if n != size]:
        with pytest.raises(PeerError, match=f"{kind.__name__}: {length} bytes, expected {size}$"):
            wire.unpack(kind, bytes(length))
    for length in range(size):
        with pytest.raises(PeerError, match=f"{length} bytes, expected at least {size}$"):
            wire.split(kind, bytes(length))
    assert wire.split(kind, bytes(size) + b"rest")[1] == b"rest"


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: str(parser.name))
@pytest.mark.parametrize("fill", [0x00, 0x01, 0x7F, 0xFF])
def test_every_parser_stands_every_length_and_hostile_counts(parser: Parser, fill: int) -> None:
    for length in range(129):
        parser.refuse_or_take(bytes([fill]) * length)


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: str(parser.name))
@given(payload=st.binary(max_size=256))
def test_every_parser_takes_or_refuses(parser: Parser, payload: bytes) -> None:
    parser.refuse_or_take(payload)


def test_the_numbers_are_all_there() -> None:
    assert [command.value for command in Command] == list(range(1, 19))


def test_data_is_as_long_as_the_count_says() -> None:
    head = wire.pack(wire.RegionAccess(0, 0, 4))
    assert wire.split_counted(wire.RegionAccess, head + b"abcd")[1] == b"abcd"
    for data in (b"", b"abc", b"abcde"):
        with pytest.raises(PeerError, match=f"count is 4, and {len(data)} bytes of data follow"):
            wire.split_counted(wire.RegionAccess, head + data)
    migration = wire.pack(wire.MigrationData(9, 1), b"x")
    assert wire.split_counted(wire.MigrationData, migration, "size")[1] == b"x"


@pytest.mark.parametrize("flags", range(0x80))
def test_one_source_and_one_action(flags: int) -> None:
    payload = wire.pack(wire.IrqSet(20, flags, 0, 0, 0))
    right = flags.bit_count() == 2 and bool(flags & 7) and bool(flags & 0x38)
    if right:
        assert wire.split_irq_set(payload)[0].flags == flags
    else:
        with pytest.raises(PeerError, match=f"flags {flags:#x}, expected one DATA flag"):
            wire.split_irq_set(payload)


@pytest.mark.parametrize(
    ("source", "lengths"),
    [
        (IrqAction.DATA_NONE, {0}),
        (IrqAction.DATA_BOOL, {3}),
        (IrqAction.DATA_EVENTFD, {0, 12}),
    ],
)
def test_data_of_set_irqs(source: IrqAction, lengths: set[int]) -> None:
    head = wire.pack(wire.IrqSet(20, source | IrqAction.MASK, 0, 0, 3))
    for length in range(16):
        if length in lengths:
            bools = wire.split_irq_set(head + b"\1" * length)[1]
            assert bools == (b"\1\1\1" if source == IrqAction.DATA_BOOL else b"")
        else:
            with pytest.raises(PeerError, match=f"{length} bytes of data, expected"):
                wire.split_irq_set(head + b"\1" * length)


def test_several_writes_in_one_message() -> None:
    writes = [wire.Write(0x20, 0, b"abcd"), wire.Write(0x28, 2, b"12345678")]
    payload = wire.pack_writes(writes)
    assert payload == struct.pack("<QQII8sQII8s", 2, 0x20, 0, 4, b"abcd", 0x28, 2, 8, b"12345678")
    assert wire.unpack_writes(payload) == writes
    for count in (0, 9, 0xFFFF_FFFF):
        hostile = struct.pack("<QQII8s", 1, 0, 0, count, b"")
        with pytest.raises(PeerError, match=f"a write of {count} bytes, expected 1 to 8"):
            wire.unpack_writes(hostile)
    with pytest.raises(PeerError, match="18446744073709551615 writes and 0 bytes"):
        wire.unpack_writes(b"\xff" * 8)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 4096])
@pytest.mark.parametrize("qemu", [False, True])
def test_dma_by_message(count: int, qemu: bool) -> None:
    """QEMU's count has 4 bytes; its replies are as long as if it had 8."""
    data = bytes(n % 255 + 1 for n in range(count))
    head = struct.pack("<QI" if qemu else "<QQ", 0x1000, count)
    body = wire.pack_dma_write(0x1000, data, to_qemu=qemu)
    assert body == (head + data).ljust(16, b"\0")
    wanted = wire.DmaAccess(0x1000, count)
    reply = (head + data).ljust(16 + count, b"\0")
    assert wire.unpack_dma_read(reply, wanted, from_qemu=qemu) == data
    for wrong in (reply + b"\0", reply[: len(head) + count - 1], b""):
        with pytest.raises(PeerError, match=f"a reply of {len(wrong)} bytes"):
            wire.unpack_dma_read(wrong, wanted, from_qemu=qemu)
    for other in (wire.DmaAccess(0x1000, count + 1), wire.DmaAccess(0x1001, count)):
        with pytest.raises(PeerError, match="DMA"):
            wire.unpack_dma_read(reply, other, from_qemu=qemu)


def test_the_reply_to_a_dma_write() -> None:
    wanted = wire.DmaAccess(0x1000, 4)
    wire.check_dma_written(struct.pack("<QI", 0x1000, 4), wanted)
    wire.check_dma_written(struct.pack("<QQ", 0x1000, 4), wanted)
    with pytest.raises(PeerError, match="3 bytes at 0x1000, expected 4 at 0x1000"):
        wire.check_dma_written(struct.pack("<QQ", 0x1000, 3), wanted)
    with pytest.raises(PeerError, match="a reply of 8 bytes"):
        wire.check_dma_written(bytes(8), wanted)


def test_ranges_of_dma_logging() -> None:
    def start(*ranges: tuple[int, int]) -> bytes:
        packed = [struct.pack("<QQ", *one) for one in ranges]
        return wire.pack(wire.DmaLogging(4096, len(ranges), 0), b"".join(packed))

    _, ranges = wire.split_logging(start((0x3000, 0x1000), (0, 0x3000)))
    assert ranges == [wire.DmaRange(0, 0x3000), wire.DmaRange(0x3000, 0x1000)]
    with pytest.raises(PeerError, match="ranges overlap"):
        wire.split_logging(start((0, 0x1001), (0x1000, 0x1000)))
    with pytest.raises(PeerError, match="reaches past 64 bits"):
        wire.split_logging(start((0xFFFF_FFFF_FFFF_F000, 0x1001)))
    with pytest.raises(PeerError, match="2 ranges in 0 bytes"):
        wire.split_logging(wire.pack(wire.DmaLogging(4096, 2, 0)))


INFO = RegionInfo(0, RegionFlag.READ | RegionFlag.MMAP, 0x4000, 0x10000)
SPARSE = RegionInfo(0, INFO.flags, 0x4000, 0x10000, (Area(0x1000, 0x1000), Area(0x3000, 0x1000)))


def test_region_info_without_and_with_areas() -> None:
    plain = bytes.fromhex("20000000 05000000 00000000 00000000 0040000000000000 0000010000000000")
    assert pack_region_info(INFO, 32) == plain
    assert unpack_region_info(plain) == INFO
    whole = pack_region_info(SPARSE, 80)
    assert whole[:16] == bytes.fromhex("50000000 0d000000 00000000 20000000")
    assert whole[32:48] == bytes.fromhex("0100 0100 00000000 02000000 00000000")
    assert unpack_region_info(whole) == SPARSE


def test_region_info_that_does_not_fit_says_what_it_needs() -> None:
    short = pack_region_info(SPARSE, 79)
    assert short[:16] == bytes.fromhex("50000000 05000000 00000000 00000000")
    assert len(short) == 32
    asked = []

    def ask(argsz: int) -> bytes:
        asked.append(argsz)
        assert unpack_region_request(pack_region_request(3, argsz)) == (3, argsz)
        return pack_region_info(SPARSE, argsz)

    assert unpack_region_info(wire.ask_twice(ask, 32, 4096)) == SPARSE
    assert asked == [32, 80]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (struct.pack("<I", 4097) + bytes(28), "would need 4097, expected 32 to 4096"),
        (bytes(31), "a reply of 31 bytes"),
    ],
)
def test_asking_twice_has_limits(reply: bytes, words: str) -> None:
    with pytest.raises(PeerError, match=words):
        wire.ask_twice(lambda _: reply, 32, 4096)


def test_a_peer_whose_needs_grow_is_asked_twice_only() -> None:
    with pytest.raises(PeerError, match="that needed 33 bytes now needs 34"):
        wire.ask_twice(lambda argsz: struct.pack("<I", argsz + 1) + bytes(28), 32, 4096)


@pytest.mark.parametrize(
    ("place", "patch", "words"),
    [
        (12, 8, "a capability at 0x8"),
        (12, 31, "a capability at 0x1f"),
        (12, 73, "a capability at 0x49"),
        (12, 0xFFFF_FFFF, "a capability at 0xffffffff"),
        (36, 32, "a capability at 0x20, seen before"),
        (40, 3, "3 areas in 40 bytes"),
        (40, 0xFFFF_FFFF, "4294967295 areas in 40 bytes"),
        (16, 0x3FFF, r"size=4096\) is not inside of its 0x3fff bytes"),
        (52, 0xFFFF_FFFF, "is not inside of its 0x4000 bytes"),
    ],
)
def test_hostile_region_info(place: int, patch: int, words: str) -> None:
    reply = bytearray(pack_region_info(SPARSE, 80))
    struct.pack_into("<I", reply, place, patch)
    with pytest.raises(PeerError, match=words):
        unpack_region_info(bytes(reply))


def test_a_chain_of_capabilities_is_walked() -> None:
    """Unknown ones are passed over; the areas may come second."""
    fixed = struct.pack("<IIIIQQ", 88, 0xD, 0, 32, 0x4000, 0x10000)
    unknown = struct.pack("<HHI", 77, 1, 40)
    areas = pack_region_info(SPARSE, 80)[32:]
    assert unpack_region_info(fixed + unknown + areas) == SPARSE


@pytest.mark.parametrize("argsz", [0, 31])
def test_a_region_request_has_room_for_its_reply(argsz: int) -> None:
    with pytest.raises(PeerError, match=f"argsz is {argsz}, expected at least 32"):
        unpack_region_request(pack_region_request(0, argsz))


def test_io_fds_there_and_back() -> None:
    io_fds = [IoFd(0x1000, 4, 0, 0, 0, 0, 0), IoFd(0x1004, 4, 1, 0, 1, 0, 0xCAFE)]
    payload = pack_io_fds(2, io_fds, 96)
    assert payload[:16] == bytes.fromhex("60000000 00000000 02000000 02000000")
    assert payload[56:72] == bytes.fromhex("0410000000000000 0400000000000000")
    assert unpack_io_fds(payload, 2, 0x2000) == io_fds
    assert pack_io_fds(2, io_fds, 95) == bytes.fromhex("60000000 00000000 02000000 00000000")
    assert unpack_io_fds(pack_io_fds(2, [], 16), 0, 0) == []
    for fd_count, size in ((1, 0x2000), (2, 0x1007)):
        with pytest.raises(PeerError, match=f"expected one of {fd_count} descriptors"):
            unpack_io_fds(payload, fd_count, size)
    for wrong in (payload[:-1], payload[:56], payload + b"\0"):
        with pytest.raises(PeerError, match=f"2 entries in {len(wrong) - 16} bytes"):
            unpack_io_fds(wrong, 2, 0x2000)


def test_entries_of_io_fds_may_grow() -> None:
    """Their size is not to be relied on, the specification says."""
    entry = struct.pack("<QQIIIIQQ", 8, 4, 0, 2, 0, 0, 5, 0x77)
    payload = struct.pack("<IIII", 64, 0, 0, 1) + entry
    assert unpack_io_fds(payload, 1, 16) == [IoFd(8, 4, 0, 2, 0, 0, 5)]


def test_a_request_for_io_fds() -> None:
    assert unpack_io_fds_request(pack_io_fds_request(4, 16)) == (4, 16)
    for wrong in ((15, 0, 0, 0), (16, 1, 0, 0), (16, 0, 0, 1)):
        with pytest.raises(PeerError, match="expected at least 16, 0 and 0"):
            unpack_io_fds_request(struct.pack("<IIII", *wrong))

"""The header as it was read: BARs, ROM, and what a bridge forwards."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.pci.config_bytes import config_of, edu
from uspace_drv.native import Window
from uspace_drv.pci.header import (
    Bar,
    BridgeRange,
    is_bridge,
    read_bars,
    read_header,
    read_ranges,
)

BRIDGE = (0x0E, "01")


def test_registers_are_in_order_and_of_their_type() -> None:
    names = [each.name for each in read_header(edu())]
    assert names[:4] == ["vendor_id", "device_id", "command", "status"]
    assert "subsystem_id" in names
    bridge = config_of(0x100, BRIDGE, (0x18, "01 02 03 00"), (0x3E, "40 00"))
    readings = {each.name: each for each in read_header(bridge)}
    assert is_bridge(bridge)
    assert "subsystem_id" not in readings
    assert int(readings["secondary_bus_number"].value) == 2
    assert str(readings["bridge_control"]) == "bridge_control 0x0040"


def test_bars_of_every_kind() -> None:
    config = config_of(
        0x40,
        # 32 bits; 64 bits and prefetchable, in two registers; I/O; one that is not there
        (0x10, "00 00 a0 fe 0c 00 00 e0 38 00 00 00 01 d0 00 00"),
        (0x24, "ff ff ff ff"),
        (0x30, "01 08 bf fe"),
    )
    assert read_bars(config) == [
        Bar(0, 0xFEA00000),
        Bar(1, 0x38_E0000000, is_wide=True, is_prefetchable=True),
        Bar(3, 0xD000, is_io=True),
        Bar(6, 0xFEBF0800),
    ]
    assert [str(each) for each in read_bars(config)][1:3] == [
        "bar 1: 0x38e0000000, memory, 64-bit, prefetchable",
        "bar 3: 0xd000, io ports",
    ]


def test_a_wide_bar_in_the_last_place_has_no_upper_half() -> None:
    assert read_bars(config_of(0x40, (0x24, "04 00 a0 fe"))) == [Bar(5, 0xFEA00000)]


def test_a_rom_that_is_off() -> None:
    (rom,) = read_bars(config_of(0x40, BRIDGE, (0x38, "00 00 c0 fe")))
    assert rom == Bar(6, 0xFEC00000, is_enabled=False)
    assert str(rom) == "rom: 0xfec00000, memory, off"


def test_a_layout_that_is_neither_shows_what_all_have() -> None:
    gone = config_of(0x40, (0, "ff" * 0x40))
    assert read_bars(gone) == []
    assert [each.offset for each in read_header(gone)][-3:] == [0x34, 0x3C, 0x3D]


def test_what_a_bridge_forwards() -> None:
    bridge = config_of(
        0x40,
        BRIDGE,
        (0x1C, "d1 e1"),  # 32-bit ports
        (0x20, "60 fe 70 fe"),
        (0x24, "01 c0 11 c0 02 00 00 00 03 00 00 00 01 00 02 00"),  # 64 bits; upper port halves
    )
    assert read_ranges(bridge) == [
        BridgeRange("io ports", 0x1D000, 0x2EFFF),
        BridgeRange("memory", 0xFE600000, 0xFE7FFFFF),
        BridgeRange("prefetchable memory", 0x2_C0000000, 0x3_C01FFFFF),
    ]
    assert str(BridgeRange("memory", 0xFFF00000, 0xFFFFF)) == "memory: nothing"


@given(st.binary(min_size=0x40, max_size=0x100))
def test_random_headers_can_be_read(data: bytes) -> None:
    config = Window.over_buffer("random", bytearray(data))
    assert all(str(each) for each in (*read_header(config), *read_bars(config)))
    assert len(read_ranges(config)) == 3

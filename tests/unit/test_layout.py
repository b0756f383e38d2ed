"""Descriptor layouts: dtypes with checked sizes and offsets; struct is the second opinion."""

from __future__ import annotations

import struct
from types import new_class
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uspace_drv.errors import LayoutError, RegisterValueError
from uspace_drv.layout import Layout, be16, be32, i32, u8, u16, u32, u64
from uspace_drv.registers import Register, bit


class Flags(Register, width=16):
    last = bit(0)
    error = bit(15)


class Descriptor(Layout, size=16):
    address = u64(0, "IOVA of the buffer")
    length = u32(8)
    flags = u16(12, Flags, "what happened")
    tag = be16(14)


class Named(Layout, size=12):
    name = u8(0, count=8)
    balance = i32(8)


def make(members: dict[str, Any], **options: Any) -> Any:
    return new_class("Made", (Layout,), options, lambda body: body.update(members))


def test_the_class_shows_offsets_and_dtype() -> None:
    assert Descriptor.SIZE == Descriptor.dtype.itemsize == 16
    fields = Descriptor.dtype.fields
    assert fields
    assert [fields[name][1] for name in Descriptor.MEMBERS] == [0, 8, 12, 14]
    assert (Descriptor.length.offset, Descriptor.length.size) == (8, 4)
    assert (Named.name.count, Named.name.size) == (8, 8)
    assert Descriptor.address.doc == "IOVA of the buffer"


def test_memory_is_seen_and_not_copied() -> None:
    memory = bytearray(32)
    ring = Descriptor.view(memory)
    ring[1]["address"] = 0x1122334455667788
    ring["length"][1] = 64
    ring[1]["flags"] = Flags(last=True).raw
    ring[1]["tag"] = 0x0102
    assert memory[16:] == struct.pack("<QIH", 0x1122334455667788, 64, 1) + b"\x01\x02"
    page = np.zeros(4096, np.uint8)
    Descriptor.view(page)["length"] = 7
    assert page[8] == 7
    assert len(Descriptor.view(page)) == 256


def test_a_member_decodes_into_python() -> None:
    ring = Descriptor.array(2)
    ring["flags"] = 0x8001
    assert Descriptor.flags.decode(ring["flags"][0]) == Flags(last=True, error=True)
    assert type(Descriptor.length.decode(ring["length"][0])) is int
    named = Named.view(struct.pack("<8si", b"eight...", -5))
    assert bytes(named[0]["name"]) == b"eight..."
    assert Named.balance.decode(named[0]["balance"]) == -5


def test_a_torn_size_is_refused() -> None:
    with pytest.raises(RegisterValueError, match="Descriptor: 17 bytes are no whole number of 16"):
        Descriptor.view(bytearray(17))


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (
            lambda: make({"a": u64(0), "b": u32(4)}, size=16),
            r"Made: b \(0x4, 4 bytes\) overlaps a \(0x0, 8 bytes\)",
        ),
        (lambda: make({"a": u64(8)}, size=12, packed=True), r"a \(0x8, 8 bytes\) is outside"),
        (lambda: make({"a": u8(-1)}, size=12), "outside of the 12 bytes"),
        (lambda: make({"a": be32(2)}, size=8), r"a \(0x2, 4 bytes\) .* multiples of 4"),
        (lambda: make({"a": u64(0)}, size=12), "size=12 are multiples of 8, or say packed=True"),
        (lambda: make({"view": u8(0)}, size=4), "view is already a name of Layout"),
        (lambda: make({"a": bit(0)}, size=4), "a is a Bit, which has no place in a Layout"),
        (lambda: make({}, size=4), "has no members"),
        (lambda: u8(0, count=0), "count=0"),
        (lambda: u32(0, Flags), "uint32 for Flags has 16 bits"),
    ],
)
def test_a_wrong_layout_is_refused(declare: Any, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        declare()


def test_packed_members_may_lie_anywhere() -> None:
    packed = make({"a": u8(0), "b": u32(1), "c": u16(5)}, size=7, packed=True)
    assert packed.view(struct.pack("<BIH", 1, 2, 3)).tolist() == [(1, 2, 3)]


SCALARS = {"u1": (u8, 1), "u2": (u16, 2), "u4": (u32, 4), "u8": (u64, 8)}


@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.sampled_from(sorted(SCALARS)), st.integers(1, 3)),
        min_size=1,
        max_size=4,
    )
)
def test_overlaps_are_those_that_a_set_of_bytes_finds(
    members: list[tuple[int, str, int]],
) -> None:
    declared = {}
    covered: list[int] = []
    for number, (offset, code, count) in enumerate(members):
        scalar, size = SCALARS[code]
        declared[f"m{number}"] = scalar(offset, count=count)
        covered += range(offset, offset + size * count)
    if len(set(covered)) == len(covered) and max(covered) < 24:
        assert make(declared, size=24, packed=True).dtype.itemsize == 24
    else:
        with pytest.raises(LayoutError):
            make(declared, size=24, packed=True)

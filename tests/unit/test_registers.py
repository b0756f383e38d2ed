"""The register language: values, declarations, accessors; numbers typed from QEMU's edu.rst."""

from __future__ import annotations

import pickle
from enum import Enum, IntEnum, IntFlag
from itertools import pairwise
from types import new_class
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uspace_drv.errors import LayoutError, RegisterValueError
from uspace_drv.registers import (
    Access,
    Register,
    RegisterBlock,
    array,
    bit,
    field,
    ro,
    rw,
    w1c,
    wo,
)


class Speed(Enum):
    SLOW = 1
    FAST = 2


class Status(Register):
    computing = bit(0, "a factorial is in progress")
    irq_when_done = bit(7, "raise an interrupt when it is finished")


class Ident(Register):
    major = field(31, 24, "major version")
    minor = field(23, 16)
    magic = field(7, 0)


class Link(Register, width=16):
    speed = field(9, 8, Speed, "negotiated speed")
    up = bit(0)


class Events(Register, width=8):
    done = bit(0)
    failed = bit(1)


class Doorbell(Register):
    tail = field(15, 0)


class DemoRegisters(RegisterBlock, size=0x200):
    ident = ro(0x00, Ident, "who it is")
    liveness = rw(0x04, "answers its complement")
    status = rw(0x20, Status)
    link = rw(0x24, Link)
    events = w1c(0x28, Events)
    ack = wo(0x64)
    fifo = ro(0x68, side_effects=True)
    dma_source = rw(0x80, width=64)
    low_first = rw(0x88, width=64, split="low first")
    high_first = rw(0x94, width=64, split="high first")
    queue = array(rw(0x100, Doorbell), count=4, stride=8)


def untyped(face: Any) -> Any:
    """What a caller without mypy uses."""
    return face


def make(fields: dict[str, Any], parent: type = Register, **options: Any) -> Any:
    return new_class("Made", (parent,), options, lambda body: body.update(fields))


# Values


def test_a_value_prints_its_fields() -> None:
    assert repr(Status(irq_when_done=True)) == "Status(0x00000080 computing=0 irq_when_done=1)"
    assert str(Ident(0x010000ED)) == "Ident(0x010000ed major=1 minor=0 magic=0xed)"
    assert repr(Link(speed=Speed.FAST)) == "Link(0x0200 speed=FAST up=0)"


def test_fields_are_bool_int_and_enum() -> None:
    assert Status(0x80).irq_when_done is True
    assert Status(0x80).computing is False
    assert (Ident(0x010200ED).major, Ident(0x010200ED).minor) == (1, 2)
    assert Link(0x0201).speed is Speed.FAST
    assert Link(speed=2).speed is Speed.FAST


def test_an_unknown_enum_number_is_read_as_that_int() -> None:
    assert Link(0x0301).speed == 3  # type: ignore[comparison-overlap]
    assert repr(Link(0x0300)) == "Link(0x0300 speed=3 up=0)"


def test_values_compare_and_hash_by_type_and_number() -> None:
    assert Status(0x80) == Status(irq_when_done=True)
    assert Status(1) != Status(0)
    assert Status(1) != Doorbell(1)
    assert Status(1) != 1
    assert {Status(1), Status(1), Doorbell(1)} == {Doorbell(1), Status(1)}
    assert int(Status(0x80)) == Status(0x80).raw == 0x80
    assert not Status()
    assert Status(1)


def test_values_cannot_change() -> None:
    status = Status()
    with pytest.raises(AttributeError):
        status.computing = True  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        status.raw = 1  # type: ignore[misc]
    with pytest.raises(AttributeError):
        status.other = 1  # type: ignore[attr-defined]
    assert status.replace(computing=True) == Status(1)
    assert Status(0x81).replace(computing=False) == Status(0x80)
    assert status == Status(0)
    assert pickle.loads(pickle.dumps(Status(0x80))) == Status(0x80)


def test_values_are_python_ints_even_if_made_from_numpy() -> None:
    assert type(Ident(np.uint32(5)).raw) is int
    assert type(Ident(magic=np.uint8(5)).magic) is int


@pytest.mark.parametrize(
    ("make_value", "message"),
    [
        (lambda: Status(1 << 32), "Status: 0x100000000 does not fit 32 bit"),
        (lambda: Status(-1), "Status: -0x1 does not fit"),
        (lambda: untyped(Status)(1.5), "Status: 1.5 is not an integer"),
        (lambda: Status(computing=2), r"Status computing \(bit 0\): 0x2 does not fit 1 bit"),
        (lambda: untyped(Status)(computing="yes"), r"computing \(bit 0\): 'yes' is not an integer"),
        (lambda: Ident(minor=256), r"Ident minor \(bits 23:16\): 0x100 does not fit 8 bit"),
        (lambda: untyped(Link)(speed=Status), "is not an integer"),
        (
            lambda: untyped(Status)(computin=1),
            r"Status has no field computin; did you mean computing\?; "
            r"its fields: computing \(bit 0\), irq_when_done \(bit 7\)",
        ),
        (lambda: untyped(Register)(x=1), "Register has no field x; its fields: none"),
    ],
)
def test_a_wrong_value_is_refused(make_value: Any, message: str) -> None:
    with pytest.raises(RegisterValueError, match=message):
        make_value()


# Declarations


class Negative(IntEnum):
    LOST = -1


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: make({"a": bit(4), "b": field(7, 4)}), r"b \(bits 7:4\) overlaps a \(bit 4\)"),
        (lambda: make({"a": bit(32)}), r"Made: a \(bit 32\) is outside of the 32 bits"),
        (lambda: make({"a": field(0, 3)}), "the high bit, then the low"),
        (lambda: make({"raw": bit(0)}), "raw is already a name of Register"),
        (lambda: make({"replace": bit(0)}), "replace is already a name"),
        (lambda: make({"timeout": bit(0)}), "timeout is already a name"),
        (lambda: make({}, width=12), "width=12, but it is 8, 16, 32 or 64"),
        (lambda: make({"a": field(0, 0, Speed)}), r"FAST: 2> does not fit"),
        (lambda: make({"a": field(3, 0, Negative)}), "LOST: -1> does not fit"),
        (
            lambda: untyped(field)(3, 0, IntFlag("Many", "A B")),
            "Many is no Enum of exclusive values",
        ),
        (lambda: untyped(field)(3, 0, Status), "Status is no Enum"),
        (lambda: make({"a": rw(0)}), "a is a Declaration, which has no place in a Register"),
        (lambda: make({"computing": bit(3)}, Status), "computing is already a name of Status"),
    ],
)
def test_a_wrong_register_is_refused(declare: Any, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        declare()


BLOCK: dict[str, Any] = {"parent": RegisterBlock, "size": 0x40}


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (
            lambda: make({"a": rw(0, width=64), "b": rw(4)}, **BLOCK),
            r"b \(0x4\), 32 bits overlaps a \(0x0\), 64 bits",
        ),
        (lambda: make({"a": rw(0x40)}, **BLOCK), r"a \(0x40\), 32 bits is outside of the 64"),
        (lambda: make({"a": rw(-4)}, **BLOCK), "outside"),
        (lambda: make({"a": rw(2)}, **BLOCK), "0x2: 32 bits need an offset that 4 divides"),
        (lambda: rw(4, width=64), "an offset that 8 divides"),
        (lambda: rw(2, width=64, split="low first"), "an offset that 4 divides"),
        (lambda: untyped(ro)(0x10, int), "at 0x10: int is no Register"),
        (lambda: rw(0, Status, width=64), "width=64, but Status has 32"),
        (lambda: untyped(rw)(0, width=24), "width=24, but it is"),
        (lambda: rw(0, split="low first"), "only a 64-bit register is split"),
        (lambda: make({"registers": rw(0)}, **BLOCK), "registers is already a name"),
        (
            lambda: make({"a": bit(0)}, **BLOCK),
            "a is a Bit, which has no place in a RegisterBlock",
        ),
        (lambda: make({}, RegisterBlock), "how many bytes"),
        (lambda: array(rw(0), count=0, stride=4), "count=0"),
        (lambda: array(rw(0), count=2, stride=2), "32 bits need an offset"),
        (
            lambda: make({"a": array(rw(0, width=64), count=2, stride=0)}, **BLOCK),
            r"a\[1\] \(0x0\), 64 bits overlaps a\[0\]",
        ),
    ],
)
def test_a_wrong_block_is_refused(declare: Any, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        declare()


def test_a_name_declared_twice_is_refused() -> None:
    with pytest.raises(LayoutError, match="Twice: a is declared twice"):

        class Twice(Register):
            a = bit(0)
            a = bit(1)  # noqa: PIE794


def test_what_is_only_read_may_share_its_place_with_what_is_only_written() -> None:
    block = make({"received": ro(0, width=8), "sent": wo(0, width=8)}, RegisterBlock, size=1)
    assert [each.name for each in block.registers()] == ["received", "sent"]


def test_the_class_shows_declarations() -> None:
    status = DemoRegisters.status
    assert (status.name, status.offset, status.width) == ("status", 0x20, 32)
    assert (status.access, status.kind, status.side_effects) == (Access.RW, Status, False)
    assert DemoRegisters.ident.doc == "who it is"
    assert DemoRegisters.liveness.doc == "answers its complement"
    assert DemoRegisters.fifo.side_effects
    assert DemoRegisters.SIZE == 0x200
    assert Status.computing.doc == "a factorial is in progress"
    assert (Ident.minor.high, Ident.minor.low, Ident.minor.mask) == (23, 16, 0xFF0000)
    names = [each.name for each in DemoRegisters.registers()]
    assert names[:3] == ["ident", "liveness", "status"]
    assert names[-4:] == ["queue[0]", "queue[1]", "queue[2]", "queue[3]"]
    assert DemoRegisters.queue[2].offset == 0x110


def test_declarations_decode_and_encode() -> None:
    assert DemoRegisters.status.decode(0x80) == Status(0x80)
    assert DemoRegisters.liveness.decode(0x80) == 0x80
    assert DemoRegisters.status.encode(irq_when_done=True) == 0x80
    assert DemoRegisters.status.encode(Status(1)) == DemoRegisters.status.encode(1) == 1
    assert [each.readable for each in Access] == [True, True, False, True]
    assert [each.writable for each in Access] == [False, True, True, True]


# Golden: against plain shifting and against a set of bits


@st.composite
def layouts(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    """A width and disjoint fields (high, low) in it."""
    width = draw(st.sampled_from([8, 16, 32, 64]))
    cuts = sorted(draw(st.sets(st.integers(0, width), min_size=2, max_size=9)))
    ranges = [(high - 1, low) for low, high in pairwise(cuts)]
    return width, draw(st.permutations(ranges))


@given(layouts(), st.data())
def test_encode_and_decode_agree_with_shifting(
    layout: tuple[int, list[tuple[int, int]]], data: st.DataObject
) -> None:
    width, ranges = layout
    kind = make({f"f{i}": field(*each) for i, each in enumerate(ranges)}, width=width)
    numbers = [data.draw(st.integers(0, (1 << high - low + 1) - 1)) for high, low in ranges]
    value = kind(**{f"f{i}": number for i, number in enumerate(numbers)})
    assert int(value) == sum(n << low for n, (_, low) in zip(numbers, ranges, strict=True))
    assert [getattr(value, f"f{i}") for i in range(len(ranges))] == numbers
    raw = data.draw(st.integers(0, (1 << width) - 1))
    for i, (high, low) in enumerate(ranges):
        assert getattr(kind(raw), f"f{i}") == raw % (1 << high + 1) // (1 << low)


@given(st.lists(st.tuples(st.integers(0, 35), st.integers(0, 6)), min_size=1, max_size=6))
def test_overlaps_are_those_that_a_set_of_bits_finds(fields: list[tuple[int, int]]) -> None:
    bits = [position for low, more in fields for position in range(low, low + more + 1)]
    fits = len(set(bits)) == len(bits) and max(bits) < 32
    declared = {f"f{i}": field(low + more, low) for i, (low, more) in enumerate(fields)}
    if fits:
        assert sum(1 << position for position in bits) == make(declared).DEFINED
    else:
        with pytest.raises(LayoutError):
            make(declared)

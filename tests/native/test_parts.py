"""A window in parts: mapped where another window shows through, calls elsewhere."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from uspace_drv.errors import ClosedError, DeviceGone, RegisterValueError, UnsupportedError
from uspace_drv.native import Window

PAGE = 4096
SIZE = 8 * PAGE

pytestmark = pytest.mark.usefixtures("nothing_left")


class Calls:
    """Notes what came by call."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def read(self, offset: int, width: int) -> int:
        self.seen.append((offset, width))
        return 0x5A

    def write(self, offset: int, width: int, value: int) -> None:
        self.seen.append((offset, width, value))


@pytest.fixture
def fd() -> Iterator[int]:
    fd = os.memfd_create("parts", os.MFD_CLOEXEC)
    os.ftruncate(fd, SIZE)
    yield fd
    os.close(fd)


@pytest.fixture
def calls() -> Calls:
    return Calls()


def part(fd: int, page: int, pages: int = 1, *, writable: bool = True) -> tuple[int, Window]:
    window = Window.map(f"page {page}", fd, page * PAGE, pages * PAGE, writable=writable)
    return page * PAGE, window


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
def test_each_access_goes_where_it_belongs(fd: int, calls: Calls, bits: int) -> None:
    width = bits // 8
    window = Window.over_calls("w", SIZE, calls.read, calls.write, (part(fd, 1), part(fd, 3, 2)))
    read, write = getattr(window, f"read{bits}"), getattr(window, f"write{bits}")
    mapped = (PAGE, 2 * PAGE - width, 3 * PAGE, 5 * PAGE - width)
    for offset in mapped:
        write(offset, 7)
        assert read(offset) == 7
        assert os.pread(fd, 1, offset) == b"\7"
    assert calls.seen == []
    for offset in (0, PAGE - width, 2 * PAGE, 3 * PAGE - width, 5 * PAGE, SIZE - width):
        write(offset, 9)
        assert read(offset) == 0x5A
        assert calls.seen[-2:] == [(offset, width, 9), (offset, width)]
        assert os.pread(fd, 1, offset) == b"\0"
    window.close()


@pytest.mark.parametrize(
    "offsets",
    [[1], [4], [SIZE], [SIZE - 8], [1 << 63], [(1 << 64) - 8], [-8], [PAGE, 0], [0, 8], [0, 0]],
)
def test_parts_that_do_not_fit(fd: int, calls: Calls, offsets: list[int]) -> None:
    parts = tuple((offset, part(fd, 0)[1]) for offset in offsets)
    with pytest.raises(RegisterValueError, match=r"^w: part .* does not fit"):
        Window.over_calls("w", SIZE, calls.read, calls.write, parts)
    for _, window in parts:
        assert not window.closed
        window.close()


@pytest.mark.parametrize("bad", [3, (), (0,), (0, 3), ("x", None), (None, 0, 0)])
def test_what_is_no_part(calls: Calls, bad: Any) -> None:
    with pytest.raises(RegisterValueError, match="does not fit"):
        Window.over_calls("w", SIZE, calls.read, calls.write, (bad,))


def test_part_of_calls_is_refused(calls: Calls) -> None:
    inner = Window.over_calls("inner", PAGE, calls.read, calls.write)
    with pytest.raises(RegisterValueError, match=r"expected \(offset, mapped window\)"):
        Window.over_calls("w", SIZE, calls.read, calls.write, ((0, inner),))


def test_read_only_part(fd: int, calls: Calls) -> None:
    window = Window.over_calls("w", SIZE, calls.read, calls.write, (part(fd, 1, writable=False),))
    assert window.read8(PAGE) == 0
    with pytest.raises(UnsupportedError, match="page 1 is read-only"):
        window.write8(PAGE, 1)
    window.close()


def test_parts_close_with_the_window(fd: int, calls: Calls) -> None:
    pieces = (part(fd, 1), part(fd, 3))
    window = Window.over_calls("w", SIZE, calls.read, calls.write, pieces)
    window.close()
    window.close()
    assert all(piece.closed for _, piece in pieces)
    with pytest.raises(ClosedError):
        window.read8(PAGE)


def test_part_that_was_closed_or_cut_off(fd: int, calls: Calls) -> None:
    pieces = (part(fd, 1), part(fd, 3))
    window = Window.over_calls("w", SIZE, calls.read, calls.write, pieces)
    os.ftruncate(fd, 2 * PAGE)
    with pytest.raises(DeviceGone, match="page 3: bus error"):
        window.read8(3 * PAGE)
    with pytest.raises(DeviceGone, match="page 3: bus error"):
        window.write8(3 * PAGE, 1)
    window.close()


def test_cycle_through_a_call_is_collected(fd: int) -> None:
    class Holder:
        window: Window

        def read(self, offset: int, width: int) -> int:
            return self.window.size

    holder = Holder()
    gone = weakref.ref(holder)

    holder.window = Window.over_calls("w", SIZE, holder.read, print, (part(fd, 1),))
    del holder
    gc.collect()
    assert gone() is None

"""A window in parts: mapped where another window shows through, calls elsewhere."""

from __future__ import annotations

import ctypes
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


def test_memory_of_one_part_can_be_viewed(fd: int, calls: Calls) -> None:
    window = Window.over_calls("w", SIZE, calls.read, calls.write, (part(fd, 1), part(fd, 2, 2)))
    view = window.memory(PAGE, 16)
    view[0] = 7
    assert (len(view), window.read8(PAGE)) == (16, 7)
    assert len(window.memory(2 * PAGE, 2 * PAGE)) == 2 * PAGE
    assert window.memory(offset=3 * PAGE, size=PAGE)[0] == 0
    window.close()
    assert view[0] == 0


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((), UnsupportedError, "from offset 0 to 32768: not all of that lies in one mapped part"),
        ((PAGE - 1, 2), UnsupportedError, "not all of that"),
        ((PAGE, PAGE + 1), UnsupportedError, "not all of that"),  # the next part is another one
        ((PAGE,), UnsupportedError, "not all of that"),
        ((5 * PAGE, 1), UnsupportedError, "not all of that"),
        ((0, SIZE + 1), RegisterValueError, "of size 32769 from offset 0 is not inside of its 327"),
        ((-1, 2), RegisterValueError, "from offset -1"),
        ((PAGE, -1), RegisterValueError, "of size -1"),
        ((SIZE + 1,), RegisterValueError, "of size None from offset 32769"),
    ],
)
def test_views_of_anything_else_are_refused(
    fd: int, calls: Calls, arguments: tuple[int, ...], error: type[Exception], words: str
) -> None:
    window = Window.over_calls("w", SIZE, calls.read, calls.write, (part(fd, 1), part(fd, 2, 2)))
    with pytest.raises(error, match=f"^w.*{words}"):
        window.memory(*arguments)
    window.close()
    with pytest.raises(ClosedError):
        window.memory(PAGE, 1)


def test_a_part_of_a_mapped_window_can_be_viewed(fd: int) -> None:
    window = Window.map("w", fd, 0, SIZE)
    window.memory(8, 4)[:] = b"abcd"
    assert window.read32(8) == int.from_bytes(b"abcd", "little")
    assert len(window.memory(8)) == SIZE - 8
    assert len(window.memory(SIZE)) == 0
    with pytest.raises(RegisterValueError, match="not inside"):
        window.memory(8, SIZE)
    with pytest.raises(TypeError):
        window.memory(size="8")  # type: ignore[arg-type]
    assert ctypes.string_at(window.address + 8, 4) == b"abcd"
    window.close()
    assert window.address == 0


def test_a_strange_offset_that_closes_the_window(fd: int) -> None:
    window = Window.map("w", fd, 0, SIZE)

    class Closing:
        def __index__(self) -> int:
            window.close()
            return 0

    with pytest.raises(ClosedError):
        window.memory(Closing())  # type: ignore[arg-type]

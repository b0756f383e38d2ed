"""What every kind of window promises: bounds, widths, values, and who may see it as memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uspace_drv.errors import (
    ClosedError,
    DeviceGone,
    HostError,
    RegisterValueError,
    UnsupportedError,
)
from uspace_drv.native import Window, full_barrier, get_include, read_barrier, write_barrier

NAME = "0000:00:04.0 bar 0"
SIZE = 0x100
WIDTHS = [8, 16, 32, 64]


class Twin:
    """A device model that is a bytearray."""

    def __init__(self, content: bytes | bytearray) -> None:
        self.content = bytearray(content)

    def read(self, offset: int, width: int) -> int:
        return int.from_bytes(self.content[offset : offset + width], "little")

    def write(self, offset: int, width: int, value: int) -> None:
        self.content[offset : offset + width] = value.to_bytes(width, "little")


@pytest.fixture(params=["map", "buffer", "file", "calls"])
def window(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Window]:
    """A window of each kind over SIZE bytes that count up."""
    content = bytes(range(SIZE))
    path = tmp_path / "region"
    path.write_bytes(content)
    fd = os.open(path, os.O_RDWR)
    twin = Twin(content)
    kinds: dict[str, Callable[[], Window]] = {
        "map": lambda: Window.map(NAME, fd, 0, SIZE),
        "buffer": lambda: Window.over_buffer(NAME, bytearray(content)),
        "file": lambda: Window.over_file(NAME, fd, 0, SIZE),
        "calls": lambda: Window.over_calls(NAME, SIZE, twin.read, twin.write),
    }
    made = kinds[request.param]()
    yield made
    made.close()
    os.close(fd)


@pytest.mark.parametrize("bits", WIDTHS)
def test_reads_and_writes_little_endian(window: Window, bits: int) -> None:
    width = bits // 8
    expected = int.from_bytes(bytes(range(0x10, 0x10 + width)), "little")
    assert getattr(window, f"read{bits}")(0x10) == expected
    value = 0xF7E6D5C4B3A29180 & ((1 << bits) - 1)
    getattr(window, f"write{bits}")(SIZE - width, value)
    assert getattr(window, f"read{bits}")(SIZE - width) == value
    assert window.read8(SIZE - width - 1) == SIZE - width - 1, "a neighbour changed"


@pytest.mark.parametrize(
    ("offset", "message"),
    [
        (0x104, f"{NAME}: offset 0x104 is past the end (0x100 bytes)"),
        (0x100, f"{NAME}: offset 0x100 is past the end (0x100 bytes)"),
        (1 << 63, f"{NAME}: offset 0x8000000000000000 is past the end (0x100 bytes)"),
        (1 << 70, f"{NAME}: offset 0x400000000000000000 is past the end (0x100 bytes)"),
        (-4, f"{NAME}: offset -0x4 is before the start"),
        (-(1 << 70), f"{NAME}: offset -0x400000000000000000 is before the start"),
        (0x6, f"{NAME}: offset 0x6 is not aligned to 4 bytes"),
        (0xFE, f"{NAME}: offset 0xfe is not aligned to 4 bytes"),
    ],
)
def test_a_wrong_offset_is_refused(window: Window, offset: int, message: str) -> None:
    with pytest.raises(RegisterValueError) as seen:
        window.read32(offset)
    assert str(seen.value) == message
    with pytest.raises(RegisterValueError) as seen:
        window.write32(offset, 0)
    assert str(seen.value) == message


def test_an_access_must_end_inside() -> None:
    window = Window.over_buffer(NAME, bytearray(6))
    with pytest.raises(RegisterValueError, match=r"4 bytes at offset 0x4 reach past the end \(0x6"):
        window.read32(4)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("value", [-1, -(1 << 80), 1 << 80])
def test_a_value_that_does_not_fit_is_refused(window: Window, bits: int, value: int) -> None:
    with pytest.raises(RegisterValueError) as seen:
        getattr(window, f"write{bits}")(0, value)
    assert str(seen.value) == f"{NAME}: value {value:#x} does not fit {bits} bits"
    with pytest.raises(RegisterValueError):
        getattr(window, f"write{bits}")(0, 1 << bits)
    assert window.read8(0) == 0


def test_what_is_not_an_integer_is_refused(window: Window) -> None:
    for wrong in (1.0, "4", None, np.float32(4), [4]):
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            window.read8(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            window.write8(0, wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"an offset and a value \(1 given\)"):
        window.write8(0)  # type: ignore[call-arg]


def test_numpy_integers_are_integers(window: Window) -> None:
    window.write64(int(np.uint8(8)), int(np.uint64(2**64 - 2)))
    window.write64(np.uint8(8), np.uint64(2**64 - 1))  # type: ignore[arg-type]
    value = window.read64(np.int64(8))  # type: ignore[arg-type]
    assert (value, type(value)) == (2**64 - 1, int)


@given(
    accesses=st.lists(
        st.tuples(
            st.sampled_from([1, 2, 4, 8]),
            st.integers(-16, SIZE + 16),
            st.none() | st.integers(-1, 1 << 64),
        ),
        max_size=30,
    )
)
def test_agrees_with_a_bytearray(accesses: list[tuple[int, int, int | None]]) -> None:
    memory = bytearray(range(SIZE))
    twin = Twin(memory)
    window = Window.over_buffer(NAME, memory)
    for width, offset, value in accesses:
        inside = 0 <= offset <= SIZE - width and offset % width == 0
        good = inside and (value is None or 0 <= value < 1 << (8 * width))
        if not good:
            with pytest.raises(RegisterValueError):
                access(window, width, offset, value)
        elif value is None:
            assert access(window, width, offset, None) == twin.read(offset, width)
        else:
            access(window, width, offset, value)
            twin.write(offset, width, value)
    window.close()
    assert memory == twin.content


def access(window: Window, width: int, offset: int, value: int | None) -> object:
    if value is None:
        return getattr(window, f"read{8 * width}")(offset)
    return getattr(window, f"write{8 * width}")(offset, value)


def test_says_what_it_is(window: Window) -> None:
    assert (window.name, window.size, window.closed) == (NAME, SIZE, False)
    assert repr(window) == f"<Window '{NAME}' 0x100 bytes>"
    window.close()
    window.close()
    assert (window.name, window.size, window.closed) == (NAME, SIZE, True)
    assert repr(window) == f"<Window '{NAME}' 0x100 bytes, closed>"


def test_a_closed_window_says_so(window: Window) -> None:
    window.close()
    for call in (lambda: window.read8(0), lambda: window.write64(8, 1), window.memory):
        with pytest.raises(ClosedError) as seen:
            call()
        assert str(seen.value) == f"{NAME} is closed"


def test_closing_while_an_argument_is_converted(window: Window) -> None:
    class Closing:
        def __index__(self) -> int:
            window.close()
            return 0

    with pytest.raises(ClosedError):
        window.write32(0, Closing())  # type: ignore[arg-type]


def test_cannot_be_made_or_derived() -> None:
    with pytest.raises(TypeError):
        Window()
    with pytest.raises(TypeError):
        type("Derived", (Window,), {})


def test_a_buffer_must_be_aligned_and_not_empty() -> None:
    with pytest.raises(RegisterValueError, match="not aligned to 8 bytes"):
        Window.over_buffer(NAME, memoryview(bytearray(64))[1:])
    with pytest.raises(RegisterValueError, match="a size of 0 bytes"):
        Window.over_buffer(NAME, bytearray())


def test_a_read_only_buffer_is_not_written() -> None:
    window = Window.over_buffer(NAME, memoryview(bytes(16)))
    with pytest.raises(UnsupportedError, match="is read-only; open it writable"):
        window.write8(0, 1)
    assert window.memory().readonly


def test_a_file_is_read_at_its_offset(two_pages: Path) -> None:
    with two_pages.open("r+b") as file:
        window = Window.over_file(NAME, file.fileno(), 4096, 4096)
        assert window.read8(0) == 4096 % 251
        window.write16(2, 0xBEEF)
    assert two_pages.read_bytes()[4098:4100] == b"\xef\xbe"


def test_a_short_transfer_means_that_the_device_is_gone(two_pages: Path) -> None:
    with two_pages.open("rb") as file:
        window = Window.over_file(NAME, file.fileno(), 8190, 64)
        assert window.read16(0) == int.from_bytes(bytes([8190 % 251, 8191 % 251]), "little")
        with pytest.raises(DeviceGone, match="a read at offset 0x0 moved 2 of 4 bytes"):
            window.read32(0)


def test_an_error_of_the_file_is_the_hosts(two_pages: Path) -> None:
    with two_pages.open("rb") as file:
        window = Window.over_file(NAME, file.fileno(), 0, 64)
        with pytest.raises(HostError, match="a write of 4 bytes at offset 0x8 failed") as seen:
            window.write32(8, 0)
    assert seen.value.errno == 9
    assert isinstance(seen.value.__cause__, OSError)


@pytest.mark.parametrize("answer", [0x100, -1, None, 1.5, 1 << 90])
def test_a_model_must_answer_with_a_number_that_fits(answer: object) -> None:
    wrong = cast("int", answer)
    window = Window.over_calls(NAME, 16, lambda _o, _w: wrong, lambda _o, _w, _v: None)
    with pytest.raises(RegisterValueError, match="expected a number of 8 bits") as seen:
        window.read8(4)
    assert repr(answer) in str(seen.value)


def test_errors_of_a_model_pass_through() -> None:
    def fail(*_: int) -> NoReturn:
        raise LookupError("the model is broken")

    window = Window.over_calls(NAME, 16, fail, fail)
    with pytest.raises(LookupError, match="the model is broken"):
        window.read8(0)
    with pytest.raises(LookupError, match="the model is broken"):
        window.write8(0, 0)


def test_a_model_may_close_its_window() -> None:
    def close(_offset: int, _width: int) -> int:
        closing.close()
        return 7

    closing = Window.over_calls(NAME, 16, close, lambda _o, _w, _v: None)
    assert closing.read8(0) == 7
    with pytest.raises(ClosedError):
        closing.read8(0)


def test_only_memory_can_be_viewed(two_pages: Path) -> None:
    model = Window.over_calls(NAME, 16, lambda _o, _w: 0, lambda _o, _w, _v: None)
    with pytest.raises(UnsupportedError, match="calls of a model; a mapped window can"):
        model.memory()
    with two_pages.open("rb") as file:
        region = Window.over_file(NAME, file.fileno(), 0, 16)
        with pytest.raises(UnsupportedError, match="pread and pwrite; a mapped window can"):
            region.memory()
    with pytest.raises(TypeError, match="bytes-like"):
        memoryview(Window.over_buffer(NAME, bytearray(16)))  # type: ignore[arg-type]


def test_a_window_keeps_what_leads_to_the_device() -> None:
    window = Window.over_buffer(NAME, bytearray(8))
    assert window.link is None
    link = object()
    before = sys.getrefcount(link)
    window.link = link
    window.link = link
    assert window.link is link
    assert sys.getrefcount(link) == before + 1
    window.link = None
    assert window.link is None
    window.link = link
    del window
    assert sys.getrefcount(link) == before


def test_a_closed_window_asks_what_leads_to_the_device_why() -> None:
    class Link:
        fault: Exception | None = None

        def check_alive(self) -> None:
            if self.fault:
                raise self.fault

    link = Link()
    window = Window.over_buffer(NAME, bytearray(8))
    window.link = link
    link.fault = DeviceGone("taken away")
    assert window.read32(0) == 0  # only once it is closed
    window.close()
    for use in (lambda: window.read8(0), lambda: window.write64(0, 1), window.memory):
        with pytest.raises(DeviceGone, match="taken away"):
            use()
    link.fault = None
    with pytest.raises(ClosedError, match=f"{NAME} is closed"):
        window.read8(0)
    window.link = object()
    with pytest.raises(AttributeError):
        window.read8(0)


def test_barriers_and_header_exist() -> None:
    write_barrier()
    read_barrier()
    full_barrier()
    assert (Path(get_include()) / "uspace_drv.h").is_file()

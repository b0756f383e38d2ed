"""Mapped windows: views, closing under them, bus errors, threads, forks, and what they leave."""

from __future__ import annotations

import gc
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from uspace_drv.errors import (
    ClosedError,
    DeviceGone,
    HostError,
    RegisterValueError,
    UnsupportedError,
)
from uspace_drv.native import Window

from .child import in_child

NAME = "0000:00:04.0 bar 0"


@pytest.fixture
def region(two_pages: Path) -> Iterator[int]:
    fd = os.open(two_pages, os.O_RDWR)
    yield fd
    os.close(fd)


def mapped_lines(path: Path) -> list[str]:
    """How often this process maps the file."""
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line]


def test_maps_at_an_offset_and_shares(region: int, two_pages: Path) -> None:
    window = Window.map(NAME, region, 4096, 4096)
    assert window.read8(1) == 4097 % 251
    window.write32(4, 0x12345678)
    assert two_pages.read_bytes()[4100:4104] == b"\x78\x56\x34\x12"


def test_read_only_mapping(two_pages: Path) -> None:
    with two_pages.open("rb") as file:
        window = Window.map(NAME, file.fileno(), 0, 4096, writable=False)
        assert window.read8(3) == 3
        with pytest.raises(UnsupportedError, match="is read-only"):
            window.write8(3, 0)
        assert window.memory().readonly
        with pytest.raises(HostError, match=r"cannot map it: .*writable=False") as seen:
            Window.map(NAME, file.fileno(), 0, 4096)
    assert seen.value.errno == 13


def test_what_cannot_be_mapped_says_why(region: int) -> None:
    for offset, size, words in [
        (0, 0, "a size of 0 bytes"),
        (0, -1, "a size of -1 bytes"),
        (-4096, 4096, "a file offset of -4096, expected 0 or more"),
        (2**63 - 4096, 4096, "an end below 2"),
        (100, 4096, "not a multiple of the page size"),
    ]:
        with pytest.raises(RegisterValueError, match=words):
            Window.map(NAME, region, offset, size)
    event = os.eventfd(0)
    with pytest.raises(HostError, match=r"cannot be mapped: use Window\.over_file"):
        Window.map(NAME, event, 0, 4096)
    os.close(event)
    with pytest.raises(HostError, match="the file descriptor is closed"):
        Window.map(NAME, event, 0, 4096)


def test_views_see_the_memory(region: int) -> None:
    window = Window.map(NAME, region, 0, 8192)
    words = np.frombuffer(window.memory(), dtype="<u4")
    words[2] = 0xCAFE
    assert window.read32(8) == 0xCAFE
    assert window.memory().nbytes == 8192


def test_closing_takes_the_device_from_living_views(region: int, two_pages: Path) -> None:
    window = Window.map(NAME, region, 0, 8192)
    view = window.memory()
    array = np.frombuffer(view, dtype=np.uint8)
    assert len(mapped_lines(two_pages)) == 1
    window.close()
    assert mapped_lines(two_pages) == []
    assert not array.any()
    array[0] = 9
    assert view[0] == 9
    assert two_pages.read_bytes()[0] == 0


def test_closing_while_another_thread_meets_bus_errors(tmp_path: Path) -> None:
    """Its view is guarded until the zeros are there: it reads on without the GIL."""
    done = in_child(
        """
import threading
import numpy as np
size = 1 << 24
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
for _ in range(20):
    os.ftruncate(fd, size)
    window = Window.map("bar", fd, 0, size)
    array = np.frombuffer(window.memory(), np.uint8)
    os.ftruncate(fd, 0)
    started = threading.Event()
    thread = threading.Thread(target=lambda: (started.set(), array.sum()))
    thread.start()
    started.wait()
    window.close()
    thread.join()
print("alive")
""",
        str(tmp_path / "region"),
    )
    assert done.stdout == "alive\n", done.returncode


def test_pages_go_with_the_last_holder(region: int, two_pages: Path) -> None:
    window = Window.map(NAME, region, 0, 8192)
    window.close()
    assert mapped_lines(two_pages) == []
    window = Window.map(NAME, region, 0, 8192)
    view = window.memory()
    del window
    assert len(mapped_lines(two_pages)) == 1
    assert view[5] == 5
    del view
    assert mapped_lines(two_pages) == []


def test_a_buffer_is_held_until_closed() -> None:
    memory = bytearray(16)
    window = Window.over_buffer(NAME, memory)
    view = window.memory()
    window.close()
    with pytest.raises(BufferError):
        memory.append(0)
    del view
    memory.append(0)
    window = Window.over_buffer(NAME, memory)
    window.close()
    memory.append(0)


def test_a_bus_error_is_a_device_that_is_gone(region: int) -> None:
    windows = [Window.map(NAME, region, 0, 8192), Window.map("the other", region, 4096, 4096)]
    untouched = Window.map("untouched", region, 0, 4096)
    os.ftruncate(region, 0)
    for window, offset in zip(windows, (0x1010, 0), strict=True):
        with pytest.raises(DeviceGone) as seen:
            window.read32(offset)
        assert str(seen.value) == (
            f"{window.name}: bus error at offset {offset:#x}: the device vanished"
        )
        os.ftruncate(region, 8192)
        with pytest.raises(DeviceGone):
            window.read8(0)
        with pytest.raises(DeviceGone):
            window.write8(0, 1)
        with pytest.raises(DeviceGone):
            window.memory()
        os.ftruncate(region, 0)
        assert repr(window).endswith("bytes, gone>")
        window.close()
        with pytest.raises(ClosedError):
            window.read8(0)
    os.ftruncate(region, 8192)
    assert untouched.read8(0) == 0


def test_a_write_to_a_device_that_is_gone(region: int, two_pages: Path) -> None:
    window = Window.map(NAME, region, 0, 4096)
    os.ftruncate(region, 0)
    with pytest.raises(DeviceGone, match="offset 0x20"):
        window.write64(0x20, 1)
    assert two_pages.read_bytes() == b""


def test_a_view_of_a_device_that_is_gone_is_all_ones(region: int) -> None:
    window = Window.map(NAME, region, 0, 8192)
    array = np.frombuffer(window.memory(), dtype="<u4")
    os.ftruncate(region, 4096)
    assert (array[1024:] == 0xFFFFFFFF).all()
    assert array[0] == 0x03020100
    with pytest.raises(DeviceGone, match="offset 0x1000"):
        window.read8(0)


def test_memory_that_somebody_else_mapped_is_guarded_too(region: int) -> None:
    owner = Window.map("owner", region, 0, 8192)
    window = Window.over_buffer(NAME, owner.memory()[4096:])
    os.ftruncate(region, 4096)
    with pytest.raises(DeviceGone, match="offset 0x8"):
        window.read8(8)
    with pytest.raises(DeviceGone, match="offset 0x1008"):
        owner.read8(0)


def test_many_threads_meet_the_same_bus_error(region: int) -> None:
    windows = [Window.map(f"window {i}", region, 0, 8192) for i in range(8)]
    together = threading.Barrier(len(windows))
    gone: list[str] = []

    def read(window: Window) -> None:
        together.wait()
        try:
            for i in range(2000):
                window.read32(i % 2048 * 4)
                if i == 500:
                    os.ftruncate(region, 0)
        except DeviceGone:
            gone.append(window.name)

    threads = [threading.Thread(target=read, args=(window,)) for window in windows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(gone) == [window.name for window in windows]


def test_a_forked_child_has_no_part_in_the_device(two_pages: Path) -> None:
    done = in_child(
        """
fd = os.open(sys.argv[1], os.O_RDWR)
window = Window.map("bar", fd, 0, 4096)
view = window.memory()
child = os.fork()
if child == 0:
    os.write(1, f"{view[:4].tolist()} {sys.argv[1] in open('/proc/self/maps').read()}\\n".encode())
    try:
        window.write8(0, 99)
    except Exception as error:
        os.write(1, f"{type(error).__name__}: {error}\\n".encode())
    view[0] = 77
    window.close()
    os._exit(0)
os.waitpid(child, 0)
print(window.read32(0), view[1])
""",
        str(two_pages),
    )
    assert done.stdout.splitlines() == [
        "[0, 0, 0, 0] False",
        "ClosedError: bar was opened by the process that this one was forked from; open it here",
        f"{0x03020100} 1",
    ], done.stderr


def test_other_bus_errors_still_end_the_process(two_pages: Path) -> None:
    """The handler that was there before is called: faulthandler's, which prints and dies."""
    done = in_child(
        """
import faulthandler, mmap
faulthandler.enable()
fd = os.open(sys.argv[1], os.O_RDWR)
window = Window.map("bar", fd, 0, 4096)
other = mmap.mmap(fd, 4096)
os.ftruncate(fd, 0)
print(other[0])
""",
        str(two_pages),
    )
    assert done.returncode != 0
    assert "Fatal Python error: Bus error" in done.stderr
    assert done.stdout == ""


LATER = """
import faulthandler
from uspace_drv.errors import DeviceGone
fd = os.open(sys.argv[1], os.O_RDWR)
first = Window.map("first", fd, 0, 4096)
faulthandler.enable()
second = Window.map("second", fd, 0, 4096)
"""


def test_the_next_window_takes_bus_errors_back_from_a_later_handler(two_pages: Path) -> None:
    done = in_child(
        LATER
        + """
os.ftruncate(fd, 0)
for window in (first, second):
    try:
        window.read8(0)
    except DeviceGone as error:
        print(error)
""",
        str(two_pages),
    )
    assert done.stdout.count("bus error at offset 0x0: the device vanished\n") == 2, done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("last", ["", "faulthandler.disable()"], ids=["enabled", "disabled"])
def test_handlers_that_raise_it_again_do_not_go_round(two_pages: Path, last: str) -> None:
    """The later handler puts ours back and raises; when disabled, it just returns."""
    done = in_child(
        f"""{LATER}
import mmap
{last}
other = mmap.mmap(fd, 4096)
os.ftruncate(fd, 0)
print(other[0])
""",
        str(two_pages),
    )
    assert done.returncode != 0
    assert done.stderr.count("Fatal Python error: Bus error") == (not last)
    assert done.stdout == ""


def test_a_bus_error_sent_by_hand_is_not_ours(two_pages: Path) -> None:
    done = in_child(
        """
import signal
seen = []
signal.signal(signal.SIGBUS, lambda number, frame: seen.append(number))
window = Window.map("bar", os.open(sys.argv[1], os.O_RDWR), 0, 4096)
signal.raise_signal(signal.SIGBUS)
print(len(seen), window.read8(1))
""",
        str(two_pages),
    )
    assert done.stdout == "1 1\n", done.stderr


class Owner:
    """Something that holds a window and is held by it."""

    window: Window

    def read(self, _offset: int, _width: int) -> int:
        return 0

    def write(self, _offset: int, _width: int, _value: int) -> None:
        pass


def test_a_cycle_through_a_model_is_collected() -> None:
    owner = Owner()
    owner.window = Window.over_calls(NAME, 16, owner.read, owner.write)
    gone = weakref.ref(owner)
    del owner
    gc.collect()
    assert gone() is None


def test_a_cycle_through_a_buffer_is_collected() -> None:
    class Memory(bytearray):
        window: Window

    memory = Memory(16)
    memory.window = Window.over_buffer(NAME, memory)
    gone = weakref.ref(memory)
    del memory
    gc.collect()
    assert gone() is None


def test_no_reference_is_lost_or_kept(region: int) -> None:
    memory, name, read, write = bytearray(16), "".join([NAME]), Owner().read, Owner().write
    watched = (memory, name, read, write, Window, DeviceGone, RegisterValueError)
    before = [sys.getrefcount(thing) for thing in watched]
    for _ in range(50):
        for window in (
            Window.over_buffer(name, memory),
            Window.over_file(name, region, 0, 16),
            Window.over_calls(name, 16, read, write),
            Window.map(name, region, 0, 4096),
        ):
            window.write64(0, window.read64(8))
            for wrong in (1 << 70, -1):
                with pytest.raises(RegisterValueError):
                    window.write8(0, wrong)
            window.close()
        del window
    gc.collect()
    assert [sys.getrefcount(thing) for thing in watched] == before

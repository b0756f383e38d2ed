"""Files that are cut off under a window: of huge pages, which go whole, and of very many pages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.huge_pages import huge_pages
from uspace_drv.huge_pages import HUGE_PAGE
from uspace_drv.native import Window

from .child import in_child

HUGE_FILE_FLAGS = os.MFD_HUGETLB | os.MFD_HUGE_2MB

HUGE_FILE = f"""
from uspace_drv.errors import ClosedError, DeviceGone
huge = {HUGE_PAGE}
fd = os.memfd_create("huge", {HUGE_FILE_FLAGS})
os.ftruncate(fd, 3 * huge)
def lines():
    return sum("memfd:huge" in line for line in open("/proc/self/maps"))
def attempt(call, *arguments):
    try:
        print(call(*arguments))
    except (ClosedError, DeviceGone) as error:
        print(error)
"""


@pytest.fixture
def three_pages() -> Iterator[None]:
    with huge_pages(3):
        yield


@pytest.mark.usefixtures("three_pages")
def test_huge_pages_that_are_cut_off() -> None:
    done = in_child(
        HUGE_FILE
        + """
window = Window.map("peer", fd, 0, 3 * huge)
view = window.memory()
window.write32(2 * huge, 7)
print(window.read32(2 * huge), view[2 * huge], lines())
os.ftruncate(fd, huge)
attempt(window.read32, 2 * huge + 0x123400)
attempt(window.write32, 0, 1)
view[huge] = 1
print(view[huge], view[2 * huge], lines())
window.close()
print(view[huge], lines())
"""
    )
    gone = "peer: bus error at offset 0x523400: the device vanished"
    assert done.stdout.splitlines() == ["7 7 1", gone, gone, "1 0 0", "0 0"], done.stderr
    assert done.returncode == 0


@pytest.mark.usefixtures("three_pages")
def test_a_write_to_huge_pages_that_are_cut_off() -> None:
    done = in_child(
        HUGE_FILE
        + """
window = Window.map("peer", fd, huge, huge)
os.ftruncate(fd, 0)
attempt(window.write64, 0x1000, 1)
"""
    )
    assert done.stdout == "peer: bus error at offset 0x1000: the device vanished\n", done.stderr


@pytest.mark.usefixtures("three_pages")
def test_a_part_of_a_huge_page_goes_whole() -> None:
    """The kernel maps all of the page, and takes nothing less back."""
    done = in_child(
        HUGE_FILE
        + """
for _ in range(2):
    window = Window.map("peer", fd, huge, 4096)
    window.write8(4095, 9)
    view = window.memory()
    print(len(view), lines())
    if os.fork() == 0:
        os.write(1, f"child {view[4095]} {lines()}\\n".encode())
        os._exit(0)
    os.wait()
    window.close()
    print(view[4095], lines())
    del view, window
window = Window.map("peer", fd, huge, 100)
os.ftruncate(fd, 0)
attempt(window.read8, 99)
del window
print(lines())
"""
    )
    once = ["4096 1", "child 0 0", "0 0"]
    gone = "peer: bus error at offset 0x63: the device vanished"
    assert sorted(done.stdout.splitlines()) == sorted([*once, *once, gone, "0"]), done.stderr


def test_huge_pages_are_given_back() -> None:
    with huge_pages(2):
        fd = os.memfd_create("huge", HUGE_FILE_FLAGS)
        os.ftruncate(fd, 2 * HUGE_PAGE)
        window = Window.map("peer", fd, 0, 2 * HUGE_PAGE)
        window.write8(HUGE_PAGE, 1)
        assert "memfd:huge" in Path("/proc/self/maps").read_text()
        window.close()
        os.close(fd)
        assert "memfd:huge" not in Path("/proc/self/maps").read_text()


def test_very_many_pages_that_are_cut_off(tmp_path: Path) -> None:
    """Each page of ones is a mapping, and a process may have some 65,000 of them."""
    done = in_child(
        """
from uspace_drv.errors import DeviceGone
pages = 100_000
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, pages * 4096)
window = Window.map("peer", fd, 0, pages * 4096)
view = window.memory()
os.ftruncate(fd, 0)
print([view[page * 4096] for page in range(pages)].count(255))
print(len(open("/proc/self/maps").readlines()) < 500)
view[4096] = 1
print(view[4096])
try:
    window.read8(0)
except DeviceGone as error:
    print(error)
""",
        str(tmp_path / "file"),
    )
    assert done.stdout.splitlines() == [
        "1024",
        "True",
        "1",
        "peer: bus error at offset 0x0: the device vanished",
    ], done.stderr

"""The Python face of the data path in C: what it refuses, and that nothing is left of it."""

from __future__ import annotations

import ctypes
import mmap
import threading

import pytest

from tests.drivers.nvme.data_path_host import (
    CC,
    CFS,
    ENTRIES,
    IO_CQ,
    IO_SQ,
    PAGE,
    code,
    command,
    native,
    read,
    until,
)
from uspace_drivers.nvme.model.rings import native_rings
from uspace_drivers.nvme.model.rings.data_path import DataPath
from uspace_drivers.nvme.model.rings.native_rings import NativeRings
from uspace_drv import BusyError, Direction, Iova, RegisterValueError
from uspace_drv.models.iommu import OwnMemory
from uspace_drv.native import faults

pytestmark = pytest.mark.usefixtures("nothing_left")


def a_path(page: mmap.mmap) -> DataPath:
    path = DataPath(page, 4, PAGE, 1 << 20, False, faults())
    assert path.run(b"", 0) == native_rings.Event.MEMORY  # it wants the table refreshed first
    return path


@pytest.mark.parametrize(
    ("setup", "words"),
    [
        ((4, 512), "page size"),
        ((3, PAGE), "stride"),
        ((32, PAGE), "stride"),
        ((4, 6000), "page size"),
    ],
)
def test_wrong_setups(setup: tuple[int, int], words: str) -> None:
    with pytest.raises(RegisterValueError, match=words):
        DataPath(mmap.mmap(-1, PAGE), *setup, 1 << 20, False, faults())
    with pytest.raises(RegisterValueError, match="whole page"):
        DataPath(bytearray(100), 4, PAGE, 1 << 20, False, faults())


def test_wrong_queues() -> None:
    path = a_path(mmap.mmap(-1, PAGE))
    path.open_completion(1, PAGE, 2, -1)
    path.open_submission(1, PAGE, 2, 1)
    for call in (
        lambda: path.open_completion(128, PAGE, 2, 0),
        lambda: path.open_completion(2, PAGE, 1, 0),
        lambda: path.open_completion(2, PAGE + 8, 2, 0),
        lambda: path.open_completion(2, PAGE, 2, 128),
        lambda: path.open_completion(1, PAGE, 2, 0),
        lambda: path.open_submission(1, PAGE, 2, 1),
        lambda: path.open_submission(2, PAGE, 2, 2),
        lambda: path.open_submission(2, PAGE + 32, 2, 1),
        lambda: path.head(9),
        lambda: path.close_submission(9),
        lambda: path.close_completion(-1 & 0xFFFF),
        lambda: path.set_namespace(64, 9, 1, 0, -1),
        lambda: path.set_namespace(1, 21, 1, 0, -1),
        lambda: path.set_namespace(1, 9, 1 << 60, 0, -1),
    ):
        with pytest.raises(RegisterValueError):
            call()
    assert path.has_submission(1)
    assert not path.has_completion(3)


def test_nothing_is_changed_while_it_runs() -> None:
    path = a_path(mmap.mmap(-1, PAGE))
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(path.run(b"", 0)))
    thread.start()
    until(lambda: _is_busy(path), "the run")
    with pytest.raises(BusyError, match="it is running"):
        path.open_completion(1, PAGE, 2, -1)
    path.interrupt()
    thread.join()
    assert found == [native_rings.Event.INTERRUPTED]
    assert path.run(b"", 0) == native_rings.Event.INTERRUPTED
    path.resume()


def test_a_second_attempt_to_make_one() -> None:
    """What the first one took is given back."""
    page, other = bytearray(100), mmap.mmap(-1, PAGE)
    path = DataPath.__new__(DataPath)
    with pytest.raises(RegisterValueError, match="whole page"):
        path.__init__(page, 4, PAGE, 1 << 20, False, faults())
    path.__init__(other, 4, PAGE, 1 << 20, False, faults())
    page.clear()  # a BufferError where somebody holds it
    with pytest.raises(BusyError, match="made already"):
        path.__init__(other, 4, PAGE, 1 << 20, False, faults())
    with pytest.raises(RegisterValueError, match="count of faults"):
        DataPath(other, 4, PAGE, 1 << 20, False, b"no")


def test_a_failure_outside_of_a_command_is_seen() -> None:
    """The thread does not end without a word: the driver sees CSTS.CFS, and may reset it."""
    with native() as one:
        rings = one.model.rings
        assert isinstance(rings, NativeRings)
        real = rings._mode

        def fail() -> int:
            raise MemoryError("on purpose")

        rings._mode = fail  # type: ignore[method-assign]
        one.model.memory.turn.settle()
        until(lambda: one.status & CFS, "CSTS.CFS")
        assert one.model.complaints[-1] == "the model failed: MemoryError: on purpose"
        rings._mode = real  # type: ignore[method-assign]
        one.model.write_bar(0, CC, 4, 0)
        one.enable()
        one.io = one.make_queue(1, IO_SQ, IO_CQ, ENTRIES)
        one.io.submit(read(1))
        assert code(one.io.take()[0]) == 0


def test_one_failure_is_complained_of_once() -> None:
    """Completions wait in two queues that are both gone when there is room again."""
    with native() as one:
        far = 0x900_0000
        memory = mmap.mmap(-1, 4 * PAGE)
        own = OwnMemory(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
        one.model.memory.attach(far, 4 * PAGE, own, Direction.BOTH)
        for number in (2, 3):
            place = far + (number - 2) * 2 * PAGE
            one.admin.submit(
                command(5, prp1=place, cdw10=1 << 16 | number, cdw11=1),
                command(1, prp1=place + PAGE, cdw10=7 << 16 | number, cdw11=number << 16 | 1),
            )
            assert [code(entry) for entry in one.admin.take(2)] == [0, 0]
        model = one.model
        for number in (2, 3):
            for each in range(3):
                model.rings.complete(number, each, 0)
        with model.quiesce():
            model.memory.unmap(Iova(far), 4 * PAGE)
            for number in (2, 3):
                model.write_bar(0, 0x1000 + 8 * number + 4, 4, 1)
        until(lambda: one.status & CFS, "CSTS.CFS")
        model.memory.turn.settle()
        assert [each for each in model.complaints if "was unmapped" not in each] == []
        assert len(model.complaints) == 1


def test_the_thread_ends_with_the_model() -> None:
    one = native()
    assert isinstance(one.model.rings, NativeRings)
    assert any("data path" in each.name for each in threading.enumerate())
    one.close()
    assert not any("data path" in each.name for each in threading.enumerate())


def _is_busy(path: DataPath) -> bool:
    try:
        path.head(0)
    except BusyError:
        return True
    except RegisterValueError:
        return False
    return False

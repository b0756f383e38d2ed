"""The data path in C: what it does alone, what it leaves to Python, and when it stops."""

from __future__ import annotations

import ctypes
import mmap
import struct
import threading
import time

import pytest

from tests.drivers.nvme.data_path_host import (
    CFS,
    DATA,
    DOORBELLS,
    ENTRIES,
    FLUSH,
    IO_CQ,
    MEMORY,
    PAGE,
    READ,
    WRITE,
    WRITE_ZEROES,
    code,
    command,
    forbid,
    native,
    read,
    until,
)
from uspace_drivers.nvme.spec.status import Status
from uspace_drv import Direction, Iova, IrqKind

TRANSFER_ERROR = int(Status.DATA_TRANSFER_ERROR)

pytestmark = pytest.mark.usefixtures("nothing_left")


def test_plain_commands_need_no_python() -> None:
    with native(sgl=True) as one:
        forbid(one)
        one.write(DATA, bytes(range(256)) * 64)
        lists = DATA + 8 * PAGE
        one.write(lists, struct.pack("<3Q", *(DATA + n * PAGE for n in (1, 2, 3))))
        sgl = command(WRITE, flags=0x40, nsid=1, lba=64, cdw12=15, prp1=DATA, prp2=2 * PAGE)
        one.io.submit(
            command(WRITE, nsid=1, prp1=DATA, lba=5, cdw12=0),
            command(WRITE, nsid=1, prp1=DATA, prp2=DATA + PAGE, lba=0, cdw12=15),
            command(WRITE, nsid=1, prp1=DATA, prp2=lists, lba=32, cdw12=31),
            command(FLUSH, nsid=1),
            command(WRITE_ZEROES, nsid=1, lba=1, cdw12=1),
            sgl,
            read(lba=0, prp1=DATA + 16 * PAGE),
        )
        assert [code(entry) for entry in one.io.take(7)] == [0] * 7
        medium = one.model.namespaces.all[0].medium
        data = one.read(DATA, 4 * PAGE)
        assert medium.read(32 * 512, 4 * PAGE) == data
        assert medium.read(64 * 512, 2 * PAGE) == data[: 2 * PAGE]
        assert medium.read(0, 2048) == data[:512] + bytes(1024) + data[1536:2048]
        assert one.read(DATA + 16 * PAGE, 512) == data[:512]


@pytest.mark.parametrize("room", [2, 3, 4])
@pytest.mark.parametrize("pages", [2, 3, 4, 5, 200])
def test_lists_that_end_where_their_page_does(room: int, pages: int) -> None:
    """The list has `room` entries up to the end of its page, and goes on elsewhere if need be."""
    with native(mdts=9) as one:
        forbid(one)
        one.model.namespaces.all[0].medium.write(0, bytes(range(200)) * 5000)
        first, more = DATA + 64 * PAGE - 8 * room, DATA + 64 * PAGE
        entries = [DATA + n % 48 * PAGE for n in range(pages, 0, -1)]
        here = pages if pages <= room else room - 1
        rest = entries[here:]
        one.write(first, struct.pack(f"<{here}Q", *entries[:here]))
        if rest:
            one.write(more - 8, struct.pack("<Q", more))
            one.write(more, struct.pack(f"<{len(rest)}Q", *rest))
        one.io.submit(read(prp1=DATA + 49 * PAGE, prp2=first, cdw12=8 * (pages + 1) - 1))
        assert [code(entry) for entry in one.io.take()] == [0]
        expected = one.model.namespaces.all[0].medium.read(pages * PAGE, PAGE)
        assert one.read(entries[-1], PAGE) == expected


def test_work_is_counted_once() -> None:
    with native() as one:
        one.io.submit(read(cdw12=7), read(cdw12=0), command(WRITE, nsid=1, prp1=DATA))
        one.io.take(3)
        rings = one.model.rings
        assert tuple(rings.take_work()) == (2, 1, 9 * 512, 512)
        assert tuple(rings.take_work()) == (0, 0, 0, 0)


def test_an_unmap_waits_for_c_and_then_nothing_reaches_the_memory() -> None:
    """The memory is given back right after, so a late access would be a crash, or would show."""
    extra = mmap.mmap(-1, PAGE)
    where = ctypes.addressof(ctypes.c_char.from_buffer(extra))
    with native() as one:
        memory = one.model.memory
        one.model.namespaces.all[0].medium.write(0, b"late" * 128)
        for _ in range(50):
            memory.map(where, PAGE, Iova(PAGE), Direction.BOTH)
            raws = [read(number, prp1=PAGE) for number in range(ENTRIES - 1)]
            one.io.submit(*raws)
            memory.unmap(Iova(PAGE), PAGE)
            extra[:] = bytes(PAGE)
            codes = {code(entry) for entry in one.io.take(ENTRIES - 1)}
            assert codes <= {0, TRANSFER_ERROR}
            assert extra[:] == bytes(PAGE)
        one.io.submit(read(prp1=PAGE))
        assert [code(entry) for entry in one.io.take()] == [TRANSFER_ERROR]
        assert "was unmapped before" in str(one.model.health.errors[-1][4])


@pytest.mark.parametrize(
    ("direction", "opcode"), [(Direction.TO_DEVICE, READ), (Direction.FROM_DEVICE, WRITE)]
)
def test_direction_is_enforced(direction: Direction, opcode: int) -> None:
    extra = mmap.mmap(-1, PAGE)
    with native() as one:
        where = ctypes.addressof(ctypes.c_char.from_buffer(extra))
        one.model.memory.map(where, PAGE, Iova(PAGE), direction)
        one.io.submit(command(opcode, nsid=1, prp1=PAGE))
        assert [code(entry) for entry in one.io.take()] == [TRANSFER_ERROR]
        assert f"mapped {direction.name} only" in str(one.model.health.errors[-1][4])


def test_pages_that_were_written_are_on_record() -> None:
    dirty: set[int] = set()

    def mark(iova: int, size: int) -> None:
        dirty.update(range(iova // PAGE, (iova + size - 1) // PAGE + 1))

    with native() as one:
        one.model.memory.on_write = mark
        one.io.submit(read(prp1=DATA + PAGE))
        one.io.take()
        assert dirty == {IO_CQ // PAGE, DATA // PAGE + 1}
        one.model.memory.on_write = None
        forbid(one)
        one.io.submit(read())
        one.io.take()


def test_without_bus_mastering_it_gives_up() -> None:
    with native() as one:
        one.model.config.write(0x04, 2, 2)
        one.io.submit(read())
        until(lambda: one.status & CFS, "CSTS.CFS")
        assert one.io.peek() is None
        assert "bus mastering is off" in one.model.complaints[-1]


def test_powered_down_it_reaches_no_memory() -> None:
    with native() as one:
        assert one.model.memory.is_bus_master
        one.model.power_state = 3
        one.model.memory.turn.settle()
        one.model.bar_memory(0)[DOORBELLS + 8] = 1  # a client may have it mapped
        until(lambda: one.model.complaints, "a complaint")
        assert one.io.peek() is None
        one.model.power_state = 0


@pytest.mark.parametrize("how", ["reset", "disable", "close"])
def test_nothing_is_done_after_the_end(how: str) -> None:
    one = native()
    end = {"reset": one.model.reset, "close": one.model.close}
    end["disable"] = lambda: one.model.write_bar(0, 0x14, 4, 0)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            one.io.submit(*(read(n) for n in range(4)))

    driver = threading.Thread(target=work)
    driver.start()
    time.sleep(0.005)
    end[how]()
    before = one.read(IO_CQ, PAGE)
    stop.set()
    driver.join()
    one.write(DATA, b"\xaa" * PAGE)
    time.sleep(0.005)
    assert one.read(IO_CQ, PAGE) == before
    assert one.read(DATA, PAGE) == b"\xaa" * PAGE
    one.close()


def test_it_can_be_enabled_again_and_begins_anew() -> None:
    with native() as one:
        for _ in range(5):
            one.model.write_bar(0, 0x14, 4, 0)
            one.enable()
            one.io = one.make_queue(1, MEMORY + 4 * PAGE, IO_CQ, ENTRIES)
            one.io.submit(read(3))
            assert one.io.take()[0][8:] == struct.pack("<HHHH", 1, 1, 3, 1)


def test_a_full_completion_queue_holds_everything_back() -> None:
    with native() as one:
        half = one.make_queue(2, MEMORY + 8 * PAGE, MEMORY + 9 * PAGE, 4)
        one.write(DATA, bytes(PAGE))
        half.submit(read(0), read(1), read(2))
        half.take(3, frees=False)
        half.submit(command(0x7F, id=3, nsid=1), read(4))
        time.sleep(0.005)
        assert one.model.rings.head(2) == 3
        half.free(half.head)
        assert [code(entry) for entry in half.take(2)] == [1, 0]


def test_completions_of_python_wait_for_room() -> None:
    """Asynchronous ones come when they like, room or not."""
    with native() as one:
        small = one.make_queue(2, MEMORY + 8 * PAGE, MEMORY + 9 * PAGE, 3)
        rings = one.model.rings
        for number in range(5):
            rings.complete(2, 10 + number, 0, number)
        found: list[bytes] = []
        while len(found) < 5:
            found += small.take()
        assert [struct.unpack_from("<Q4xH", entry) for entry in found] == [
            (number, 10 + number) for number in range(5)
        ]


def test_messages_are_sent_for_what_c_has_done() -> None:
    with native() as one:
        one.model.config.write(0x04, 2, 6)
        line = one.model.interrupts.line(IrqKind.MSIX, 3)
        one.io = one.make_queue(2, MEMORY + 8 * PAGE, MEMORY + 9 * PAGE, ENTRIES, vector=3)
        forbid(one)
        for number in range(3):
            one.io.submit(read(number))
            until(line.take, "an interrupt")
            one.io.take()
        line.close()


def test_the_level_follows_the_queue() -> None:
    with native(vector=0) as one:
        one.admin.take(0)
        until(lambda: not one.model.vectors._pending, "the level of the admin queue to fall")
        for number in range(3):
            one.io.submit(read(number), read(number + 1))
            until(lambda: one.model.vectors._pending, "a level")
            one.io.take(1)
            time.sleep(0.003)
            assert one.model.vectors._pending
            one.io.take(1)
            until(lambda: not one.model.vectors._pending, "the level to fall")


def test_with_faults_set_python_does_it() -> None:
    seen: list[int] = []
    with native() as one:
        execute = one.model.execute

        def note(submission: int, command: bytes) -> None:
            seen.append(submission)
            execute(submission, command)

        one.model.execute = note
        one.model.rings.show_faults(True)
        one.io.submit(read(1))
        one.io.take()
        one.model.rings.show_faults(False)
        one.io.submit(read(2))
        one.io.take()
        assert seen == [1]


def test_queues_close_and_leave_nothing() -> None:
    with native() as one:
        extra = one.make_queue(2, MEMORY + 8 * PAGE, MEMORY + 9 * PAGE, ENTRIES)
        extra.submit(read())
        extra.take()
        one.admin.submit(command(0, cdw10=2), command(4, cdw10=2))
        assert [code(entry) for entry in one.admin.take(2)] == [0, 0]
        one.model.rings.complete(2, 1, 0)
        extra.ring(9)
        until(lambda: one.model.complaints, "a complaint about a queue that is gone")
        one.io.submit(read(1))
        assert code(one.io.take()[0]) == 0

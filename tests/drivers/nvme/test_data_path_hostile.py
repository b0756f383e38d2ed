"""The data path in C and a driver that breaks the rules, or puts its memory elsewhere."""

from __future__ import annotations

import struct
import time

import pytest

from tests.drivers.nvme.data_path_host import (
    CFS,
    CSTS,
    DATA,
    DOORBELLS,
    ENTRIES,
    MEMORY,
    PAGE,
    SIZE,
    code,
    command,
    native,
    read,
    until,
)
from uspace_drv import Direction

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.mark.parametrize(
    ("queue", "is_completion", "value", "words"),
    [
        (1, False, ENTRIES, "submission queue 1"),
        (1, False, 0xFFFF_FFFF, "submission queue 1"),
        (1, True, 3, "completion queue 1"),
        (1, True, ENTRIES, "completion queue 1"),
        (5, False, 1, "submission queue 5: there is no such queue"),
        (90, True, 7, "completion queue 90: there is no such queue"),
        (500, False, 7, "submission queue 500: there is no such queue"),
    ],
)
def test_wrong_doorbells_are_complained_of_once_and_ignored(
    queue: int, is_completion: bool, value: int, words: str
) -> None:
    with native() as one:
        one.model.write_bar(0, DOORBELLS + 8 * queue + 4 * is_completion, 4, value)
        until(lambda: one.model.complaints, "a complaint")
        time.sleep(0.005)
        (complaint,) = one.model.complaints
        assert words in complaint
        one.io.ring(0)
        one.io.free(0)
        one.io.submit(read(1))
        assert code(one.io.take()[0]) == 0


def test_a_list_that_leads_nowhere_ends() -> None:
    """The last entry of a page of the list is the same page: each entry is data once, then led."""
    with native(mdts=9) as one:
        loop = DATA + 16 * PAGE
        one.write(loop, struct.pack("<512Q", *[DATA] * 511, loop))
        single = loop + PAGE
        one.write(single + PAGE - 8, struct.pack("<Q", single + PAGE - 8))
        wide = {"cdw12": 2047}
        one.io.submit(read(1, prp2=loop, **wide), read(2, prp2=single + PAGE - 8, cdw12=255))
        first, second = one.io.take(2)
        assert code(first) == 0
        assert code(second)


def test_rings_at_the_end_of_memory() -> None:
    """A queue that runs off what is mapped is an error when it gets there, not before."""
    with native() as one:
        last = MEMORY + SIZE - PAGE
        far = one.make_queue(2, last, MEMORY + 9 * PAGE, 128)
        far.submit(*(read(n) for n in range(64)))
        far.take(64)
        one.model.write_bar(0, DOORBELLS + 16, 4, 65)
        until(lambda: one.status & CFS, "CSTS.CFS")
        assert "submission queue 2 carried IOVA" in one.model.complaints[-1]


def test_shadow_doorbells() -> None:
    shadow, events = DATA + 32 * PAGE, DATA + 33 * PAGE
    with native(shadow=True) as one:
        one.model.rings.use_shadow(shadow, events)
        one.write(MEMORY + 4 * PAGE, read(5))
        one.write(shadow + 8, struct.pack("<I", 1))
        assert struct.unpack_from("<H", one.io.take(frees=False)[0], 12) == (5,)
        one.write(shadow + 8, struct.pack("<I", ENTRIES + 3))
        until(lambda: one.model.complaints, "a complaint")
        assert "submission queue 1" in one.model.complaints[-1]


def test_shadow_doorbells_that_are_not_there() -> None:
    with native(shadow=True) as one:
        one.model.rings.use_shadow(SIZE * 9, SIZE * 10)
        until(lambda: one.status & CFS, "CSTS.CFS")
        assert "shadow doorbells carried IOVA" in one.model.complaints[-1]


def test_random_bytes_do_not_crash_it() -> None:
    """All of memory is noise: rings, lists, doorbells."""
    with native(sgl=True) as one:
        seed = 12345
        for _ in range(30):
            noise = bytearray()
            for _ in range(SIZE // 8 // 16):
                seed = seed * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
                noise += struct.pack("<Q", seed >> 16 if seed & 1 else MEMORY + (seed >> 40) % SIZE)
            one.write(MEMORY + 2 * PAGE, bytes(noise)[: 8 * PAGE])
            for offset in range(0, 16 * 64, 64):
                place = MEMORY + 4 * PAGE + offset
                one.write(place, bytes([seed >> offset // 64 & 3, 0]))
                one.write(place + 4, struct.pack("<I", 1))
            one.model.write_bar(0, DOORBELLS + 8, 4, seed % (ENTRIES + 1))
            one.model.write_bar(0, DOORBELLS + 12, 4, seed % ENTRIES)
            time.sleep(0.001)
        assert one.model.read_bar(0, CSTS, 4) & 1


def test_memory_that_is_reached_by_messages() -> None:
    """Rings and data, all of it through Python."""

    class Distant:
        address = 0

        def __init__(self) -> None:
            self.bytes = bytearray(64 * PAGE)

        def read(self, offset: int, size: int) -> bytes:
            return bytes(self.bytes[offset : offset + size])

        def write(self, offset: int, data: bytes) -> None:
            self.bytes[offset : offset + len(data)] = data

    with native() as one:
        distant = Distant()
        one.model.memory.attach(PAGE, 64 * PAGE, distant, Direction.BOTH)
        size = (ENTRIES - 1) << 16 | 2
        one.admin.submit(
            command(5, prp1=PAGE, cdw10=size, cdw11=1),
            command(1, prp1=2 * PAGE, cdw10=size, cdw11=2 << 16 | 1),
        )
        assert [code(entry) for entry in one.admin.take(2)] == [0, 0]
        one.model.namespaces.all[0].medium.write(0, b"far away" * 64)
        distant.write(PAGE, bytes(read(7, prp1=9 * PAGE)))
        distant.write(PAGE + 64, bytes(read(8, prp1=DATA)))
        one.model.write_bar(0, DOORBELLS + 16, 4, 2)
        until(lambda: distant.bytes[16 + 14] & 1, "two completions")
        assert distant.read(8, 8) == struct.pack("<HHHH", 1, 2, 7, 1)
        assert distant.read(24, 8) == struct.pack("<HHHH", 2, 2, 8, 1)
        assert distant.read(8 * PAGE, 512) == one.read(DATA, 512) == b"far away" * 64

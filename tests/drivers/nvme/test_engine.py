"""The engine's rings on plain memory: commands, ids, lists, doorbells, reset."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from uspace_drivers.nvme.engine.hot import Queue
from uspace_drivers.nvme.engine.requests import Request, RequestFlags, Result
from uspace_drivers.nvme.spec.commands import Opcode
from uspace_drv import BusyError, RegisterValueError

from .engine_twin import DATA_IOVA, LISTS_IOVA, PAGE, Rig, Space, Wish, batch, pages

READ = Wish(lba=5, tag=77)


def test_a_read_goes_through_both_rings() -> None:
    rig = Rig()
    assert rig.submit(READ) == 1
    assert (rig.device.tail_doorbell, rig.queue.tail, rig.queue.in_flight) == (1, 1, 1)
    [command] = rig.device.fetch(PAGE)
    rig.expect(command, READ)
    assert rig.poll() == []
    rig.device.complete(command.id, 0, 0x1_2345_6789)
    assert rig.poll() == [(77, 0, 0x1_2345_6789)]
    assert (rig.device.head_doorbell, rig.queue.head, rig.queue.in_flight) == (1, 1, 0)
    assert (rig.queue.submitted, rig.queue.completed) == (1, 1)


def test_the_command_has_the_bytes_of_the_specification() -> None:
    """Section 4.2, figures 104 and 105, and section 6.15, typed from there."""
    rig = Rig()
    flags = RequestFlags.FORCE_UNIT_ACCESS | RequestFlags.LIMITED_RETRY
    rig.set_namespace(0x11223344, Space(12, 1 << 40, 32))
    rig.submit(Wish(1, flags, 0x11223344, 0x05_0607_0809, DATA_IOVA + 0x10, 1, 2))
    [command] = rig.device.fetch()
    assert command.raw.hex(" ", -4) == (
        "01000000 44332211 00000000 00000000 00000000 00000000 10000000 01000000 "
        "00000080 00000000 09080706 05000000 010000c0 00000000 00000000 00000000"
    )
    assert rig.lists[:16].tobytes().hex(" ", -4) == "00100000 01000000 00200000 01000000"


@pytest.mark.parametrize(
    ("wish", "dwords"),
    [
        (Wish(Opcode.FLUSH, lba=7, blocks=9), (0, 0, 0, 0)),
        (Wish(Opcode.WRITE_ZEROES, RequestFlags.DEALLOCATE, lba=7), (7, 0, 1 << 25, 0)),
        (Wish(Opcode.WRITE_ZEROES, lba=7, blocks=993), (7, 0, 992, 0)),
        (Wish(Opcode.VERIFY, RequestFlags.LIMITED_RETRY, lba=7), (7, 0, 1 << 31, 0)),
        (Wish(Opcode.WRITE_UNCORRECTABLE, lba=7), (7, 0, 0, 0)),
        (Wish(Opcode.DATASET_MANAGEMENT, RequestFlags.DEALLOCATE, blocks=256), (255, 4, 0, 0)),
        (Wish(Opcode.DATASET_MANAGEMENT, lba=7, blocks=1, attributes=3), (0, 3, 0, 0)),
    ],
)
def test_dwords_of_the_other_commands(wish: Wish, dwords: tuple[int, int, int, int]) -> None:
    """Sections 6.6 to 6.16: number of blocks or ranges, deallocate and force unit access."""
    rig = Rig()
    rig.submit(wish)
    [command] = rig.device.fetch(wish.size(rig.spaces))
    assert command.dwords == wish.dwords() == dwords
    rig.expect(command, wish)


def test_status_has_fifteen_bits() -> None:
    rig = Rig()
    rig.submit(READ)
    rig.device.complete(rig.device.fetch(PAGE)[0].id, 0x4281)
    assert rig.poll() == [(77, 0x4281, 0)]


def test_rings_wrap_and_the_phase_turns() -> None:
    rig = Rig(entries=5, completions=7)
    for tag in range(100):
        wish = replace(READ, tag=tag, lba=tag)
        assert rig.submit(wish) == 1
        [command] = rig.device.fetch(PAGE)
        rig.expect(command, wish)
        rig.device.complete(command.id)
        assert rig.poll() == [(tag, 0, 0)]
    assert rig.queue.in_flight == 0


def test_ids_repeat_late_and_never_are_all_ones() -> None:
    rig = Rig(entries=2)
    seen = []
    for _ in range(70_000):
        rig.submit(READ)
        seen.append(rig.device.fetch(PAGE)[0].id)
        rig.device.complete(seen[-1])
        rig.poll()
        if len(seen) > 1 and seen[-1] == seen[0]:
            break
    assert len(seen) == 65536
    assert 0xFFFF not in seen


@pytest.mark.parametrize(
    ("entries", "depth", "completions", "expected"),
    [(8, 8, 8, 7), (8, 3, 8, 3), (8, 8, 4, 3), (64, 64, 64, 63), (2, 1, 2, 1)],
)
def test_depth_is_what_all_of_them_hold(
    entries: int, depth: int, completions: int, expected: int
) -> None:
    rig = Rig(entries, depth, completions)
    assert rig.queue.depth == expected
    assert rig.submit(*[READ] * (entries + 1)) == expected
    assert rig.submit(READ) == 0
    assert (rig.queue.free, rig.queue.in_flight) == (0, expected)


def test_one_doorbell_for_a_batch_and_none_for_nothing() -> None:
    rig = Rig()
    rig.doorbells.view("<u4")[2:4] = 99
    assert rig.queue.submit(batch()) == 0
    assert rig.poll() == []
    assert (rig.device.tail_doorbell, rig.device.head_doorbell) == (99, 99)
    rig.submit(READ, READ, READ)
    assert rig.device.tail_doorbell == 3


def test_who_gives_no_doorbells_rings_by_hand() -> None:
    rig = Rig()
    queue = Queue(
        "there", 1, rig.device.submission, rig.device.completion, rig.lists, LISTS_IOVA,
        rig.memory, page_size=PAGE,
    )  # fmt: skip
    queue.set_namespace(1, 12, 10, 32)
    assert queue.submit(batch(READ, READ)) == 2
    assert rig.device.tail_doorbell == 0
    rig.doorbells.view("<u4")[2] = queue.tail
    rig.device.complete(rig.device.fetch(PAGE)[0].id)
    assert queue.poll(Result.array(4)) == 1
    assert (queue.head, rig.device.head_doorbell) == (1, 0)


@pytest.mark.parametrize("event", [0, 1, 2, 3, 6, 0xFFFF])
def test_shadow_doorbells_ring_where_the_device_asks(event: int) -> None:
    """Section 5.7: the doorbell is written where the index passes the event index."""
    rig = Rig()
    shadow, events = pages(1), pages(1)
    rig.queue.use_shadow(shadow, events, 8, 12)
    events.view("<u4")[2] = event
    rig.submit(READ, READ, READ)
    assert shadow.view("<u4")[2] == 3
    assert rig.device.tail_doorbell == (3 if event < 3 else 0)


def test_reset_forgets_the_shadow_and_all_places() -> None:
    rig, events = Rig(), pages(1)
    events.view("<u4")[2:4] = 100  # never
    rig.queue.use_shadow(pages(1), events, 8, 12)
    rig.submit(READ)
    assert rig.device.tail_doorbell == 0
    with pytest.raises(BusyError, match="1 commands are in flight and 0 results wait"):
        rig.queue.reset()
    left = Result.array(8)
    assert rig.queue.abandon(left, 0x371) == 1
    assert (left["tag"][0], left["status"][0]) == (77, 0x371)
    rig.queue.reset()
    assert not rig.device.submission.any()
    assert (rig.queue.tail, rig.queue.head, rig.queue.in_flight) == (0, 0, 0)
    rig.device.head = 0
    rig.submit(READ)
    assert rig.device.tail_doorbell == 1
    rig.device.complete(rig.device.fetch(PAGE)[0].id)
    assert rig.poll() == [(77, 0, 0)]


@pytest.mark.parametrize("sgl", [False, True])
@pytest.mark.parametrize("offset", [0, 4, PAGE - 512, PAGE - 4])
@pytest.mark.parametrize("blocks", [1, 2, 8, 9, 16, 17, 256, 4088, 4096])
def test_pointers_cover_the_data(offset: int, blocks: int, sgl: bool) -> None:
    rig = Rig(sgl=sgl)
    rig.set_namespace(2, Space(9, 10_000, 4096))
    wish = replace(READ, namespace=2, data=DATA_IOVA + offset, blocks=blocks)
    rig.submit(wish, wish)
    for command in rig.device.fetch(blocks * 512):
        rig.expect(command, wish)


def test_raw_commands_keep_their_bytes() -> None:
    rig = Rig(sgl=True)
    raw = bytes(range(64))
    tag = rig.queue.submit_command(raw, 0, 0, 3)
    entry = rig.device.submission[:64].tobytes()
    assert entry[:2] + entry[4:] == raw[:2] + raw[4:]
    assert int.from_bytes(entry[2:4], "little") == tag
    assert rig.queue.tag_of(tag) == 3
    assert rig.queue.id_of(3) == tag
    assert (rig.queue.tag_of(tag + 8), rig.queue.id_of(4)) == (-1, -1)


def test_raw_commands_get_pointers() -> None:
    rig = Rig(entries=4)
    for _ in range(3):
        assert rig.queue.submit_command(bytes(64), DATA_IOVA + 0x20, 3 * PAGE, 1) >= 0
    assert rig.queue.submit_command(bytes(64), DATA_IOVA, PAGE, 1) == -1
    for command in rig.device.fetch(3 * PAGE):
        assert command.pieces[0] == (DATA_IOVA + 0x20, PAGE - 0x20)
        assert command.pieces[-1] == (DATA_IOVA + 3 * PAGE, 0x20)
    for data, size in [(2, PAGE), (0, 1 << 30), (2**64 - 4, 8)]:
        with pytest.raises(RegisterValueError, match="expected a multiple of 4 and at most"):
            rig.queue.submit_command(bytes(64), data, size, 1)
    with pytest.raises(RegisterValueError, match="63 bytes, expected 64"):
        rig.queue.submit_command(bytes(63), 0, 0, 1)


def test_nothing_is_kept_for_a_command() -> None:
    """Blocks of Python's memory before and after the engine's calls, for five thousand commands."""
    rig = Rig(entries=256, depth=255)
    requests, results = batch(*[READ] * 250), Result.array(250)
    kept = 0
    for turn in range(21):
        before = sys.getallocatedblocks()
        rig.queue.submit(requests)
        kept += (sys.getallocatedblocks() - before) * bool(turn)
        for command in rig.device.fetch(PAGE):
            rig.device.complete(command.id)
        before = sys.getallocatedblocks()
        assert rig.queue.poll(results) == 250
        kept += (sys.getallocatedblocks() - before) * bool(turn)
    assert kept < 250


def test_requests_lie_as_the_engine_reads_them() -> None:
    assert (Request.SIZE, Result.SIZE) == (40, 24)
    assert [member.offset for member in Request.MEMBERS.values()] == [0, 1, 2, 4, 8, 16, 24, 32, 36]

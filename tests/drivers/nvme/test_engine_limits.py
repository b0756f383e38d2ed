"""What the engine refuses: requests, namespaces, memory, arrays and rings that are wrong."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest

from uspace_drivers.nvme.engine.hot import Memory, Queue
from uspace_drivers.nvme.engine.requests import Request, Result
from uspace_drivers.nvme.spec.commands import Opcode
from uspace_drv import RegisterValueError

from .engine_twin import DATA_IOVA, LISTS_IOVA, PAGE, Rig, Space, Wish, pages

READ = Wish(lba=5, tag=77)


def test_a_command_never_moves_more_than_its_list_holds() -> None:
    rig = Rig()
    rig.set_namespace(2, Space(12, 10_000, 100_000))
    assert rig.queue.most_bytes == 2 << 20
    with pytest.raises(RegisterValueError, match="513 blocks, expected 1 to 512"):
        rig.submit(replace(READ, namespace=2, blocks=513))


WRONG = {
    "opcode 0x03 is no I/O command": Wish(opcode=3),
    "opcode 0x7f is no I/O command": Wish(opcode=0x7F),
    "flags 0x04 and attributes 0x0 do not go with opcode 0x02": Wish(flags=4),
    "flags 0x00 and attributes 0x1 do not go": Wish(attributes=1),
    "namespace 2 is not set": Wish(namespace=2),
    "0 blocks, expected 1 to 32": Wish(blocks=0),
    "33 blocks, expected 1 to 32": Wish(blocks=33),
    "65537 blocks, expected 1 to 65536": Wish(opcode=Opcode.WRITE_ZEROES, blocks=65537),
    "257 ranges, expected 1 to 256": Wish(opcode=Opcode.DATASET_MANAGEMENT, blocks=257),
    "2 blocks from 999 on reach past the end of namespace 1": Wish(lba=999, blocks=2),
    "1 blocks from 18446744073709551615 on reach past": Wish(lba=2**64 - 1),
    "0x100000002, expected a multiple of 4": Wish(data=DATA_IOVA + 2),
    "does not lie in the controller's Memory": Wish(data=DATA_IOVA - PAGE),
    r"0x1007ff004 \(1 blocks": Wish(data=DATA_IOVA + 2047 * PAGE + 4),
    r"0xfffffffffffffffc \(1 blocks": Wish(data=2**64 - 4),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_request_is_refused_in_words(message: str) -> None:
    rig = Rig()
    with pytest.raises(RegisterValueError, match=f"0000:00:04.0 queue 1: request 0: .*{message}"):
        rig.submit(WRONG[message])
    assert (rig.queue.in_flight, rig.device.tail_doorbell) == (0, 0)
    with pytest.raises(RegisterValueError, match=r"request 2: .*; the 2 before it were submitted"):
        rig.submit(READ, READ, WRONG[message], READ)
    assert (rig.queue.in_flight, rig.device.tail_doorbell) == (2, 2)


def test_a_namespace_can_go_and_change() -> None:
    rig = Rig()
    for namespace in (5, 3, 9):
        rig.set_namespace(namespace, Space(9, 100 * namespace, 8))
    rig.submit(Wish(namespace=3, lba=299), Wish(namespace=9, lba=899))
    rig.queue.set_namespace(3, 0, 0, 0)
    with pytest.raises(RegisterValueError, match="namespace 3 is not set"):
        rig.submit(Wish(namespace=3))
    rig.set_namespace(9, Space(9, 100, 8))
    with pytest.raises(RegisterValueError, match="past the end"):
        rig.submit(Wish(namespace=9, lba=899))
    assert rig.submit(Wish(namespace=5, lba=499)) == 1
    with pytest.raises(RegisterValueError, match=r"blocks of 2\*\*8 bytes"):
        rig.queue.set_namespace(1, 8, 100, 8)


def test_memory_that_was_removed_is_refused() -> None:
    rig = Rig()
    assert rig.submit(READ) == 1
    rig.memory.remove(DATA_IOVA)
    with pytest.raises(RegisterValueError, match="Memory"):
        rig.submit(READ)
    with pytest.raises(RegisterValueError, match="no array was added at IOVA 5"):
        rig.memory.remove(5)


def test_memory_finds_what_lies_in_it() -> None:
    memory, first, second = Memory(), pages(4), pages(4)
    memory.add(first, 0x50_0000)
    memory.add(second, 0x10_0000)
    assert memory.find(first) == 0x50_0000
    assert memory.find(second[PAGE:]) == 0x10_1000
    assert memory.find(second[-4:]) == 0x10_3FFC
    assert memory.find(np.zeros(4, "u1")) == -1
    with pytest.raises(ValueError, match="contiguous"):
        memory.find(first[::2])


@pytest.mark.parametrize("iova", [0x50_0000, 0x50_3FFF, 0x4F_F001])
def test_memory_does_not_overlap(iova: int) -> None:
    memory = Memory()
    memory.add(pages(4), 0x50_0000)
    with pytest.raises(RegisterValueError, match="overlaps that of 16384 bytes at IOVA 0x500000"):
        memory.add(pages(1), iova)
    memory.add(pages(1), 0x50_4000)
    with pytest.raises(RegisterValueError, match="expected 1 or more that end below"):
        memory.add(pages(1), 2**64 - PAGE)
    with pytest.raises(RegisterValueError, match="iova is -1"):
        memory.add(pages(1), -1)


def test_memory_keeps_its_arrays_and_gives_them_back() -> None:
    memory, array = Memory(), bytearray(PAGE)
    memory.add(array, 0)
    with pytest.raises(BufferError):
        array.extend(b"1")
    memory.remove(0)
    array.extend(b"1")
    memory.add(array, 0)
    del memory
    gc.collect()
    array.extend(b"1")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(40, "u1"), "1 dimensions with items of 1 bytes"),
        (np.zeros(5, "u8"), "expected an array of Request"),
        (Request.array(4).reshape(2, 2), "an array of 2 dimensions"),
        (np.zeros(48, "u1")[4:44].view(Request.array(0).dtype), r"address of 8n\+4"),
    ],
)
def test_odd_arrays_are_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(RegisterValueError, match=message):
        Rig().queue.submit(array)


def test_results_must_be_writable() -> None:
    results = Result.array(4)
    results.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        Rig().queue.poll(results)


def test_rings_of_odd_shapes_are_refused() -> None:
    rig, device = Rig(), Rig().device
    good = ("x", 1, device.submission, device.completion, rig.lists, LISTS_IOVA, rig.memory)
    for place, value, message in [
        (2, pages(1)[:65], "submission queue of 65 bytes, expected 2 to 65536 entries of 64"),
        (2, pages(1)[:64], "submission queue of 64 bytes"),
        (2, pages(1)[16:144], "submission queue of 128 bytes"),
        (3, pages(1)[:16], "completion queue of 16 bytes"),
        (4, pages(1)[:100], "lists of 100 bytes"),
        (5, 512, "lists of 32768 bytes at IOVA 0x200"),
        (5, -1, "lists_iova is -1"),
    ]:
        arguments = (*good[:place], value, *good[place + 1 :])
        with pytest.raises(RegisterValueError, match=message):
            Queue(*arguments, page_size=PAGE)  # type: ignore[arg-type]
    with pytest.raises(RegisterValueError, match="pages of 4097 bytes"):
        Queue(*good, page_size=4097)
    for offsets in [(1, 4), (PAGE, 0), (0, PAGE - 2)]:
        with pytest.raises(RegisterValueError, match="doorbells at offsets"):
            rig.queue.use_doorbells(rig.doorbells, *offsets)


def test_a_queue_that_was_never_made_does_nothing() -> None:
    queue = Queue.__new__(Queue)
    with pytest.raises(TypeError, match="never made"):
        queue.reset()
    with pytest.raises(TypeError, match="takes no arguments"):
        Memory(1)  # type: ignore[call-arg]

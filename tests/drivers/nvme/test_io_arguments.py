"""Arguments of a namespace's calls and of a queue pair's that no device could make sense of."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from uspace_drivers.nvme import Nvme, NvmeModel
from uspace_drivers.nvme.spec.commands import Opcode
from uspace_drivers.nvme.storage.namespace import Namespace
from uspace_drv import BusyError, ClosedError, RegisterValueError, attach

OBJECTS: list[Callable[[], Any]] = [
    lambda: np.array([object()] * 64),
    lambda: np.array([None] * 64 * 5000),
    lambda: np.zeros(32, [("number", "u8"), ("thing", "O")]),
    ctypes.py_object * 64,
    ctypes.POINTER(ctypes.c_int) * 64,
]


@pytest.fixture(scope="module")
def nvme() -> Iterator[Nvme]:
    with attach(NvmeModel("nvme", size="4M"), Nvme) as driver:
        yield driver


@pytest.fixture
def namespace(nvme: Nvme) -> Namespace:
    return nvme.namespaces[1]


@pytest.mark.parametrize("make", OBJECTS)
def test_no_addresses_go_to_a_disk(namespace: Namespace, make: Callable[[], Any]) -> None:
    data = make()
    before = bytes(namespace.read(0, 1))
    count = namespace.count_of(data)
    with pytest.raises(RegisterValueError, match="pointers"):
        namespace.write(0, data)
    with pytest.raises(RegisterValueError, match="pointers"):
        namespace.read(0, count, into=data)
    with pytest.raises(RegisterValueError, match="pointers"):
        namespace.compare(0, data)
    assert bytes(namespace.read(0, 1)) == before


@pytest.mark.parametrize(
    ("lbas", "blocks", "data", "message"),
    [
        (np.array([1.9, 2.2]), 1, 0, "lbas are integers, not float64"),
        ([-3, 1], 1, 0, "lbas are from -3 to 1"),
        (np.array([-3]), 1, 0, "lbas are from -3"),
        ([1], 1.5, 0, "blocks are integers"),
        ([1], 1 << 32, 0, "blocks are from 4294967296"),
        ([1], 1, 4096.0, "data are integers"),
        ([1], 1, -4096, "data are from -4096"),
        (["1"], 1, 0, "lbas are integers"),
    ],
)
def test_requests_are_integers(
    namespace: Namespace, lbas: Any, blocks: Any, data: Any, message: str
) -> None:
    with pytest.raises(RegisterValueError, match=f"namespace 1: {message}"):
        namespace.requests(Opcode.READ, lbas, blocks, data)


def test_requests_take_all_kinds_of_integers(namespace: Namespace) -> None:
    batch = namespace.requests(Opcode.READ, [(1 << 64) - 1], np.int8(1), 1 << 63)
    assert batch["lba"].tolist() == [(1 << 64) - 1]
    assert batch["data"].tolist() == [1 << 63]
    assert not len(namespace.requests(Opcode.READ, []))


@pytest.mark.parametrize("call", ["run", "submit"])
@pytest.mark.parametrize("make", [lambda batch: batch.reshape(4, 4), lambda _: np.zeros(5, "u8")])
def test_a_batch_is_an_array_of_requests(
    nvme: Nvme, namespace: Namespace, call: str, make: Callable[[Any], Any]
) -> None:
    pair = nvme.queue(16)
    batch = namespace.requests(Opcode.FLUSH, [0] * 16)
    with pytest.raises(RegisterValueError, match="expected an array of Request"):
        getattr(pair, call)(make(batch))
    with pytest.raises(RegisterValueError, match="expected an array of Request"):
        getattr(pair, call)(batch.view("u1"))
    assert not pair.in_flight
    assert len(pair.run(batch)) == len(batch)
    nvme.queues.close(pair)


def test_a_closed_queue_says_so_whatever_it_has(nvme: Nvme, namespace: Namespace) -> None:
    pair = nvme.queue(16)
    batch = namespace.requests(Opcode.FLUSH, [0] * 3)
    assert pair.submit(batch) == len(batch)
    nvme.queues.close(pair)
    with pytest.raises(ClosedError, match="is closed"):
        pair.run(batch)


def test_who_asks_for_another_namespace_hears_which_there_are(nvme: Nvme) -> None:
    with pytest.raises(KeyError, match="there is no namespace 2; there are: 1"):
        nvme.namespaces[2]
    assert nvme.namespaces.get(2) is None


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.uint64])
def test_integers_of_numpy_do(namespace: Namespace, kind: Callable[[int], Any]) -> None:
    lba, count = kind(200), kind(100)
    data = np.arange(100 * 512 // 4, dtype="u4")
    namespace.write(lba, data)
    assert (namespace.read(lba, count).view("u4") == data).all()
    assert (namespace.read(lba, count, into=np.zeros_like(data)) == data).all()
    assert namespace.compare(lba, data)
    namespace.verify(lba, count)
    namespace.trim([(lba, count)])
    namespace.write_zeroes(lba, count)
    assert not namespace.read(200, 100).any()


@pytest.mark.parametrize(("lba", "count"), [("0", 1), (0.0, 1), (0, 1.5), (None, 1)])
def test_nothing_else_does(namespace: Namespace, lba: Any, count: Any) -> None:
    with pytest.raises(RegisterValueError, match="both are integers"):
        namespace.read(lba, count)
    with pytest.raises(RegisterValueError, match="both are integers"):
        namespace.read(lba, count, into=bytearray(512))
    with pytest.raises(RegisterValueError, match="both are integers"):
        namespace.verify(lba, count)


def test_nor_by_await(namespace: Namespace) -> None:
    small: Any = np.uint8

    async def work() -> None:
        data = np.array([None] * 64)
        with pytest.raises(RegisterValueError, match="pointers"):
            await namespace.aio.write(0, data)
        with pytest.raises(RegisterValueError, match="pointers"):
            await namespace.aio.read(0, 1, into=data)
        with pytest.raises(RegisterValueError, match="pointers"):
            await namespace.aio.compare(0, data)
        assert len(await namespace.aio.read(small(200), small(100))) == 100 * 512
        await namespace.aio.write(small(255), np.zeros(512, "u1"))
        with pytest.raises(RegisterValueError, match="both are integers"):
            await namespace.aio.read(0, 1.0, into=bytearray(512))  # type: ignore[arg-type]

    asyncio.run(work())


def test_other_structures_do(namespace: Namespace) -> None:
    data = np.zeros(32, [("POINTER", "u8"), ("X", "u8")])
    data["POINTER"] = 7
    namespace.write(0, data)
    assert (namespace.read(0, 1, into=np.zeros_like(data)) == data).all()


@pytest.mark.parametrize(
    "use",
    [
        lambda disk, _: disk.read(0, 1),
        lambda disk, array: disk.read(0, 1, array),
        lambda disk, _: disk.flush(),
    ],
    ids=["read", "read without a copy", "flush"],
)
def test_a_queue_that_is_full_is_busy_and_no_failure_of_the_device(
    use: Callable[[Namespace, Any], object],
) -> None:
    with attach(NvmeModel("nvme", size="4M"), Nvme) as nvme:
        pair = nvme.queue(1, polled=True)
        disk = nvme.namespaces[1].on(pair)
        with nvme.memory.alloc("u1", disk.block_size) as memory:
            assert pair.submit(disk.requests(Opcode.READ, [0], 1, memory.iova)) == 1
            with pytest.raises(BusyError, match="in flight: poll\\(\\) first"):
                use(disk, memory.array)
            assert pair.poll(1, 5.0)["status"].tolist() == [0]
            disk.flush()

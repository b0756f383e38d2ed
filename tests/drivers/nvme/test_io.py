"""Reading and writing by blocking calls and by batches, on both kinds of rings of the model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from uspace_drivers.nvme import Nvme, NvmeModel
from uspace_drivers.nvme.control import life_cycle
from uspace_drivers.nvme.engine.doorbells import RungByHand
from uspace_drivers.nvme.engine.queue import QueuePair
from uspace_drivers.nvme.model.faults import Action, Fault
from uspace_drivers.nvme.spec.command_error import CommandError
from uspace_drivers.nvme.spec.commands import Opcode
from uspace_drivers.nvme.spec.status import Status
from uspace_drivers.nvme.storage.namespace import Namespace
from uspace_drv import (
    BusyError,
    ClosedError,
    IrqKind,
    RegisterValueError,
    UnsupportedError,
    attach,
)

RINGS = ["python", "native"]


def some_bytes(size: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def a_model(rings: str = "python", **options: Any) -> NvmeModel:
    return NvmeModel("nvme", rings=rings, **{"size": "4M", **options})


@pytest.fixture(params=RINGS)
def model(request: pytest.FixtureRequest) -> NvmeModel:
    return a_model(request.param, mdts=3)


@pytest.fixture
def nvme(model: NvmeModel) -> Iterator[Nvme]:
    with attach(model, Nvme) as driver:
        yield driver
    assert not model.complaints


@pytest.fixture
def namespace(nvme: Nvme) -> Namespace:
    return nvme.namespaces[1]


class TestSizesAndPlaces:
    @pytest.mark.parametrize("count", [1, 7, 8, 63, 64, 65, 1000, 8192])
    def test_any_length_comes_back(self, namespace: Namespace, count: int) -> None:
        lba = min(5, namespace.blocks - count)
        data = some_bytes(count * namespace.block_size)
        namespace.write(lba, data)
        assert (namespace.read(lba, count) == data).all()

    @pytest.mark.parametrize("offset", [0, 4, 512, 1, 4093])
    @pytest.mark.parametrize("count", [1, 40, 130])
    def test_any_place_in_dma_memory(self, nvme: Nvme, offset: int, count: int) -> None:
        namespace, data = nvme.namespaces[1], some_bytes(count * 512, offset)
        with nvme.memory.alloc("u1", 128 << 10) as memory:
            place = memory.array[offset:][: data.nbytes]
            place[:] = data
            namespace.write(9, place)
            place[:] = 0
            assert namespace.read(9, count, place) is place
            assert (place == data).all()
            assert not memory.array[:offset].any()
            assert not memory.array[offset + data.nbytes :].any()

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_any_buffer_is_written(self, namespace: Namespace, kind: Any) -> None:
        data = some_bytes(1024).tobytes()
        namespace.write(3, kind(data))
        assert namespace.read(3, 2).tobytes() == data

    def test_reads_into_arrays_of_any_type_and_shape(self, namespace: Namespace) -> None:
        data = some_bytes(4096)
        namespace.write(0, data)
        table = namespace.read(0, 8, np.zeros((8, 64), np.uint64))
        assert table.tobytes() == data.tobytes()
        into = bytearray(4096)
        assert namespace.read(0, 8, into) is into
        assert into == data.tobytes()

    def test_dma_memory_is_not_copied(self, nvme: Nvme) -> None:
        pair = nvme.queue(4, polled=True)
        namespace = nvme.namespaces[1].on(pair)
        with nvme.memory.alloc("u1", 64 << 10) as memory:
            namespace.write(0, memory.array)
            namespace.read(0, 128, memory.array)
            assert not pair.bounce.is_used
        namespace.read(0, 1)
        assert pair.bounce.is_used

    def test_memory_that_was_closed_is_copied_again(self, nvme: Nvme) -> None:
        namespace = nvme.namespaces[1]
        with nvme.memory.alloc("u1", 4096) as memory:
            array = memory.array
        array[:] = some_bytes(4096)
        namespace.write(8, array)
        assert (namespace.read(8, 8) == array).all()

    def test_larger_transfers_are_split_by_mdts(self, nvme: Nvme) -> None:
        pair = nvme.queue(4, polled=True)
        namespace = nvme.namespaces[1].on(pair)
        assert namespace.most_blocks * namespace.block_size == 4096 << 3
        before = pair.hot.submitted
        namespace.read(0, 2 * namespace.most_blocks + 1)
        assert pair.hot.submitted - before == 3

    def test_larger_blocks(self) -> None:
        with attach(a_model(block_size=4096), Nvme) as nvme:
            namespace, data = nvme.namespaces[1], some_bytes(5 * 4096)
            namespace.write(2, data)
            assert (namespace.read(2, 5) == data).all()


class TestRefusals:
    @pytest.mark.parametrize(
        ("lba", "count"), [(-1, 1), (0, 0), (0, -3), (8192, 1), (8191, 2), (0, 8193), (1 << 64, 1)]
    )
    def test_blocks_that_are_not_there(self, namespace: Namespace, lba: int, count: int) -> None:
        with pytest.raises(RegisterValueError, match="8192"):
            namespace.read(lba, count)
        with pytest.raises(RegisterValueError):
            namespace.read(lba, count, np.zeros(512 * max(count, 1), np.uint8))

    def test_data_that_does_not_fit(self, namespace: Namespace) -> None:
        with pytest.raises(RegisterValueError, match="700 bytes are no whole number of blocks"):
            namespace.write(0, bytes(700))
        with pytest.raises(RegisterValueError, match="0 bytes"):
            namespace.write(0, b"")
        with pytest.raises(RegisterValueError, match="2 blocks are 1024 bytes, not 512"):
            namespace.read(0, 2, bytearray(512))
        with pytest.raises(RegisterValueError, match="read-only"):
            namespace.read(0, 1, bytes(512))

    def test_dma_memory_that_is_too_short(self, nvme: Nvme) -> None:
        with nvme.memory.alloc("u1", 4096) as memory, pytest.raises(RegisterValueError):
            nvme.namespaces[1].read(0, 2, memory.array[:512])

    def test_memory_with_holes(self, namespace: Namespace) -> None:
        with pytest.raises(RegisterValueError, match="contiguous"):
            namespace.read(0, 1, np.zeros(1024, np.uint8)[::2])

    def test_past_the_end_of_the_medium_in_a_batch(self, nvme: Nvme) -> None:
        pair = nvme.queue(8, polled=True)
        with nvme.memory.alloc("u1", 4096) as memory:
            batch = nvme.namespaces[1].requests(Opcode.READ, [0, 1, 9000, 2], 1, memory.iova)
            with pytest.raises(RegisterValueError, match=r"request 2.*9000"):
                pair.submit(batch)
            assert sorted(pair.poll(2, 5.0)["tag"].tolist()) == [0, 1]

    def test_what_the_controller_does_not_have(
        self, nvme: Nvme, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            type(nvme.queues), "io_support", nvme.controller.identity.io_support.replace(verify=0)
        )
        with pytest.raises(UnsupportedError, match="no verify"):
            nvme.namespaces[1].verify(0, 1)

    def test_after_the_driver_has_left(self, model: NvmeModel) -> None:
        with attach(model, Nvme) as nvme:
            namespace = nvme.namespaces[1]
            namespace.read(0, 1)
        with pytest.raises(ClosedError):
            namespace.read(0, 1)


class TestOtherCommands:
    def test_write_zeroes(self, namespace: Namespace) -> None:
        namespace.write(0, some_bytes(100 * 512))
        namespace.write_zeroes(10, 80)
        found = namespace.read(0, 100).reshape(100, 512).any(axis=1)
        assert found[:10].all()
        assert not found[10:90].any()
        assert found[90:].all()
        namespace.write_zeroes(0, 10, deallocate=True)
        assert not namespace.read(0, 10).any()

    def test_trim_of_more_ranges_than_one_command_has(self, namespace: Namespace) -> None:
        namespace.write(0, some_bytes(1000 * 512))
        namespace.trim((lba, 1) for lba in range(0, 600, 2))
        found = namespace.read(0, 1000).reshape(1000, 512).any(axis=1)
        assert not found[0:600:2].any()
        assert found[1:600:2].all()
        with pytest.raises(RegisterValueError, match="8192"):
            namespace.trim([(0, 1), (8192, 1)])

    def test_compare(self, namespace: Namespace) -> None:
        data = some_bytes(200 * 512)
        namespace.write(3, data)
        assert namespace.compare(3, data)
        data[-1] ^= 1
        assert not namespace.compare(3, data)

    def test_flush_and_verify(self, nvme: Nvme, model: NvmeModel) -> None:
        nvme.namespaces[1].flush()
        nvme.namespaces[1].verify(0, 8192)
        nvme.namespaces[1].write(0, bytes(512), force_unit_access=True)

    @pytest.mark.parametrize("count", [1, 200])
    def test_an_error_says_which_blocks(self, model: NvmeModel, nvme: Nvme, count: int) -> None:
        model.faults.add(
            Fault(
                Action.STATUS,
                opcode=Opcode.READ,
                after=count // 100,
                status=Status.UNRECOVERED_READ_ERROR,
            )
        )
        with pytest.raises(CommandError, match=r"blocks \d+ to \d+: read .* unrecovered") as error:
            nvme.namespaces[1].read(7, count)
        assert error.value.code == Status.UNRECOVERED_READ_ERROR
        assert "blocks 135 to 198" in str(error.value) or count == 1
        nvme.namespaces[1].read(7, count)


class TestQueues:
    def test_a_batch(self, nvme: Nvme) -> None:
        pair, namespace = nvme.queue(16, polled=True), nvme.namespaces[1]
        data = some_bytes(32 * 512)
        namespace.write(0, data)
        with nvme.memory.alloc("u1", (32, 512)) as memory:
            places = memory.iova + np.arange(32) * 512
            batch = namespace.requests(Opcode.READ, np.arange(32), 1, places)
            done = pair.submit(batch)
            assert done == 16 == pair.in_flight
            assert pair.submit(batch[done:]) == 0
            while done < 32:
                done += pair.submit(batch[done : done + len(pair.poll(1, 5.0))])
            while pair.in_flight:
                assert not pair.poll(1, 5.0)["status"].any()
            assert (memory.array.ravel() == data).all()

    @pytest.mark.parametrize("polled", [True, False])
    @pytest.mark.parametrize("depth", [1, 5, 0])
    def test_run_does_all_of_them(self, nvme: Nvme, polled: bool, depth: int) -> None:
        pair = nvme.queue(16, polled=polled)
        with nvme.memory.alloc("u1", 512) as memory:
            batch = nvme.namespaces[1].requests(Opcode.READ, np.arange(300), 1, memory.iova)
            results = pair.run(batch, depth=depth)
        assert sorted(results["tag"].tolist()) == list(range(300))
        assert not results["status"].any()

    def test_run_wants_an_empty_queue(self, nvme: Nvme) -> None:
        pair = nvme.queue(4, polled=True)
        batch = nvme.namespaces[1].requests(Opcode.FLUSH, [0])
        pair.submit(batch)
        with pytest.raises(BusyError, match="1 commands are in flight"):
            pair.run(batch)
        assert len(pair.poll(1, 5.0)) == 1
        assert len(pair.run(batch)) == 1

    def test_poll_with_nothing_in_flight_comes_back_in_time(self, nvme: Nvme) -> None:
        for polled in (True, False):
            pair = nvme.queue(4, polled=polled)
            assert len(pair.poll()) == 0
            assert len(pair.poll(1, 0.02)) == 0

    def test_a_depth_that_is_too_much(self, nvme: Nvme) -> None:
        most = nvme.controller.capabilities.mqes
        for depth in (0, most + 1):
            with pytest.raises(RegisterValueError, match=f"it takes 1 to {most}"):
                nvme.queue(depth)

    def test_a_queue_of_one_command(self, nvme: Nvme) -> None:
        namespace = nvme.namespaces[1].on(nvme.queue(1, polled=True))
        data = some_bytes(300 * 512)
        namespace.write(0, data)
        assert (namespace.read(0, 300) == data).all()

    def test_closing_gives_the_number_back(self, nvme: Nvme) -> None:
        pair = nvme.queue(4)
        number = pair.number
        nvme.queues.close(pair)
        with pytest.raises(ClosedError):
            pair.submit(nvme.namespaces[1].requests(Opcode.FLUSH, [0]))
        assert nvme.queue(4).number == number

    def test_a_sleeping_reader_is_woken_by_the_interrupt(self) -> None:
        model = a_model(latency=0.01)
        with attach(model, Nvme) as nvme:
            pair = nvme.queue(4)
            assert pair.vector is not None
            assert pair.vector.irq is not None
            nvme.namespaces[1].on(pair).read(0, 1)
            assert pair.vector.irq.count >= 1

    @pytest.mark.parametrize("kind", [IrqKind.INTX, IrqKind.MSIX])
    def test_every_kind_of_interrupt(self, kind: IrqKind) -> None:
        with attach(a_model(latency=0.005), Nvme, irq_kind=kind) as nvme:
            namespace = nvme.namespaces[1]
            with ThreadPoolExecutor(3) as pool:
                found = pool.map(lambda lba: namespace.read(lba, 1), range(12))
                assert not any(each.any() for each in found)

    def test_queues_run_out(self, nvme: Nvme, model: NvmeModel) -> None:
        limit = nvme.controller.queue_limit
        pairs = [nvme.queue(1, polled=True) for _ in range(limit)]
        with pytest.raises(BusyError, match=f"all {limit} I/O queues"):
            nvme.queue(1)
        nvme.queues.close(pairs[5])
        assert nvme.queue(1, polled=True).number == pairs[5].number


class TestThreads:
    def test_each_has_its_own_and_leaves_it_behind(self, nvme: Nvme) -> None:
        namespace, seen = nvme.namespaces[1], []
        gate = threading.Barrier(4)

        def work(number: int) -> None:
            data = some_bytes(64 * 512, number)
            gate.wait(10.0)
            for _ in range(10):
                namespace.write(number * 64, data)
                assert (namespace.read(number * 64, 64) == data).all()
            seen.append(nvme.queues.here().number)

        run_in_threads(work, 4)
        assert len(set(seen)) == 4
        first = set(seen)
        seen.clear()
        run_in_threads(work, 4)
        assert set(seen) == first

    def test_late_ones_share_the_last_queue(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(life_cycle, "MOST_QUEUES", 2)
        with attach(a_model(latency=0.001), Nvme) as nvme:
            namespace, seen = nvme.namespaces[1], []
            gate = threading.Barrier(5)

            def work(number: int) -> None:
                data = some_bytes(3 * 512, number)
                gate.wait(10.0)
                for _ in range(5):
                    namespace.write(number * 3, data)
                    assert (namespace.read(number * 3, 3) == data).all()
                seen.append(nvme.queues.here().number)
                gate.wait(10.0)

            run_in_threads(work, 5)
            assert set(seen) == {1, 2}


class TestWaysToRing:
    def test_model_in_python_is_rung_by_hand(self) -> None:
        with attach(a_model(), Nvme) as nvme:
            assert isinstance(nvme.queue(2, polled=True).engine, RungByHand)

    def test_mapped_doorbells_are_the_engines(self) -> None:
        with attach(a_model("native"), Nvme) as nvme:
            pair = nvme.queue(2, polled=True)
            assert pair.engine is pair.hot

    @pytest.mark.parametrize("rings", RINGS)
    def test_submission_queues_in_the_controllers_memory(self, rings: str) -> None:
        with attach(a_model(rings, cmb="64K"), Nvme) as nvme:
            pairs = [nvme.queue(8, polled=True) for _ in range(5)]
            near = [pair for pair in pairs if pair.submission_iova >= 1 << 62]
            assert len(near) == 4
            for pair in pairs:
                check(nvme, pair)
            nvme.queues.close(near[0])
            assert nvme.queue(8).submission_iova == near[0].submission_iova

    @pytest.mark.parametrize("rings", RINGS)
    @pytest.mark.parametrize("option", ["sgl", "shadow"])
    def test_options(self, rings: str, option: str) -> None:
        model = a_model(rings, **{option: True})
        with attach(model, Nvme) as nvme:
            pair = nvme.queue(8, polled=True)
            for _ in range(3):
                check(nvme, pair)
            nvme.controller.rescue(pair, "a test wants it")
            check(nvme, pair)
        assert not model.complaints


def check(nvme: Nvme, pair: QueuePair) -> None:
    """Write and read through one queue pair."""
    namespace, data = nvme.namespaces[1].on(pair), some_bytes(100 * 512, pair.number)
    namespace.write(11, data)
    assert (namespace.read(11, 100) == data).all()


def run_in_threads(work: Any, count: int) -> None:
    with ThreadPoolExecutor(count) as pool:
        for each in [pool.submit(work, number) for number in range(count)]:
            each.result(30.0)

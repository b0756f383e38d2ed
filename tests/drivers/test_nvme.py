"""The NVMe driver: the same tests on the model, and on QEMU's controller through VFIO and UIO.

They write to the first blocks of namespace 1, which has at least 4 MiB; what was there is put back.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from uspace_drivers.nvme import Nvme, NvmeModel
from uspace_drivers.nvme.spec.command_error import CommandError
from uspace_drivers.nvme.spec.commands import CNS, FeatureId, FeatureValue, LogPage, Opcode
from uspace_drivers.nvme.spec.features import NumberOfQueues, TemperatureThreshold
from uspace_drivers.nvme.spec.status import Status
from uspace_drivers.nvme.storage.namespace import Namespace
from uspace_drv import Attachment, RegisterValueError, UnsupportedError
from uspace_drv.testing import CHECKS, Check, Target
from uspace_drv.testing.pytest_plugin import parametrize_targets

USED = 1 << 20
"""Bytes of namespace 1 that the tests overwrite."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize_targets(metafunc, "nvme_target", NvmeModel)


@pytest.fixture
def attachment(nvme_target: Target) -> Iterator[Attachment[Nvme]]:
    attachment = nvme_target.attach(Nvme)
    with attachment:
        yield attachment


@pytest.fixture
def nvme(attachment: Attachment[Nvme]) -> Nvme:
    return attachment.driver


@pytest.fixture
def disk(nvme: Nvme) -> Iterator[Namespace]:
    namespace = nvme.namespaces[1]
    before = namespace.read(0, USED // namespace.block_size)
    yield namespace
    nvme.namespaces[1].write(0, before)


def random_bytes(size: int, seed: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def test_identifies_itself(nvme: Nvme) -> None:
    identity = nvme.controller.identity
    assert identity.serial
    assert identity.model
    assert identity.version >= "1.2"
    assert identity.namespaces >= 1


def test_namespace_1_is_what_the_tests_need(nvme: Nvme) -> None:
    namespace = nvme.namespaces[1]
    assert namespace.block_size in {512, 4096}
    assert namespace.blocks * namespace.block_size >= 4 << 20


def test_lists_of_namespaces_agree(nvme: Nvme) -> None:
    assert sorted(nvme.namespaces) == nvme.controller.active_namespaces()
    assert nvme.controller.identify(CNS.NAMESPACE, 1).any()
    assert nvme.controller.namespace_descriptors(1)


def test_namespace_that_is_not_there(nvme: Nvme) -> None:
    with pytest.raises(CommandError) as caught:
        nvme.controller.identify_namespace(0xFFFF_FF00)
    assert caught.value.code == Status.INVALID_NAMESPACE_OR_FORMAT


def test_unknown_log_page(nvme: Nvme) -> None:
    with pytest.raises(CommandError, match=r"get log page \(0x02\).* failed: invalid"):
        nvme.controller.get_log(0x7F, 512)


def test_logs(nvme: Nvme) -> None:
    controller = nvme.controller
    assert 200 < controller.smart_log()["composite_temperature"] < 400
    assert len(controller.error_log(4)) <= 4
    assert controller.firmware_log()["afi"] & 7 in range(1, 8)
    assert controller.get_log(LogPage.ERRORS, 64, offset=0).nbytes == 64


def test_features(nvme: Nvme) -> None:
    controller = nvme.controller
    given = NumberOfQueues(controller.get_feature(FeatureId.NUMBER_OF_QUEUES))
    assert min(given.nsq, given.ncq) + 1 >= controller.queue_limit >= 1
    threshold = TemperatureThreshold(tmpth=350)
    controller.set_feature(FeatureId.TEMPERATURE_THRESHOLD, threshold.raw)
    assert controller.get_feature(FeatureId.TEMPERATURE_THRESHOLD) & 0xFFFF == 350
    controller.get_feature(FeatureId.TEMPERATURE_THRESHOLD, select=FeatureValue.DEFAULT)


def test_abort_of_what_is_not_in_flight(nvme: Nvme) -> None:
    assert not nvme.controller.abort(0, 0xFFF0)


def test_many_admin_commands_from_many_threads(nvme: Nvme) -> None:
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            for _ in range(10):
                serial = nvme.controller.identify_controller().serial
                assert serial == nvme.controller.identity.serial
        except BaseException as failure:  # noqa: BLE001 - looked at below
            failures.append(failure)

    run_in_threads([ask] * 6)
    assert not failures


@pytest.mark.parametrize("blocks", [1, 2, 9, 64])
def test_writes_and_reads(disk: Namespace, blocks: int) -> None:
    data = random_bytes(blocks * disk.block_size, blocks)
    disk.write(3, data)
    disk.flush()
    assert np.array_equal(disk.read(3, blocks), data)


def test_more_than_one_command_moves(nvme: Nvme, disk: Namespace) -> None:
    data = random_bytes(USED)
    disk.write(0, data)
    with nvme.memory.alloc("u1", USED) as direct:
        disk.read(0, USED // disk.block_size, into=direct.array)
        assert np.array_equal(direct.array, data)


@pytest.mark.parametrize("offset", [1, 4, 512, 4092])
def test_memory_of_any_alignment(nvme: Nvme, disk: Namespace, offset: int) -> None:
    size = 8 * disk.block_size
    data = random_bytes(size + 4096, offset)[offset : offset + size]
    disk.write(5, data)
    with nvme.memory.alloc("u1", size + 4096) as memory:
        into = memory.array[offset : offset + size]
        disk.read(5, 8, into=into)
        assert np.array_equal(into, data)


def test_each_block_is_where_it_belongs(disk: Namespace) -> None:
    count = 32
    blocks = np.zeros((count, disk.block_size), np.uint8)
    blocks[:] = np.arange(1, count + 1, dtype=np.uint8)[:, None]
    disk.write(0, blocks)
    for lba in (0, 1, 17, 31):
        assert (disk.read(lba, 1) == lba + 1).all()


@pytest.mark.parametrize("polled", [True, False])
def test_batches(nvme: Nvme, disk: Namespace, polled: bool) -> None:
    count, size = 64, disk.block_size
    pair = nvme.queue(16, polled=polled)
    with nvme.memory.alloc("u1", (count, size)) as memory:
        memory.array[:] = random_bytes(count * size).reshape(count, size)
        places = memory.iova + np.arange(count, dtype=np.uint64) * np.uint64(size)
        done = pair.run(disk.requests(Opcode.WRITE, np.arange(count), data=places))
        assert sorted(done["tag"]) == list(range(count))
        assert not done["status"].any()
        written = memory.array.copy()
        memory.array[:] = 0
        backwards = np.arange(count)[::-1]
        done = pair.run(disk.requests(Opcode.READ, backwards, data=places[::-1]))
        assert not done["status"].any()
        assert np.array_equal(memory.array, written)
    nvme.queues.close(pair)


def test_submit_and_poll(nvme: Nvme, disk: Namespace) -> None:
    pair = nvme.queue(4)
    with nvme.memory.alloc("u1", 8 * disk.block_size) as memory:
        requests = disk.requests(Opcode.READ, np.arange(8), data=memory.iova)
        assert pair.submit(requests) == 4
        tags: list[int] = []
        while len(tags) < 4:
            tags += pair.poll(1, 5.0)["tag"].tolist()
    assert sorted(tags) == [0, 1, 2, 3]
    nvme.queues.close(pair)


def test_blocks_without_data(nvme: Nvme, disk: Namespace) -> None:
    support = nvme.controller.identity.io_support
    disk.write(0, random_bytes(16 * disk.block_size))
    if support.write_zeroes:
        disk.write_zeroes(2, 4)
        assert not disk.read(2, 4).any()
        assert disk.read(6, 1).any()
    if support.dataset_management:
        disk.trim([(8, 2), (12, 1)])
        assert disk.read(10, 2).any()
    if support.compare:
        data = disk.read(0, 4)
        assert disk.compare(0, data)
        data[-1] ^= 1
        assert not disk.compare(0, data)
    if support.verify:
        disk.verify(0, 16)
    else:
        with pytest.raises(UnsupportedError, match="has no verify"):
            disk.verify(0, 16)


def test_bounds(disk: Namespace) -> None:
    for lba, count in [(disk.blocks, 1), (disk.blocks - 1, 2), (0, disk.blocks + 1), (0, 0)]:
        with pytest.raises(RegisterValueError):
            disk.read(lba, count)
    with pytest.raises(RegisterValueError):
        disk.write(0, bytes(disk.block_size - 1))
    assert disk.read(disk.blocks - 1, 1).nbytes == disk.block_size


def test_threads_have_queues_of_their_own(disk: Namespace) -> None:
    wrong: list[int] = []

    def work(index: int) -> None:
        data = random_bytes(4 * disk.block_size, index)
        for _ in range(8):
            disk.write(4 * index, data)
            if not np.array_equal(disk.read(4 * index, 4), data):
                wrong.append(index)

    run_in_threads([lambda index=index: work(index) for index in range(4)])
    assert not wrong


def test_asyncio(disk: Namespace) -> None:
    data = random_bytes(16 * disk.block_size)
    disk.write(0, data)

    async def read_all() -> list[NDArray[np.uint8]]:
        aio = disk.aio
        return list(await asyncio.gather(*(aio.read(lba, 1) for lba in range(16))))

    assert np.array_equal(np.concatenate(asyncio.run(read_all())), data)


def test_reset_of_the_controller(nvme: Nvme, disk: Namespace) -> None:
    data = random_bytes(disk.block_size)
    disk.write(1, data)
    disk.flush()
    before = nvme.controller.generation
    nvme.controller.rescue(None, "a test wants it")
    assert nvme.controller.generation == before + 1
    assert np.array_equal(disk.read(1, 1), data)


def test_suspend_and_resume(attachment: Attachment[Nvme], disk: Namespace) -> None:
    data = random_bytes(disk.block_size)
    disk.write(2, data)
    attachment.suspend()
    attachment.resume()
    assert np.array_equal(disk.read(2, 1), data)


def test_reset_of_the_function(attachment: Attachment[Nvme], disk: Namespace) -> None:
    if not attachment.driver.device.can_reset:
        pytest.skip("this way in has no reset")
    data = random_bytes(disk.block_size)
    disk.write(2, data)
    disk.flush()
    attachment.reset()
    assert np.array_equal(disk.read(2, 1), data)


def test_self_test(nvme: Nvme) -> None:
    nvme.self_test()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conforms(check: Check, nvme_target: Target) -> None:
    check(Nvme, nvme_target)


def run_in_threads(works: list[object]) -> None:
    threads = [threading.Thread(target=work) for work in works]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()

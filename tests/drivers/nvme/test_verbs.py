"""The verbs as methods: what they say, what they copy, and what they refuse."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from uspace_drivers.nvme import Nvme, NvmeModel
from uspace_drivers.nvme.model.faults import Action, Fault
from uspace_drivers.nvme.spec.command_error import CommandError
from uspace_drivers.nvme.spec.commands import Opcode, SecureErase
from uspace_drivers.nvme.spec.status import Status
from uspace_drivers.nvme.verbs import bench
from uspace_drivers.nvme.verbs.bench import Pattern
from uspace_drivers.nvme.verbs.facts import Health
from uspace_drv import DeviceTimeout, HostError, RegisterValueError, UnsupportedError, attach
from uspace_drv.verbs import loss_of

MIB = 1 << 20
BLOCKS = 8 * MIB // 512


@pytest.fixture
def model() -> NvmeModel:
    return NvmeModel(size="8M", namespaces=2, mdts=5)


@pytest.fixture
def nvme(model: NvmeModel) -> Iterator[Nvme]:
    with attach(model, Nvme) as driver:
        yield driver


def random_bytes(size: int, seed: int = 1) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def test_who_it_is(nvme: Nvme) -> None:
    found = nvme.identify()
    assert (found.serial, found.version, found.most_per_command) == (
        "USPACE0001",
        "1.4.0",
        128 << 10,
    )
    assert "write zeroes" in found.io_support
    assert "format" in found.admin_support


def test_what_is_in_it(nvme: Nvme) -> None:
    first, second = nvme.list()
    assert (first.id, second.id) == (1, 2)
    assert (first.size, first.block_size, first.blocks) == (8 * MIB, 512, BLOCKS)
    assert first.format == "512 B"
    details = nvme.identify(namespace=2)
    assert (details.id, details.size) == (2, 8 * MIB)
    assert "4096 B" in details.formats


def test_how_it_is(nvme: Nvme) -> None:
    before = nvme.smart()
    assert isinstance(before, Health)
    assert before.critical_warnings == []
    assert before.temperature is not None
    assert 0 < before.temperature < 100
    nvme.read(0, blocks=8)
    assert nvme.smart().read_commands == before.read_commands + 1


def test_bytes_go_in_and_come_out(nvme: Nvme) -> None:
    nvme.write(7, random_bytes(1024))
    assert nvme.read(7, blocks=2) == random_bytes(1024)
    nvme.write(8, b"hello", pad=True, namespace=2)
    assert nvme.read(8, namespace=2) == b"hello" + bytes(507)
    nvme.trim(7, 1)
    assert nvme.read(7, blocks=2) == bytes(512) + random_bytes(1024)[512:]


@pytest.mark.parametrize("size", [512, 128 << 10, 3 * MIB + 512, 8 * MIB])
def test_a_file_goes_in_and_comes_out(nvme: Nvme, tmp_path: Path, size: int) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(random_bytes(size))
    found = nvme.copy_in(source, lba=(8 * MIB - size) // 512)
    assert (found.size, found.zeroes) == (size, 0)
    assert found.throughput == pytest.approx(size / found.duration)
    taken = nvme.copy_out(copy, lba=(8 * MIB - size) // 512)
    assert taken is not None
    assert (taken.size, copy.read_bytes()) == (size, source.read_bytes())


def test_zeroes_are_not_moved(nvme: Nvme, tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    nvme.write(0, random_bytes(8 * MIB))
    with source.open("wb") as file:
        file.write(random_bytes(MIB))
        file.truncate(5 * MIB)
        file.seek(5 * MIB)
        file.write(random_bytes(MIB, 2))
    before = nvme.smart().write_commands
    found = nvme.copy_in(source)
    assert (found.size, found.zeroes) == (6 * MIB, 4 * MIB)
    assert nvme.smart().write_commands - before == 2 * MIB // (128 << 10)
    taken = nvme.copy_out(copy, size=6 * MIB)
    assert taken is not None
    assert taken.zeroes == 4 * MIB
    assert copy.read_bytes() == source.read_bytes()
    assert copy.stat().st_blocks * 512 < 3 * MIB


def test_a_part_of_a_block(nvme: Nvme, tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    size = 3 * MIB + 100  # more than the pieces in flight: the last one's memory was used before
    source.write_bytes(random_bytes(size))
    nvme.write(0, random_bytes(4 * MIB, 2))
    with pytest.raises(RegisterValueError, match=r"the last block would have 100 of 512 bytes"):
        nvme.copy_in(source)
    assert nvme.read(0, blocks=4 * MIB // 512) == random_bytes(4 * MIB, 2)
    assert nvme.copy_in(source, pad=True).size == size
    assert nvme.read(3 * MIB // 512) == source.read_bytes()[3 * MIB :] + bytes(412)
    nvme.copy_out(copy, size=size)
    assert copy.read_bytes() == source.read_bytes()
    with pytest.raises(RegisterValueError, match=r"data: the last block would have 5 of 512"):
        nvme.write(0, b"hello")


def test_from_a_pipe(nvme: Nvme, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    thread = threading.Thread(target=path.write_bytes, args=[random_bytes(MIB + 512)])
    thread.start()
    steps: list[tuple[int, int]] = []
    found = nvme.copy_in(path, lba=1, progress=lambda done, total: steps.append((done, total)))
    thread.join()
    assert found.size == MIB + 512
    assert nvme.read(1, blocks=MIB // 512 + 1) == random_bytes(MIB + 512)
    assert steps[-1] == (MIB + 512, 0)


def test_a_pipe_that_gives_too_much_or_ends_too_early(nvme: Nvme, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    for size, lba, words in (
        (MIB + 1, 0, "the last block would have 1 of 512 bytes"),
        (MIB + 512, BLOCKS - MIB // 512, "at least 1049088 bytes, but namespace 1 has 1048576"),
    ):
        thread = threading.Thread(target=path.write_bytes, args=[random_bytes(size)])
        thread.start()
        with pytest.raises(RegisterValueError, match=words) as failure:
            nvme.copy_in(path, lba=lba)
        thread.join()
        whole = MIB // (128 << 10) * (128 << 10)
        expected = f"namespace 1 has the first {whole} bytes; later blocks may be new"
        assert failure.value.__notes__ == [expected]
        assert nvme.read(lba) == random_bytes(512)


def test_progress_of_what_has_an_end(nvme: Nvme, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    nvme.copy_out(tmp_path / "copy", progress=lambda done, total: steps.append((done, total)))
    assert [done for done, _ in steps] == list(range(128 << 10, 8 * MIB + 1, 128 << 10))
    assert {total for _, total in steps} == {8 * MIB}


def test_what_fails_halfway_says_how_far_it_got(
    nvme: Nvme, model: NvmeModel, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(random_bytes(8 * MIB))
    broken = Fault(
        Action.STATUS, opcode=Opcode.WRITE, after=41, status=Status.WRITE_FAULT
    )  # 1 makes a queue
    model.faults.add(broken)
    with pytest.raises(
        CommandError, match=r"write \(0x01\) of namespace 1 failed: write fault"
    ) as f:
        nvme.copy_in(source)
    (note,) = f.value.__notes__
    done = 40 * (128 << 10)
    assert note == f"namespace 1 has the first {done} bytes; later blocks may be new"
    assert nvme.read(0, blocks=done // 512) == random_bytes(8 * MIB)[:done]
    model.faults.clear()
    assert nvme.copy_in(source).size == 8 * MIB


@pytest.mark.parametrize(
    ("opcode", "after", "words"), [(Opcode.WRITE, 8, "write "), (Opcode.FLUSH, 0, "flush ")]
)
def test_the_end_counts_too(
    nvme: Nvme, model: NvmeModel, tmp_path: Path, opcode: Opcode, after: int, words: str
) -> None:
    source = tmp_path / "source"
    source.write_bytes(random_bytes(MIB))
    status = Status.WRITE_FAULT
    model.faults.add(Fault(Action.STATUS, opcode=opcode, after=after, status=status))
    with pytest.raises(CommandError, match=f"{words}.*failed: write fault"):
        nvme.copy_in(source)


def test_a_full_disk_and_an_interruption(nvme: Nvme, tmp_path: Path) -> None:
    nvme.write(0, random_bytes(MIB))
    with pytest.raises(HostError, match=r"^cannot write /dev/full: No space left on device$"):
        nvme.copy_out(Path("/dev/full"))

    def interrupt(done: int, _: int) -> None:
        if done == MIB:
            raise KeyboardInterrupt

    copy = tmp_path / "copy"
    with pytest.raises(KeyboardInterrupt) as leaving:
        nvme.copy_out(copy, progress=interrupt)
    assert leaving.value.__notes__ == [f"{copy} has the first {MIB} bytes; it lacks the rest"]
    assert copy.read_bytes() == random_bytes(MIB)


@pytest.mark.parametrize(
    ("size", "lba", "words"),
    [
        (8 * MIB + 512, 0, "8389120 bytes, but namespace 1 has 8388608 from block 0 on"),
        (1024, BLOCKS - 1, f"1024 bytes, but namespace 1 has 512 from block {BLOCKS - 1} on"),
        (512, BLOCKS, f"there is no block {BLOCKS}; it has {BLOCKS}"),
        (512, -1, f"there is no block -1; it has {BLOCKS}"),
    ],
)
def test_what_does_not_fit_changes_nothing(
    nvme: Nvme, tmp_path: Path, size: int, lba: int, words: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(random_bytes(size))
    with pytest.raises(RegisterValueError, match=words) as refusal:
        nvme.copy_in(path, lba=lba)
    assert not hasattr(refusal.value, "__notes__")
    assert nvme.read(0) == nvme.read(BLOCKS - 1) == bytes(512)
    with pytest.raises(RegisterValueError, match=words):
        nvme.copy_out(path, lba=lba, size=size)
    assert path.read_bytes() == random_bytes(size)


def test_a_negative_size_leaves_the_file_as_it_is(nvme: Nvme, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"precious")
    with pytest.raises(RegisterValueError, match=r"file: a size of -5 bytes: give 0 or more"):
        nvme.copy_out(path, size=-5)
    assert path.read_bytes() == b"precious"


def test_namespaces_that_are_not_there(nvme: Nvme, tmp_path: Path) -> None:
    for call in (
        lambda: nvme.read(0, namespace=7),
        lambda: nvme.identify(namespace=7),
        lambda: nvme.format(namespace=7),
        lambda: nvme.copy_out(tmp_path / "file", namespace=7),
        lambda: nvme.bench(namespace=7),
    ):
        with pytest.raises(RegisterValueError, match=r"there is no namespace 7; there are: 1, 2$"):
            call()


def test_formatting(nvme: Nvme) -> None:
    nvme.write(0, random_bytes(4096), namespace=2)
    nvme.write(0, random_bytes(4096))
    found = nvme.format(namespace=2, block_size=4096, erase=SecureErase.USER_DATA)
    assert (found.id, found.block_size, found.size) == (2, 4096, 8 * MIB)
    assert nvme.read(0, namespace=2) == bytes(4096)
    assert nvme.read(0, blocks=8) == random_bytes(4096)
    with pytest.raises(
        UnsupportedError, match=r"no format has blocks of 1000 bytes; there are: 51"
    ):
        nvme.format(block_size=1000)
    with pytest.raises(UnsupportedError, match="no format has blocks of 0 bytes"):
        nvme.format(block_size=0)


def test_a_namespace_with_metadata_is_listed_and_can_be_formatted() -> None:
    with attach(NvmeModel(size="1M", metadata=True), Nvme) as nvme:
        (found,) = nvme.list()
        assert "B of metadata" in found.format
        with pytest.raises(UnsupportedError, match="bytes of metadata"):
            nvme.read(0)
        nvme.format(block_size=512)
        assert nvme.read(0) == bytes(512)


@pytest.mark.parametrize("depth", [1, 8])
@pytest.mark.parametrize("pattern", list(Pattern))
def test_measuring(nvme: Nvme, model: NvmeModel, depth: int, pattern: Pattern) -> None:
    before = nvme.smart()
    found = nvme.bench(depth=depth, size=8192, seconds=0.1, pattern=pattern)
    assert (found.depth, found.command_size) == (depth, 8192)
    assert found.what == f"{pattern.value} read"
    assert found.commands > depth
    assert found.iops == pytest.approx(found.commands / found.duration)
    assert 0 < found.p50 <= found.p99 <= found.p999 < 1
    counted = nvme.smart()
    assert 0 <= counted.read_commands - before.read_commands - found.commands <= depth
    assert counted.write_commands == before.write_commands


def test_measuring_in_order_goes_round(nvme: Nvme, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "POOL", 8)
    seen: list[tuple[int, int]] = []
    found = nvme.bench(
        depth=2,
        size=128 << 10,
        seconds=0.2,
        pattern=Pattern.SEQUENTIAL,
        write=True,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert found.what == "sequential write"
    assert found.throughput == pytest.approx(found.iops * (128 << 10))
    assert seen
    assert {total for _, total in seen} == {0}
    assert nvme.smart().write_commands >= found.commands
    if found.commands >= 64:
        assert bytes(512) not in {nvme.read(lba) for lba in range(0, BLOCKS, 256)}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"size": 1000}, "1000 bytes in a command; it takes multiples of 512 bytes, up to 131072"),
        ({"size": 256 << 10}, "262144 bytes in a command"),
        ({"size": 0}, "0 bytes in a command"),
        ({"depth": 0}, "a queue for 0 commands"),
        ({"depth": 1 << 20}, "a queue for 1048576 commands"),
        ({"seconds": -1.0}, "above 0, not -1.0"),
        ({"seconds": 0.0}, "above 0, not 0.0"),
    ],
)
def test_what_cannot_be_measured(nvme: Nvme, given: dict[str, float], words: str) -> None:
    with pytest.raises(RegisterValueError, match=words):
        nvme.bench(**given)  # type: ignore[arg-type] # each value has the type of its parameter


def test_an_error_ends_a_measurement(nvme: Nvme, model: NvmeModel) -> None:
    for depth in (1, 8):
        failing = Fault(Action.STATUS, opcode=Opcode.READ, after=20, status=Status.ACCESS_DENIED)
        model.faults.add(failing)
        with pytest.raises(CommandError, match="access denied"):
            nvme.bench(depth=depth, seconds=5)
    assert nvme.bench(depth=8, seconds=0.05).commands


def test_queues_are_given_back(nvme: Nvme, tmp_path: Path) -> None:
    for _ in range(70):
        nvme.copy_out(tmp_path / "copy", size=512)
    assert nvme.bench(seconds=0.01).commands


@pytest.mark.parametrize("rings", ["python", "native"])
def test_a_queue_forgets_the_shadow_doorbells_of_the_one_before(rings: str, tmp_path: Path) -> None:
    with attach(NvmeModel(size="8M", shadow=True, rings=rings), Nvme) as nvme:
        for _ in range(4):
            nvme.copy_out(tmp_path / "copy", size=MIB)


def test_what_is_lost_is_named() -> None:
    assert loss_of(Nvme.trim, (5, 3), {}) == "3 blocks of namespace 1 from block 5 on are lost"
    assert loss_of(Nvme.bench, (), {}) is None
    assert loss_of(Nvme.bench, (), {"write": True, "namespace": 2}) is not None
    assert loss_of(Nvme.format, (), {}) == "all data of namespace 1 is lost"
    for harmless in (Nvme.identify, Nvme.list, Nvme.smart, Nvme.self_test):
        assert loss_of(harmless, (), {}) is None


def test_a_command_that_is_never_answered(nvme: Nvme, model: NvmeModel, tmp_path: Path) -> None:
    nvme.queues.timeout = 0.2
    nvme.write(0, random_bytes(4096))
    model.faults.add(Fault(Action.DROP, opcode=Opcode.READ, after=3, count=2))
    with pytest.raises(DeviceTimeout, match=r"queue \d+: no answer within 0.2 s"):
        nvme.copy_out(tmp_path / "copy")
    model.faults.clear()
    model.faults.add(Fault(Action.DROP, opcode=Opcode.READ, after=3, count=0))
    with pytest.raises(DeviceTimeout, match=r"queue \d+: no answer within 0.2 s"):
        nvme.bench(depth=4)
    model.faults.clear()
    assert nvme.read(0, blocks=8) == random_bytes(4096)

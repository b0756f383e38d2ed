"""The NVMe model: I/O commands, PRP lists, SGLs and media (NVMe 1.4, sections 4.3, 4.4 and 6)."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from tests.drivers.nvme.model_bench import BASE, DATA, Bench, ready
from uspace_drivers.nvme.model.store.media import InFile, InMemory, open_medium
from uspace_drivers.nvme.spec.commands import (
    ALL_NAMESPACES,
    AdminOpcode,
    DatasetRange,
    FeatureId,
    Opcode,
)
from uspace_drivers.nvme.spec.status import Status
from uspace_drv import BusyError, HostError, NoDevice

pytestmark = pytest.mark.usefixtures("nothing_left")

PAGE = 4096
LIST = BASE + 0x8000
SIZE = 1 << 20


def pattern(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def test_what_is_written_is_read_back() -> None:
    bench = ready(size=SIZE)
    data = pattern(PAGE)
    bench.write_blocks(5, data)
    assert bench.read_blocks(5, 8) == data
    assert bench.read_blocks(13, 1) == bytes(512)


@pytest.mark.parametrize("pages", [1, 2, 3, 100])
@pytest.mark.parametrize("offset", [0, 4, 512, 4092])
def test_prps_of_any_length_and_alignment(pages: int, offset: int) -> None:
    """The pages lie in memory in reverse, so that each has to be looked up."""
    bench = ready(size=SIZE, mdts=0)
    size = pages * PAGE
    places = [DATA + PAGE * (pages - n) for n in range(pages + (offset > 0))]
    entries = struct.pack(f"<{len(places) - 1}Q", *places[1:])
    bench.store(LIST + 0x18, entries)
    second = places[1] if len(places) == 2 else LIST + 0x18
    data = pattern(size)
    room = data
    for n, place in enumerate(places):
        start = offset if n == 0 else 0
        here, room = room[: PAGE - start], room[PAGE - start :]
        bench.store(place + start, here)
    fields = {"prp1": places[0] + offset, "prp2": second}
    assert bench.io(Opcode.WRITE, 0, size // 512, **fields).status == 0
    medium = bench.model.namespaces.attached[0].medium
    assert medium.read(0, size) == data
    bench.store(DATA - PAGE, bytes((pages + 3) * PAGE))
    bench.store(LIST + 0x18, entries)
    assert bench.io(Opcode.READ, 0, size // 512, **fields).status == 0
    got = b"".join(
        bench.load(place + (offset if n == 0 else 0), PAGE - (offset if n == 0 else 0))
        for n, place in enumerate(places)
    )
    assert got[:size] == data


def test_a_prp_list_goes_on_in_another_page() -> None:
    bench = ready(size=8 << 20, mdts=0)
    count = 520
    entries = [DATA + PAGE * (n % 200) for n in range(count)]
    # The first list begins near the end of its page: two entries, then a pointer.
    bench.store(LIST + PAGE - 24, struct.pack("<3Q", *entries[:2], LIST + PAGE))
    bench.store(LIST + PAGE, struct.pack("<512Q", *entries[2:513], LIST + 2 * PAGE))
    bench.store(LIST + 2 * PAGE, struct.pack(f"<{count - 513}Q", *entries[513:]))
    for n in range(200):
        bench.store(DATA + PAGE * n, struct.pack("<Q", n) * 512)
    fields = {"prp1": DATA, "prp2": LIST + PAGE - 24}
    assert bench.io(Opcode.WRITE, 0, (count + 1) * 8, **fields).status == 0
    medium = bench.model.namespaces.attached[0].medium
    found = [struct.unpack("<Q", medium.read(PAGE * n, 8))[0] for n in range(count + 1)]
    assert found == [0, *(n % 200 for n in range(count))]
    bench.store(LIST + PAGE + 511 * 8, struct.pack("<Q", LIST + 2 * PAGE + 8))
    assert bench.io(Opcode.WRITE, 0, (count + 1) * 8, **fields).code == Status.INVALID_PRP_OFFSET


@pytest.mark.parametrize(
    "fields",
    [
        {"prp1": DATA + 1},
        {"prp1": DATA + 2},
        {"prp2": DATA + PAGE + 512},
        {"prp2": LIST + 4, "blocks": 24},
    ],
)
def test_wrong_prps_are_refused(fields: dict[str, int]) -> None:
    bench = ready(size=SIZE)
    blocks = fields.pop("blocks", 16)
    assert bench.io(Opcode.READ, 0, blocks, **fields).code == Status.INVALID_PRP_OFFSET


def test_a_wrong_entry_of_a_list_is_refused() -> None:
    bench = ready(size=SIZE)
    bench.store(LIST, struct.pack("<2Q", DATA, DATA + 512))
    assert bench.io(Opcode.READ, 0, 24, prp2=LIST).code == Status.INVALID_PRP_OFFSET


def test_data_outside_of_memory() -> None:
    bench = ready(size=SIZE)
    assert bench.io(Opcode.READ, prp1=0x7000_0000).code == Status.DATA_TRANSFER_ERROR
    assert bench.io(Opcode.READ, 0, 24, prp2=0x7000_0000).code == Status.DATA_TRANSFER_ERROR
    assert bench.io(Opcode.READ).status == 0


def descriptor(address: int, length: int, kind: int) -> bytes:
    return struct.pack("<QI3xB", address, length, kind << 4)


def sgl(bench: Bench, opcode: int, first: bytes, blocks: int = 1) -> int:
    prp1, prp2 = struct.unpack("<QQ", first)
    return bench.io(opcode, 0, blocks, flags=0x40, prp1=prp1, prp2=prp2).code


def test_sgls() -> None:
    bench = ready(size=SIZE, sgl=True)
    assert bench.controller()["sgls"] & 3 == 1
    data = pattern(1024)
    bench.store(DATA + 3, data)
    assert sgl(bench, Opcode.WRITE, descriptor(DATA + 3, 1024, 0), 2) == 0
    assert bench.read_blocks(0, 2) == data
    segment = descriptor(DATA + 0x101, 100, 0) + descriptor(LIST + 0x100, 48, 3)
    last = (
        descriptor(0, 24, 1) + descriptor(DATA + 0x400, 388, 0) + descriptor(DATA + 0x700, 999, 0)
    )
    bench.store(LIST, segment)
    bench.store(LIST + 0x100, last)
    bench.store(DATA, bytes(PAGE))
    assert sgl(bench, Opcode.READ, descriptor(LIST, 32, 2)) == 0
    assert bench.load(DATA + 0x101, 100) == data[:100]
    assert bench.load(DATA + 0x400, 388) == data[124:512]
    assert bench.load(DATA + 0x700, 1) == b"\0"
    # For a write a bit bucket has nothing to give.
    assert sgl(bench, Opcode.WRITE, descriptor(LIST, 32, 2)) == 0
    written = bench.read_blocks(0, 1)
    assert written[:100] == data[:100]
    assert written[100:488] == data[124:512]


@pytest.mark.parametrize(
    ("first", "list_", "expected"),
    [
        (descriptor(DATA, 511, 0), b"", Status.INVALID_DATA_SGL_LENGTH),
        (descriptor(DATA, 512, 4), b"", Status.INVALID_SGL_DESCRIPTOR_TYPE),
        (descriptor(DATA, 512, 0)[:15] + b"\1", b"", Status.INVALID_SGL_DESCRIPTOR_TYPE),
        (descriptor(LIST, 8, 3), b"", Status.INVALID_SGL_SEGMENT_DESCRIPTOR),
        (descriptor(LIST, 0, 2), b"", Status.INVALID_SGL_SEGMENT_DESCRIPTOR),
        (
            descriptor(LIST, 32, 3),
            descriptor(LIST, 16, 2) + descriptor(DATA, 512, 0),
            Status.INVALID_SGL_SEGMENT_DESCRIPTOR,
        ),
        (
            descriptor(LIST, 32, 3),
            descriptor(DATA, 100, 0) + descriptor(LIST, 32, 3),
            Status.INVALID_SGL_SEGMENT_DESCRIPTOR,
        ),
        (
            descriptor(LIST, 32, 2),
            descriptor(DATA, 0, 0) + descriptor(LIST, 32, 2),
            Status.INVALID_NUMBER_OF_SGL_DESCRIPTORS,
        ),
        (descriptor(LIST, 16, 3), descriptor(DATA, 100, 0), Status.INVALID_DATA_SGL_LENGTH),
        (descriptor(0x7000_0000, 16, 3), b"", Status.DATA_TRANSFER_ERROR),
    ],
)
def test_wrong_sgls_are_refused(first: bytes, list_: bytes, expected: int) -> None:
    bench = ready(size=SIZE, sgl=True)
    bench.store(LIST, list_)
    assert sgl(bench, Opcode.READ, first) == expected


def test_no_sgl_where_there_is_none() -> None:
    bench = ready(size=SIZE)
    assert sgl(bench, Opcode.READ, descriptor(DATA, 512, 0)) == Status.INVALID_FIELD


@pytest.mark.parametrize(
    ("opcode", "fields", "expected"),
    [
        (Opcode.READ, {"lba": SIZE // 512}, Status.LBA_OUT_OF_RANGE),
        (Opcode.WRITE, {"lba": SIZE // 512 - 1, "blocks": 2}, Status.LBA_OUT_OF_RANGE),
        (Opcode.READ, {"lba": (1 << 64) - 1}, Status.LBA_OUT_OF_RANGE),
        (Opcode.READ, {"blocks": 17}, Status.INVALID_FIELD),
        (Opcode.COMPARE, {"blocks": 17}, Status.INVALID_FIELD),
        (Opcode.WRITE_ZEROES, {"blocks": 17}, Status.SUCCESS),
        (Opcode.READ, {"namespace": 0}, Status.INVALID_NAMESPACE_OR_FORMAT),
        (Opcode.READ, {"namespace": 2}, Status.INVALID_FIELD),
        (Opcode.READ, {"namespace": ALL_NAMESPACES}, Status.INVALID_NAMESPACE_OR_FORMAT),
        (Opcode.FLUSH, {"namespace": ALL_NAMESPACES}, Status.SUCCESS),
        (Opcode.FLUSH, {"namespace": 2}, Status.INVALID_FIELD),
        (Opcode.READ, {"flags": 1}, Status.INVALID_FIELD),
        (0x55, {}, Status.INVALID_OPCODE),
    ],
)
def test_bounds(opcode: int, fields: dict[str, int], expected: int) -> None:
    bench = ready(size=SIZE, mdts=1)
    assert bench.io(opcode, **fields).code == expected


def test_compare() -> None:
    bench = ready(size=SIZE)
    bench.write_blocks(0, pattern(1024))
    assert bench.io(Opcode.COMPARE, 0, 2).status == 0
    assert bench.io(Opcode.COMPARE, 1, 2).code == Status.COMPARE_FAILURE


@pytest.mark.parametrize("flags", [0, 1 << 25, 1 << 30])
def test_write_zeroes(flags: int) -> None:
    bench = ready(size=SIZE)
    data = pattern(3 * PAGE)
    bench.model.namespaces.attached[0].medium.write(0, data)
    assert bench.io(Opcode.WRITE_ZEROES, 1, cdw12=flags | 19).status == 0
    medium = bench.model.namespaces.attached[0].medium
    assert medium.read(0, 3 * PAGE) == data[:512] + bytes(20 * 512) + data[21 * 512 :]


def test_trim() -> None:
    bench = ready(size=SIZE)
    medium = bench.model.namespaces.attached[0].medium
    data = pattern(4 * PAGE)
    medium.write(0, data)
    ranges = DatasetRange.array(2)
    ranges["lba"], ranges["blocks"] = [0, 30], [1, 2]
    bench.store(DATA, ranges.tobytes())
    fields = {"cdw10": 1, "cdw11": 0, "cdw12": 0}
    assert bench.io(Opcode.DATASET_MANAGEMENT, **fields).status == 0
    assert medium.read(0, 4 * PAGE) == data
    fields["cdw11"] = 4
    assert bench.io(Opcode.DATASET_MANAGEMENT, **fields).status == 0
    assert medium.read(0, 4 * PAGE) == bytes(512) + data[512 : 30 * 512] + bytes(1024)
    ranges["blocks"] = [2, 1 << 30]
    bench.store(DATA, ranges.tobytes())
    assert bench.io(Opcode.DATASET_MANAGEMENT, **fields).code == Status.LBA_OUT_OF_RANGE
    assert medium.read(512, 512) == data[512:1024]


def test_blocks_that_cannot_be_read() -> None:
    bench = ready(size=SIZE)
    assert bench.io(Opcode.WRITE_UNCORRECTABLE, 10, 2).status == 0
    assert not bench.model.namespaces.attached[0].is_plain
    for opcode in (Opcode.READ, Opcode.VERIFY, Opcode.COMPARE):
        assert bench.io(opcode, 8, 3).code == Status.UNRECOVERED_READ_ERROR
        assert bench.io(opcode, 12, 3).status == 0
    assert bench.model.health.media_errors == 3
    bench.write_blocks(10, bytes(1024))
    assert bench.io(Opcode.READ, 8, 8).status == 0
    assert bench.model.namespaces.attached[0].is_plain


def test_metadata_is_refused() -> None:
    bench = ready(size=SIZE, metadata=True)
    assert bench.namespace()["lbaf"][0] == 9 << 16 | 8 | 3 << 24
    assert bench.io(Opcode.READ).code == Status.INVALID_FIELD
    assert bench.admin(AdminOpcode.FORMAT, namespace=1, cdw10=1).status == 0
    assert bench.io(Opcode.READ).status == 0


def test_discarding_takes_all_and_gives_nothing() -> None:
    bench = ready(size="1T", medium="discard", block_size=4096)
    assert bench.namespace()["nsze"] == 1 << 28
    assert bench.namespace()["lbaf"][0] >> 16 & 0xFF == 12
    bench.store(DATA, b"\xaa" * PAGE)
    assert bench.io(Opcode.WRITE, 7).status == bench.io(Opcode.READ, 7).status == 0
    assert bench.load(DATA, PAGE) == b"\xaa" * PAGE
    assert bench.io(Opcode.READ, 1 << 28).code == Status.LBA_OUT_OF_RANGE
    assert bench.io(Opcode.WRITE_ZEROES, 7).status == bench.io(Opcode.VERIFY, 7).status == 0


def test_a_file_keeps_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    data = pattern(PAGE)
    bench = ready(size=SIZE, medium=str(path), namespaces=2)
    bench.write_blocks(0, data)
    assert bench.io(Opcode.FLUSH).status == 0
    assert path.read_bytes()[:PAGE] == data
    assert bench.io(Opcode.WRITE, 8, 8, cdw12=7 | 1 << 30).status == 0
    bench.model.close()
    assert (tmp_path / "disk.2").stat().st_size == SIZE
    again = ready(size=SIZE, medium=str(path))
    assert again.read_blocks(0, 8) == again.read_blocks(8, 8) == data
    assert again.io(Opcode.WRITE_ZEROES, 0, 16).status == 0
    set_cache = {"cdw10": FeatureId.VOLATILE_WRITE_CACHE, "cdw11": 0}
    assert again.admin(AdminOpcode.SET_FEATURES, **set_cache).status == 0
    again.write_blocks(3, b"y" * 512)
    again.model.close()
    assert path.read_bytes()[: 16 * 512] == bytes(1536) + b"y" * 512 + bytes(12 * 512)


@pytest.mark.parametrize(
    ("opcode", "flags", "is_cached", "expected"),
    [
        (Opcode.WRITE, 0, True, []),
        (Opcode.WRITE, 1 << 30, True, [(PAGE, 512)]),
        (Opcode.WRITE, 0, False, [(PAGE, 512)]),
        (Opcode.WRITE_ZEROES, 1 << 30, True, [(PAGE, 512)]),
        (Opcode.FLUSH, 0, True, [(0, None)]),
    ],
)
def test_when_a_medium_is_flushed(
    monkeypatch: pytest.MonkeyPatch,
    opcode: int,
    flags: int,
    is_cached: bool,
    expected: list[tuple[int, int | None]],
) -> None:
    bench = ready(size=SIZE)
    cache = {"cdw10": FeatureId.VOLATILE_WRITE_CACHE, "cdw11": int(is_cached)}
    assert bench.admin(AdminOpcode.SET_FEATURES, **cache).status == 0
    flushed: list[tuple[int, int | None]] = []

    def flush(_: InMemory, offset: int = 0, size: int | None = None) -> None:
        flushed.append((offset, size))

    monkeypatch.setattr(InMemory, "flush", flush)
    assert bench.io(opcode, 8, cdw12=flags).status == 0
    assert flushed == expected


def test_a_file_that_cannot_be_had_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="give a file that can be written"):
        open_medium(str(tmp_path / "none" / "disk"), SIZE, 1)


def test_a_file_belongs_to_one_model(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    first = open_medium(str(path), SIZE, 1)
    first.write(0, b"first")
    with pytest.raises(BusyError, match=f"^medium {path}: another model has this file"):
        open_medium(str(path), SIZE, 1)
    first.close()
    second = open_medium(str(path), SIZE, 1)
    assert second.read(0, 5) == b"first"
    second.close()


@pytest.mark.parametrize("kind", ["discrd", ""])
def test_a_mistyped_medium_makes_no_file(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NoDevice, match=f"^medium={kind}: expected memory, discard, or the path"):
        open_medium(kind, SIZE, 1)
    assert not list(tmp_path.iterdir())
    open_medium("./disk", SIZE, 1).close()
    open_medium("disk", SIZE, 1).remove()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [1 << 62, 1 << 72])
def test_a_size_that_no_machine_has(size: int) -> None:
    with pytest.raises(NoDevice, match=f"no memory for {size} bytes; give less, or medium=FILE"):
        open_medium("memory", size, 1)


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_deallocation_leaves_the_rest(kind: str, tmp_path: Path) -> None:
    size = 64 * PAGE
    medium = InMemory(size) if kind == "memory" else InFile(tmp_path / "disk", size)
    twin = bytearray(size)
    chance = random.Random(5)
    for _ in range(200):
        start = chance.randrange(size)
        end = chance.randrange(start, size)
        if chance.random() < 0.5:
            data = chance.randbytes(end - start)
            medium.write(start, data)
            twin[start:end] = data
        else:
            medium.deallocate(start, end - start)
            twin[start:end] = bytes(end - start)
        assert medium.read(0, size) == twin
    medium.remove()
    assert not (tmp_path / "disk").exists()

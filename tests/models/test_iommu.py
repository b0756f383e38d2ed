"""The IOMMU of a model: what the device reaches, and the error that names the register."""

from __future__ import annotations

import mmap
import signal
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from tests.unit.specimens import Bell, BellModel
from uspace_drv import DeviceError, Direction, Iova, attach
from uspace_drv.models.iommu import REMEMBERED, Iommu

PAGE = mmap.PAGESIZE
CARRIER = r"bell: address \(0x10\) carried IOVA"

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def iommu() -> Iommu:
    return Iommu("bell", lambda: True)


def show(bell: Bell, iova: int, size: int) -> None:
    """Give the device an address."""
    bell.registers.address.write(iova)
    bell.registers.size.write(size)


def test_device_copies_memory() -> None:
    with attach(BellModel("bell"), Bell) as bell:
        source = bell.device.dma.alloc(np.uint8, PAGE + 8, Direction.TO_DEVICE)
        target = bell.device.dma.alloc(np.uint8, PAGE + 8, Direction.FROM_DEVICE)
        source.array[:] = np.arange(PAGE + 8) & 0xFF
        show(bell, source.iova, source.size)
        bell.registers.fetch.write(1)
        show(bell, target.iova, target.size)
        bell.registers.store.write(1)
        assert (target.array == source.array).all()


@pytest.mark.parametrize(
    ("offset", "size", "what"),
    [
        (0, PAGE + 1, r"for 0x1001 bytes, which runs past the end of its mapping \(0x2000\)"),
        (PAGE, 4, "for 0x4 bytes, which was never mapped"),
        (-4, 8, "for 0x8 bytes, which was never mapped"),
    ],
)
def test_address_that_is_not_mapped_names_the_register(offset: int, size: int, what: str) -> None:
    with attach(BellModel("bell"), Bell) as bell:
        buffer = bell.device.dma.alloc(np.uint8, PAGE)
        show(bell, buffer.iova + offset, size)
        with pytest.raises(DeviceError, match=f"{CARRIER} {buffer.iova + offset:#x} {what}"):
            bell.registers.fetch.write(1)


def test_use_after_unmap_names_the_register() -> None:
    with attach(BellModel("bell"), Bell) as bell:
        with bell.device.dma.alloc(np.uint8, PAGE) as buffer:
            show(bell, buffer.iova, 8)
        with pytest.raises(DeviceError, match=f"{CARRIER} 0x1000 .* was unmapped before"):
            bell.registers.fetch.write(1)


@pytest.mark.parametrize(
    ("direction", "verb"), [(Direction.FROM_DEVICE, "fetch"), (Direction.TO_DEVICE, "store")]
)
def test_direction_is_enforced(direction: Direction, verb: str) -> None:
    with attach(BellModel("bell"), Bell) as bell:
        source = bell.device.dma.alloc(np.uint8, 8)
        show(bell, source.iova, 8)
        bell.registers.fetch.write(1)
        buffer = bell.device.dma.alloc(np.uint8, 8, direction)
        show(bell, buffer.iova, 8)
        with pytest.raises(DeviceError, match=f"{CARRIER} .* is mapped {direction.name} only"):
            getattr(bell.registers, verb).write(1)


def test_nothing_is_reached_without_bus_mastering() -> None:
    with attach(BellModel("bell"), Bell) as bell:
        buffer = bell.device.dma.alloc(np.uint8, 8)
        show(bell, buffer.iova, 8)
        bell.device.set_bus_master(False)
        with pytest.raises(DeviceError, match=f"{CARRIER} .*, but bus mastering is off"):
            bell.registers.fetch.write(1)


@pytest.mark.parametrize("start", [0x1000, 0x2000, 0x3000, 0x4000])
def test_mappings_do_not_overlap(iommu: Iommu, start: int) -> None:
    memory = np.zeros(8 * PAGE, np.uint8).ctypes.data
    iommu.map(memory, 4 * PAGE, Iova(0x10000), Direction.BOTH)
    iommu.map(memory, 2 * PAGE, Iova(0x2000), Direction.BOTH)
    if start == 0x4000:
        assert iommu.map(memory, PAGE, Iova(start), Direction.BOTH) == start
        return
    with pytest.raises(DeviceError, match=f"bell: IOVA {start:#x} is mapped already"):
        iommu.map(memory, 2 * PAGE, Iova(start), Direction.BOTH)


@pytest.mark.parametrize(("iova", "size"), [(0x1000, PAGE), (0x2000, 2 * PAGE), (0x5000, PAGE)])
def test_unmap_takes_what_was_mapped_and_nothing_else(iommu: Iommu, iova: int, size: int) -> None:
    iommu.map(0, 2 * PAGE, Iova(0x1000), Direction.BOTH)
    with pytest.raises(DeviceError, match=f"nothing of {size:#x} bytes is mapped at {iova:#x}"):
        iommu.unmap(Iova(iova), size)
    iommu.unmap(Iova(0x1000), 2 * PAGE)


def test_a_mapping_needs_an_iova(iommu: Iommu) -> None:
    with pytest.raises(DeviceError, match="a mapping needs an IOVA"):
        iommu.map(0, PAGE, None, Direction.BOTH)


def test_against_bytes_of_the_twin(iommu: Iommu) -> None:
    """Many mappings at once: each address leads to its own memory."""
    arrays: dict[int, Any] = {n: np.full(PAGE, n % 251, np.uint8) for n in range(1, 400, 3)}
    for number, array in reversed(arrays.items()):
        iommu.map(array.ctypes.data, PAGE, Iova(number * PAGE), Direction.BOTH)
    for number, array in arrays.items():
        iommu.write(number * PAGE + 5, b"\xff", "x")
        assert iommu.read(number * PAGE, PAGE, "x") == array.tobytes()
        assert array[5] == 0xFF


def test_remembers_only_so_many(iommu: Iommu) -> None:
    for number in range(1, REMEMBERED + 2):
        iommu.map(0, PAGE, Iova(number * PAGE), Direction.BOTH)
        iommu.unmap(Iova(number * PAGE), PAGE)
    with pytest.raises(DeviceError, match="never mapped"):
        iommu.read(PAGE, 1, "x")
    with pytest.raises(DeviceError, match="unmapped before"):
        iommu.read(2 * PAGE, 1, "x")


class Shared:
    """Memory of a peer."""

    address = 0

    def __init__(self, size: int) -> None:
        self.bytes = bytearray(size)

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self.bytes[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        self.bytes[offset : offset + len(data)] = data


def test_a_transfer_may_touch_several_mappings_of_a_peer(iommu: Iommu) -> None:
    """An operating system's pages lie side by side for the device, and elsewhere in memory."""
    parts = [Shared(PAGE) for _ in range(3)]
    for number, part in enumerate(parts, 4):
        iommu.attach(number * PAGE, PAGE, part, Direction.BOTH)
    data = bytes(n * 7 & 0xFF for n in range(2 * PAGE))
    iommu.write(4 * PAGE + 100, data, "x")
    assert iommu.read(4 * PAGE + 100, 2 * PAGE, "x") == data
    assert parts[1].bytes == data[PAGE - 100 : 2 * PAGE - 100]
    assert parts[2].bytes[:100] == data[-100:]


def test_all_of_a_transfer_is_checked_before_any_of_it(iommu: Iommu) -> None:
    part = Shared(PAGE)
    iommu.attach(PAGE, PAGE, part, Direction.BOTH)
    iommu.attach(2 * PAGE, PAGE, Shared(PAGE), Direction.TO_DEVICE)
    with pytest.raises(DeviceError, match=r"x carried IOVA 0x1000 .* mapped TO_DEVICE only"):
        iommu.write(PAGE, b"\xff" * (PAGE + 1), "x")
    with pytest.raises(DeviceError, match="runs past the end of its mapping"):
        iommu.read(PAGE, 2 * PAGE + 1, "x")
    assert part.bytes == bytes(PAGE)


def test_detach_takes_all_inside_and_cuts_nothing(iommu: Iommu) -> None:
    for number in (1, 2, 4):
        iommu.attach(number * PAGE, PAGE, Shared(PAGE), Direction.BOTH)
    for iova, size in ((PAGE + 1, 4 * PAGE), (PAGE, 2 * PAGE - 1)):
        with pytest.raises(DeviceError, match=r"unmapping .* would cut the mapping of 0x1000"):
            iommu.detach(iova, size)
    assert [mapping.iova for mapping in iommu.detach(PAGE, 3 * PAGE)] == [PAGE, 2 * PAGE]
    with pytest.raises(DeviceError, match="was unmapped before"):
        iommu.read(PAGE, 1, "x")
    assert [mapping.iova for mapping in iommu.detach(0, 1 << 64)] == [4 * PAGE]
    assert (iommu.mappings, iommu.detach(0, PAGE)) == ((), [])


@pytest.mark.parametrize(("iova", "size"), [(0, 0), (-1, 2), (2**64 - 1, 2), (0, 2**64 + 1)])
def test_mapping_lies_within_64_bits(iommu: Iommu, iova: int, size: int) -> None:
    with pytest.raises(DeviceError, match="expected 1 byte or more, and an end within 64 bits"):
        iommu.attach(iova, size, Shared(0), Direction.BOTH)


def test_what_the_device_wrote_can_be_recorded(iommu: Iommu) -> None:
    dirty: list[tuple[int, int]] = []
    iommu.attach(PAGE, PAGE, Shared(PAGE), Direction.BOTH)
    iommu.on_write = lambda iova, size: dirty.append((iova, size))
    iommu.write(PAGE + 1, b"abc", "x")
    iommu.write(PAGE + 1, b"", "x")
    iommu.read(PAGE, 10, "x")
    assert dirty == [(PAGE + 1, 3)]


def test_in_this_process_a_transfer_stays_in_its_buffer(iommu: Iommu) -> None:
    """Two buffers may get IOVAs side by side; running from one into the other is a bug."""
    memory = np.zeros(2 * PAGE, np.uint8)
    for number in (1, 2):
        iommu.map(memory.ctypes.data, PAGE, Iova(number * PAGE), Direction.BOTH)
    with pytest.raises(DeviceError, match=r"runs past the end of its mapping \(0x2000\)"):
        iommu.read(PAGE, PAGE + 1, "x")


def test_the_table_is_what_c_reads(iommu: Iommu) -> None:
    """Ascending: IOVA, size, address, direction; 0 is memory that is not in this process."""
    memory = np.zeros(2 * PAGE, np.uint8)
    iommu.attach(4 * PAGE, PAGE, Shared(PAGE), Direction.TO_DEVICE)
    iommu.map(memory.ctypes.data, 2 * PAGE, Iova(PAGE), Direction.BOTH)
    first = (PAGE, 2 * PAGE, memory.ctypes.data, 3)
    assert list(struct.iter_unpack("=QQQQ", iommu.table)) == [first, (4 * PAGE, PAGE, 0, 1)]
    iommu.detach(4 * PAGE, PAGE)
    assert list(struct.iter_unpack("=QQQQ", iommu.table)) == [first]
    iommu.unmap_all()
    assert not iommu.table


class Path:
    """A data path that holds the turn until it is interrupted."""

    def __init__(self) -> None:
        self.wanted = threading.Event()
        self.runs = threading.Event()
        self.table = b""
        self.interrupt = self.wanted.set
        self.resume = self.wanted.clear

    def run(self, iommu: Iommu) -> bool:
        with memoryview(iommu.table) as view:
            self.runs.set()
            assert self.wanted.wait(10)
            self.table = bytes(view)
        return True


def test_a_change_waits_for_the_data_path(iommu: Iommu) -> None:
    path, memory = Path(), np.zeros(PAGE, np.uint8)
    iommu.turn.introduce(path)
    thread = threading.Thread(target=lambda: iommu.turn.lend(path, lambda: path.run(iommu)))
    thread.start()
    assert path.runs.wait(10)
    iommu.map(memory.ctypes.data, PAGE, Iova(PAGE), Direction.BOTH)
    thread.join()
    assert (path.table, len(iommu.table)) == (b"", 32)


def test_it_is_lent_to_one_that_is_known(iommu: Iommu) -> None:
    path = Path()
    assert iommu.turn.lend(path, lambda: True) is None
    iommu.turn.introduce(path)
    assert iommu.turn.lend(path, lambda: True) is True
    iommu.turn.introduce(None)
    assert iommu.turn.lend(path, lambda: True) is None


def test_who_asks_goes_first(iommu: Iommu) -> None:
    """Many who ask, and a path that begins again and again: all of them get their turn."""
    path, done = Path(), []
    iommu.turn.introduce(path)

    def ask() -> None:
        for _ in range(20):
            with iommu.turn, iommu.turn:  # it may be taken twice
                done.append(1)

    def serve() -> None:
        while iommu.turn.lend(path, lambda: path.run(iommu)):
            pass

    threads = [threading.Thread(target=each) for each in (serve, ask, ask, ask)]
    for each in threads:
        each.start()
    for each in threads[1:]:
        each.join()
    iommu.turn.introduce(None)
    threads[0].join()
    assert len(done) == 60


class Stopped(Exception):
    """What a handler of a signal raises, as Ctrl-C does."""


def stop(*_: object) -> None:
    raise Stopped


@pytest.fixture
def timer() -> Iterator[Callable[[float], object]]:
    """A signal after so many seconds of this process; the clock of pytest-timeout is another."""
    before = signal.signal(signal.SIGVTALRM, stop)
    yield lambda seconds: signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)


def take_until_stopped(iommu: Iommu) -> None:
    with suppress(Stopped):
        while True:
            with iommu.turn:
                pass


def test_a_signal_never_leaves_the_turn_taken(iommu: Iommu, timer: Callable[[float], Any]) -> None:
    for number in range(50):
        timer(0.0003 + number * 1e-5)
        take_until_stopped(iommu)
        assert iommu.turn.asking == 0
        with pytest.raises(RuntimeError, match="cannot release"):
            iommu.turn.lock.__exit__(None, None, None)


def test_a_signal_while_a_data_path_is_interrupted(
    iommu: Iommu, timer: Callable[[float], Any]
) -> None:
    """The path's `interrupt` is Python here: the signal comes inside of it, too."""
    path = Path()
    iommu.turn.introduce(path)

    def serve() -> None:
        while iommu.turn.lend(path, lambda: path.run(iommu)):
            pass

    thread = threading.Thread(target=serve)
    thread.start()
    for number in range(30):
        timer(0.0003 + number * 1e-5)
        take_until_stopped(iommu)
    iommu.turn.introduce(None)
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("bits", [2, 6])
def test_a_change_of_the_command_register_is_noticed(bits: int) -> None:
    """Bus mastering may be off: the data path has to look again."""
    model, path = BellModel("bell"), Path()
    turn = model.memory.turn
    turn.introduce(path)
    thread = threading.Thread(target=lambda: turn.lend(path, lambda: path.run(model.memory)))
    thread.start()
    assert path.runs.wait(10)
    model.config.write(4, 2, bits)
    thread.join()
    assert model.memory.is_bus_master == (bits == 6)
    model.power_state = 3
    assert not model.memory.is_bus_master
    model.close()

"""The data path in C and memory that is taken away: by an unmap, or by a client that cuts it."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drivers.nvme.data_path_host import (
    CFS,
    DATA,
    PAGE,
    WRITE,
    Host,
    code,
    command,
    native,
    read,
    until,
)
from uspace_drivers.nvme.model.rings.data_path import DataPath
from uspace_drivers.nvme.model.rings.native_rings import Event, Handlers, NativeRings
from uspace_drv import DeviceGone, Iova
from uspace_drv.native import Window, faults
from uspace_drv.vfiouser.numbers import UnmapFlag
from uspace_drv.vfiouser.server.guest_memory import GuestMemory
from uspace_drv.vfiouser.wire import DmaMap, DmaUnmap, pack

pytestmark = pytest.mark.usefixtures("nothing_left")

GUEST = 0x4000_0000
GUEST_SIZE = 1 << 20
CMBMSC, CMBSTS, CMB_SIZE = 0x50, 0x58, 1 << 16
DATA_TRANSFER_ERROR = 4
COMMAND, DOORBELL, FETCH, MEMORY = 2, 16, 32, 256


@pytest.fixture
def file() -> Iterator[int]:
    made = os.memfd_create("guest")
    os.ftruncate(made, GUEST_SIZE)
    yield made
    os.close(made)


def guest_of(host: Host) -> GuestMemory:
    def refuse(*_: object) -> bytes:
        raise AssertionError("a message was sent")

    return GuestMemory(host.model, refuse, most_maps=64, largest_transfer=PAGE, is_qemu=False)


def show(guest: GuestMemory, file: int, iova: int = GUEST, size: int = GUEST_SIZE) -> None:
    guest.map(pack(DmaMap(argsz=32, flags=3, offset=0, address=iova, size=size)), [file])


def take(guest: GuestMemory, iova: int, size: int, flags: int = 0) -> None:
    guest.unmap(pack(DmaUnmap(argsz=24, flags=flags, address=iova, size=size)))


@pytest.mark.parametrize(
    ("start", "size", "flags"),
    [
        (GUEST, GUEST_SIZE + PAGE, 0),  # runs into the CMB
        (GUEST, GUEST_SIZE + CMB_SIZE, 0),
        (0, 0, UnmapFlag.ALL),
    ],
)
def test_a_client_unmaps_its_memory_and_not_the_cmb(
    file: int, start: int, size: int, flags: int
) -> None:
    with native(cmb="64K") as one:
        guest, cmb = guest_of(one), GUEST + GUEST_SIZE
        show(guest, file)
        one.model.write_bar(0, CMBMSC, 8, cmb | 3)
        assert one.model.read_bar(0, CMBSTS, 4) == 0
        take(guest, start, size, flags)
        assert "memfd:guest" not in Path("/proc/self/maps").read_text()
        one.io.submit(read(1, prp1=GUEST), read(2, prp1=cmb))
        taken, kept = one.io.take(2)
        assert (code(taken), code(kept)) == (DATA_TRANSFER_ERROR, 0)
        show(guest, file)
        one.model.write_bar(0, CMBMSC, 8, 0)
        one.io.submit(read(3, prp1=GUEST), read(4, prp1=cmb))
        assert [code(each) for each in one.io.take(2)] == [0, DATA_TRANSFER_ERROR]
        guest.close()
        assert "memfd:guest" not in Path("/proc/self/maps").read_text()


def test_the_client_takes_the_shadow_doorbells_away_between_two_runs(
    file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command for Python is pending when it does: its completion looks at no doorbell of them."""
    with native(shadow=True) as one:
        guest, rings = guest_of(one), one.model.rings
        assert isinstance(rings, NativeRings)
        show(guest, file, size=2 * PAGE)
        rings.use_shadow(GUEST, GUEST + PAGE)
        inside, go, real = threading.Event(), threading.Event(), rings._react

        def slow(event: int, handlers: Handlers, path: DataPath) -> None:
            if event & Event.COMMAND:  # the level of the admin queue may be lowered before
                inside.set()
                assert go.wait(10)
            real(event, handlers, path)

        monkeypatch.setattr(rings, "_react", slow)
        one.write(DATA - 12 * PAGE, command(9, id=3, nsid=1, prp1=DATA, cdw11=4))
        os.pwrite(file, struct.pack("<I", 1), 8)
        assert inside.wait(10)
        monkeypatch.undo()
        take(guest, GUEST, 2 * PAGE)
        go.set()
        assert code(one.io.take(frees=False)[0]) == 0
        until(lambda: one.status & CFS, "CSTS.CFS")
        assert "shadow doorbells" in one.model.complaints[-1]


@pytest.mark.parametrize("rings", ["native", "python"])
def test_a_client_cuts_its_memory_off(file: int, rings: str) -> None:
    """The first command that meets it and all that follow are errors; nobody reads ones as data."""
    with Host(rings, size="1M") as one:
        guest = guest_of(one)
        show(guest, file)
        one.model.namespaces.all[0].medium.write(0, b"good" * 1024)
        os.ftruncate(file, 0)
        for number in range(3):
            wide = command(WRITE, id=number, nsid=1, lba=8, prp1=GUEST, cdw12=7)
            one.io.submit(wide, read(number, prp1=GUEST, cdw12=7), read(number, prp1=DATA))
            assert [code(each) for each in one.io.take(3)] == [4, 4, 0]
        assert one.read(DATA, 512) == b"good" * 128
        guest.close()


@pytest.mark.parametrize("rings", ["native", "python"])
@pytest.mark.parametrize("rings_at", [(DATA + PAGE, GUEST), (GUEST, GUEST + PAGE)])
def test_a_client_cuts_its_rings_off(file: int, rings: str, rings_at: tuple[int, int]) -> None:
    """What is fetched then is no command, and no completion tells of it."""
    with Host(rings, size="1M") as one:
        guest = guest_of(one)
        show(guest, file)
        size = 15 << 16 | 2
        one.admin.submit(
            command(5, prp1=rings_at[0], cdw10=size, cdw11=1),
            command(1, prp1=rings_at[1], cdw10=size, cdw11=2 << 16 | 1),
        )
        assert [code(entry) for entry in one.admin.take(2)] == [0, 0]
        one.model.memory.write(rings_at[1], read(7), "x")
        one.model.write_bar(0, 0x1010, 4, 1)
        until(lambda: one.model.memory.read(rings_at[0] + 14, 1, "x")[0] & 1, "a completion")
        os.ftruncate(file, 0)
        one.model.write_bar(0, 0x1010, 4, 2)
        until(lambda: one.status & CFS, "CSTS.CFS")
        assert "client's memory: bus error" in one.model.complaints[0]
        if rings_at[0] != GUEST:
            assert not any(one.read(rings_at[0] + 16, 16))
        guest.close()


class Bench:
    """Queues 1 and 2 of a data path without a model, in 1 MiB at IOVA 0."""

    def __init__(self, *places: int) -> None:
        self.memory = mmap.mmap(-1, 1 << 20)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.table = struct.pack("=QQQQ", 0, 1 << 20, self.address, 3)
        self.doorbells = mmap.mmap(-1, PAGE)
        self.path = DataPath(self.doorbells, 4, PAGE, 1 << 20, False, faults())
        for number, place in enumerate(places):
            self.path.open_completion(number, 0x1000 * number, 16, -1)
            self.path.open_submission(number, place, 16, number)
        self.path.set_namespace(1, 9, 100, 0, False)
        assert self.path.run(self.table, 0) == MEMORY

    def ring(self, number: int, tail: int) -> None:
        struct.pack_into("<I", self.doorbells, 8 * number, tail)


@pytest.mark.parametrize("distance", [0, 1 << 20])
def test_a_queue_that_is_python_s_does_not_starve_the_next_one(distance: int) -> None:
    """Commands for Python, or memory that is out of reach of C: there is always one more."""
    one, served = Bench(0x10000, *(distance + place for place in (0x20000, 0x30000, 0x40000))), []
    for place in range(0x20000, 0x50000, 64):
        one.memory[place] = 9
    for _ in range(9):
        for number in (1, 2, 3):
            one.ring(number, (one.path.head(number) + 1) % 16)
        event = one.path.run(one.table, 0)
        if distance:
            assert event == FETCH
            served.append(one.path.trouble[0])
            one.path.take(served[-1])
        else:
            assert event == COMMAND
            served.append(one.path.command[0])
    assert served == [1, 2, 3] * 3


def test_shadow_doorbells_are_not_looked_at_between_two_runs() -> None:
    one = Bench(0x10000, 0x20000)
    one.path.use_shadow(0x8000)
    one.memory[0x20000] = 9
    struct.pack_into("<I", one.memory, 0x8008, 1)
    assert one.path.run(one.table, 0) == COMMAND
    struct.pack_into("<I", one.memory, 0x800C, 9)  # a head that would be refused, were it seen
    assert one.path.next_entry(1)
    assert one.path.run(one.table, 0) == DOORBELL


def test_another_s_fault_is_no_harm(file: int) -> None:
    """A bus error in memory that the client has nothing to do with: the table is looked through."""
    with native() as one:
        other = Window.map("other", file, 0, PAGE)
        os.ftruncate(file, 0)
        with pytest.raises(DeviceGone):
            other.read8(0)
        assert other.address == 0
        other.close()
        one.io.submit(read(1))
        assert code(one.io.take()[0]) == 0
        assert [each.iova for each in one.model.memory.mappings] == [Iova(0x10_0000)]

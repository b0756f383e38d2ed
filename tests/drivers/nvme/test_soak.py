"""The verb that looks for wrong bytes: that it finds each kind, says which, and can be repeated."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from uspace_drivers.nvme import Nvme, NvmeModel, Opcode
from uspace_drivers.nvme.model.faults import Action, Fault
from uspace_drivers.nvme.model.store.media import InMemory
from uspace_drivers.nvme.model.task import Task
from uspace_drivers.nvme.spec.command_error import CommandError
from uspace_drivers.nvme.spec.status import Status
from uspace_drivers.nvme.verbs.ledger import ONES, Ledger, WrongData, contents
from uspace_drivers.nvme.verbs.soak import Plan, Soak
from uspace_drv import DeviceError, RegisterValueError, attach
from uspace_drv.cli import main

MIB = 1 << 20
PLAN = Plan(seed=7, workers=1, size=MIB)


class IoFault(Fault):
    """One of I/O commands only: the admin queue has the same opcodes."""

    def fits(self, task: Task) -> bool:
        return task.queue != 0 and super().fits(task)


class Broken(InMemory):
    """A medium that does something wrong with one read, write or trim: the `late`th."""

    late = 72  # the region is filled with 64 writes
    _count = 0

    def is_due(self) -> bool:
        self._count += 1
        return self._count == self.late


class FlipsABit(Broken):
    def read(self, offset: int, size: int) -> bytes:
        data = bytearray(super().read(offset, size))
        if self.is_due():
            data[300] ^= 0x04
        return bytes(data)


class LosesAWrite(Broken):
    def write(self, offset: int, data: bytes) -> None:
        if not self.is_due():
            super().write(offset, data)


class WritesElsewhere(Broken):
    def write(self, offset: int, data: bytes) -> None:
        super().write(offset + 512 * self.is_due(), data)


class TearsAWrite(Broken):
    def write(self, offset: int, data: bytes) -> None:
        super().write(offset, data[:256] if self.is_due() else data)


class ReadsOldData(Broken):
    """A cache that a write has not reached."""

    _old = b""

    def write(self, offset: int, data: bytes) -> None:
        if self.is_due():
            self._old = super().read(offset, len(data))
            self._place = offset
        super().write(offset, data)

    def read(self, offset: int, size: int) -> bytes:
        data = bytearray(super().read(offset, size))
        if self._old and offset <= self._place < offset + size:
            old = self._old[: offset + size - self._place]
            data[self._place - offset : self._place - offset + len(old)] = old
        return bytes(data)


class TrimsTooMuch(Broken):
    def deallocate(self, offset: int, size: int) -> None:
        super().deallocate(offset, size + 512)


class TrimsIntoGarbage(Broken):
    late = 3

    def deallocate(self, offset: int, size: int) -> None:
        super().deallocate(offset, size)
        if self.is_due():
            super().write(offset, b"\x55" * size)


def soak_on(medium: type[Broken], plan: Plan = PLAN, steps: int = 300) -> WrongData:
    """What a soak says of such a medium."""
    model = NvmeModel("nvme", rings="python", size="8M", mdts=3)
    (namespace,) = model.namespaces.all
    namespace.medium = medium(8 * MIB)
    with attach(model, Nvme) as nvme, pytest.raises(WrongData) as caught:
        Soak(nvme.controller, nvme.queues, nvme.namespaces[1], plan).run(1e6, steps=steps)
    return caught.value


BLOCK = r"first block \d+: expected (version \d+|zeroes), found "


@pytest.mark.parametrize(
    ("medium", "found"),
    [
        (
            FlipsABit,
            r"1 other bytes from byte 300 on, 0x\w\w and not 0x\w\w, with a wrong checksum",
        ),
        (LosesAWrite, r"version \d+ of block \d+|512 bytes 0x00"),
        (WritesElsewhere, r"version \d+ of block \d+|512 bytes 0x00"),
        (TearsAWrite, r"\d+ other bytes from byte 256 on, .* with a wrong checksum"),
        (ReadsOldData, r"version \d+ of block \d+|512 bytes 0x00"),
        (TrimsTooMuch, r"512 bytes 0x00"),
        (TrimsIntoGarbage, r"512 bytes 0x55"),
    ],
)
def test_it_finds(medium: type[Broken], found: str) -> None:
    error = soak_on(medium)
    assert re.search(BLOCK + f"({found})" + r" \(seed 7\)$", str(error))
    (note,) = error.__notes__
    assert re.fullmatch(
        r"worker 0, step \d+: [\w ]+; it repeats with seed 7, workers 1 and size 1048576", note
    )


def test_a_failure_repeats() -> None:
    first, second = soak_on(FlipsABit), soak_on(FlipsABit)
    assert (str(first), first.__notes__) == (str(second), second.__notes__)
    other = soak_on(FlipsABit, replace(PLAN, seed=8))
    assert "(seed 8)" in str(other)


def test_it_finds_bits_that_flip_under_the_rings_in_c() -> None:
    """Of a medium that the rings reach without Python, while four threads work on it."""
    model = NvmeModel("nvme", size="8M")
    (namespace,) = model.namespaces.all
    medium = namespace.medium

    def flip(done: int, total: int) -> None:
        assert (done >= 0, total) == (True, 0)
        for block in range(0, 8 * MIB, 512):
            medium.write(block + 96, b"wrong!!!")

    wrong = r"other bytes from byte \d+ on|says unequal"  # a read or a compare meets it first
    with attach(model, Nvme) as nvme, pytest.raises(WrongData, match=wrong):
        nvme.soak(seconds=60, seed=1, progress=flip)


def test_what_an_earlier_run_with_the_seed_has_left_hides_no_lost_write() -> None:
    model = NvmeModel("nvme", rings="python", size="8M", mdts=3)
    (namespace,) = model.namespaces.all
    medium = namespace.medium = LosesAWrite(8 * MIB)
    medium.late = -1
    with attach(model, Nvme) as nvme:
        first, second = (
            Soak(nvme.controller, nvme.queues, nvme.namespaces[1], PLAN) for _ in range(2)
        )
        first.run(1e6, steps=0)
        medium.late = medium._count + 2 * MIB // (32 << 10) - 3  # one of the last of the filling
        with pytest.raises(WrongData, match="found 512 bytes 0xff"):
            second.run(1e6, steps=0)


@pytest.mark.parametrize(
    ("opcode", "found"),
    [(Opcode.READ, r"found "), (Opcode.WRITE, r"found (version \d+ of block|512 bytes 0x00)")],
)
def test_it_finds_commands_that_are_only_said_to_be_done(opcode: Opcode, found: str) -> None:
    model = NvmeModel("nvme", rings="python", size="8M")
    model.faults.add(IoFault(Action.STATUS, opcode=opcode, after=40, status=Status.SUCCESS))
    with attach(model, Nvme) as nvme, pytest.raises(WrongData, match=found):
        nvme.soak(seconds=60, seed=1, workers=1, size=MIB)


@pytest.mark.parametrize("is_wrong", ["equal", "unequal"])
def test_it_finds_a_compare_that_lies(is_wrong: str) -> None:
    model = NvmeModel("nvme", rings="python", size="8M")
    status = Status.SUCCESS if is_wrong == "equal" else Status.COMPARE_FAILURE
    expected = rf"compare of \d+ blocks from block \d+ on says {is_wrong}, but they are"
    model.faults.add(IoFault(Action.STATUS, opcode=Opcode.COMPARE, status=status, count=0))
    with attach(model, Nvme) as nvme, pytest.raises(WrongData, match=expected):
        nvme.soak(seconds=60, seed=1, workers=1, size=MIB)


def test_an_error_of_a_command_ends_it_and_can_be_repeated() -> None:
    model = NvmeModel("nvme", rings="python", size="8M")
    fault = IoFault(Action.STATUS, Opcode.VERIFY, status=Status.UNRECOVERED_READ_ERROR)
    model.faults.add(fault)
    with attach(model, Nvme) as nvme:
        with pytest.raises(CommandError, match="verify") as caught:
            nvme.soak(seconds=60, seed=3, workers=2, size=MIB)
        (note,) = caught.value.__notes__
        assert re.match(r"worker \d, step \d+: verify; it repeats with seed 3, workers 2", note)
        assert nvme.soak(seconds=0.1, seed=3).seed == 3


def test_the_same_seed_does_the_same() -> None:
    facts = []
    for rings in ("python", "native"):
        with attach(NvmeModel("nvme", size="8M", rings=rings), Nvme) as nvme:
            soak = Soak(nvme.controller, nvme.queues, nvme.namespaces[1], Plan(5, 3, 3 * MIB))
            found = soak.run(1e6, steps=30)
            assert found.throughput == pytest.approx(
                (found.written + found.checked) / found.duration
            )
            facts.append(replace(found, duration=0.0, throughput=0.0))
    assert facts[0] == facts[1]
    assert min(facts[0].writes, facts[0].reads, facts[0].trims, facts[0].compares) > 0


def test_threads_have_regions_of_their_own_all_over_the_namespace() -> None:
    with attach(NvmeModel("nvme", size="8M", medium="memory"), Nvme) as nvme:
        disk = nvme.namespaces[1]
        disk.write(0, b"\xee" * (8 * MIB))
        nvme.soak(seconds=0.2, workers=3, size=3 * MIB)
        left = disk.read(0, disk.blocks).reshape(disk.blocks, 512)
        kept = (left == 0xEE).all(axis=1)
        changed = np.flatnonzero(np.diff(kept))
        assert (~kept).sum() == 3 * MIB // 512
        assert (kept[0], kept[-1], len(changed)) == (False, False, 4)


def test_it_gives_back_what_it_took() -> None:
    with attach(NvmeModel("nvme", size="8M"), Nvme) as nvme:
        for _ in range(30):  # of 64 queues, 12 at a time
            nvme.soak(seconds=0.01, size=MIB)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"seconds": 0}, "a soak takes a number of seconds above 0, not 0"),
        (
            {"workers": 0},
            "0 workers, which take 3 queues each; the controller has 64, enough for 21",
        ),
        ({"workers": 22}, "22 workers, which take 3 queues each"),
        ({"size": 2047}, "2047 bytes for 4 workers are less than a block of 512 bytes for each"),
        ({"seed": -1}, "a seed is 0 or more, not -1"),
        ({"namespace": 2}, "there is no namespace 2"),
    ],
)
def test_what_it_refuses(words: dict[str, Any], message: str) -> None:
    with (
        attach(NvmeModel("nvme", size="8M"), Nvme) as nvme,
        pytest.raises(RegisterValueError, match=message),
    ):
        nvme.soak(**words)


def test_deallocated_blocks_may_hold_three_things_but_not_change() -> None:
    with attach(NvmeModel("nvme", size="8M"), Nvme) as nvme:
        disk = nvme.namespaces[1]
        ledger = Ledger(disk, 0, 3, seed=1)
        old = ledger.renew(0, 3).copy()
        ledger.trim(0, 3)
        assert not ledger.is_certain(2, 1)
        seen = np.concatenate([old[:512], np.zeros(512, "u1"), np.full(512, 0xFF, "u1")])
        for _ in range(2):
            ledger.check(0, 3, seen)
        assert ledger.is_certain(0, 3)
        with pytest.raises(WrongData, match=r"block 1: expected zeroes, found version 1 of "):
            ledger.check(0, 3, old)


def test_a_block_says_what_it_is() -> None:
    lbas, versions = np.array([3, 3, 4, 9, 9], "u8"), np.array([1, 2, 1, 0, ONES], "u8")
    words = contents(lbas, versions, 512, seed=6).view("u8")
    assert not np.bitwise_xor.reduce(words, axis=1).any()
    assert (words[:3, 0] == lbas[:3]).all()
    assert (words[:3, 1] == versions[:3]).all()
    assert (words[3] == 0).all()
    assert (words[4] == ONES).all()
    middle = words[:3, 2:].ravel()
    assert len(set(middle.tolist())) == len(middle)
    assert not np.array_equal(contents(lbas, versions, 512, seed=7), words.view("u1"))


@pytest.fixture
def uspace() -> Callable[..., str]:
    def run(*words: str, code: int = 0) -> str:
        command = ["run", "nvme", "virtual:nvme?size=8M", "soak", *words]
        result = CliRunner().invoke(main, command, prog_name="uspace")
        assert result.exit_code == code, result.output
        return result.output

    return run


def test_on_the_command_line(uspace: Callable[..., str]) -> None:
    assert "seed        5" in uspace("--seconds", "0.1", "--seed", "5", "--yes")
    found = json.loads(uspace("--seconds", "0.1", "--yes", "--json"))["result"]
    assert found["checked"] >= 8 * MIB
    assert (
        found["seed"] != json.loads(uspace("--seconds", "0.1", "--yes", "--json"))["result"]["seed"]
    )
    assert "random data is written all over namespace 1" in uspace(code=2)


@pytest.fixture(params=[0.02])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A slow model in another process, at `tmp_path / "socket"`; the parameter is its latency."""
    model = f"nvme?size=8M&latency={request.param}"
    command = [sys.executable, "-P", "-m", "uspace_drv", "serve", model, f"{tmp_path}/socket"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline()
        yield server
        server.kill()


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What asyncio says of callbacks that raised something."""
    return [each.getMessage() for each in caplog.records if each.name == "asyncio"]


def test_a_server_that_dies_ends_it(
    server: subprocess.Popen[bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []

    def kill(done: int, _total: int) -> None:
        calls.append(done)
        if len(calls) == 10:
            server.kill()

    with pytest.raises(DeviceError) as caught, attach(f"vfio-user:{tmp_path}/socket", Nvme) as nvme:
        nvme.soak(seconds=60, seed=4, workers=8, size=MIB, progress=kill)
    assert "it repeats with seed 4" in " ".join(caught.value.__notes__)
    assert complaints(caplog) == []


@pytest.mark.parametrize("server", [1000.0], indirect=True)
def test_a_loop_that_waits_for_an_interrupt_hears_of_a_server_that_dies(
    server: subprocess.Popen[bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def kill_during_a_read(nvme: Nvme) -> None:
        read = asyncio.create_task(nvme.namespaces[1].aio.read(0, 1))
        while nvme.queues.of_loop()._watched is None:
            assert not read.done()
            await asyncio.sleep(0)
        server.kill()
        await asyncio.wait_for(read, 20)

    with pytest.raises(DeviceError), attach(f"vfio-user:{tmp_path}/socket", Nvme) as nvme:
        asyncio.run(kill_during_a_read(nvme))
    assert complaints(caplog) == []


def test_ctrl_c_ends_it() -> None:
    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with attach(NvmeModel("nvme", size="8M"), Nvme) as nvme:
        with pytest.raises(KeyboardInterrupt):
            nvme.soak(seconds=60, progress=interrupt)
        assert nvme.soak(seconds=0.1).checked >= 8 * MIB


def test_the_others_end_at_once_when_it_is_over() -> None:
    """Nothing is written that was not under way when the user, or an error, said that it ends."""
    with attach(NvmeModel("nvme", size="8M"), Nvme) as nvme:
        ledger = Ledger(nvme.namespaces[1], 0, 8 * MIB // 512, seed=1)
        answers = iter([False, False, True, True])
        ledger.begin(lambda: next(answers))
        assert set(nvme.namespaces[1].read(0, 2 * MIB // 512)) == {0xFF}
        assert not any(nvme.namespaces[1].read(2 * MIB // 512, 6 * MIB // 512))

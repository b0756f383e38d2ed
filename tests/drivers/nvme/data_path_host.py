"""A host that drives the model's queues by hand, byte by byte, whatever kind of rings it has."""

from __future__ import annotations

import ctypes
import mmap
import struct
import time
from collections.abc import Callable
from typing import Any, Self

from uspace_drivers.nvme.model import NvmeModel
from uspace_drv import Direction, Iova

PAGE = 4096
MEMORY = 0x10_0000
"""The IOVA of the host's memory."""

SIZE = 1 << 20
ADMIN_SQ, ADMIN_CQ, IO_CQ, IO_SQ, DATA = (MEMORY + n * PAGE for n in (0, 1, 2, 4, 16))
CC, CSTS, AQA, ASQ, ACQ = 0x14, 0x1C, 0x24, 0x28, 0x30
DOORBELLS = 0x1000
ENTRIES = 16
PATIENCE = 5.0
READ, WRITE, FLUSH, WRITE_ZEROES = 2, 1, 0, 8
CFS = 2


def command(opcode: int, **fields: int) -> bytes:
    """64 bytes; words are named as in the specification, and all others are 0."""
    raw = bytearray(64)
    places = {"flags": (1, "B"), "id": (2, "H"), "nsid": (4, "I"), "prp1": (24, "Q")}
    places |= {"prp2": (32, "Q"), "lba": (40, "Q")}
    places |= {f"cdw{n}": (4 * n, "I") for n in range(2, 16)}
    raw[0] = opcode
    for name, value in fields.items():
        offset, kind = places[name]
        struct.pack_into("<" + kind, raw, offset, value)
    return bytes(raw)


class Ring:
    """A submission and a completion queue of `entries`, as the host keeps them."""

    def __init__(self, host: Host, number: int, sq: int, cq: int, entries: int) -> None:
        self.number = number
        self.entries = entries
        self.tail = self.head = 0
        self.phase = 1
        self._host = host
        self._sq, self._cq = sq, cq

    def submit(self, *commands: bytes) -> None:
        """Put them in, and ring once."""
        for raw in commands:
            self._host.write(self._sq + 64 * self.tail, raw)
            self.tail = (self.tail + 1) % self.entries
        self.ring(self.tail)

    def ring(self, tail: int) -> None:
        """Write the submission queue's doorbell."""
        self._host.model.write_bar(0, DOORBELLS + 8 * self.number, 4, tail)

    def free(self, head: int) -> None:
        """Write the completion queue's doorbell."""
        self._host.model.write_bar(0, DOORBELLS + 8 * self.number + 4, 4, head)

    def peek(self) -> bytes | None:
        """The next completion, if it is there."""
        raw = self._host.read(self._cq + 16 * self.head, 16)
        return raw if raw[14] & 1 == self.phase else None

    def take(self, count: int = 1, *, frees: bool = True) -> list[bytes]:
        """Wait for that many completions, and free their entries."""
        taken: list[bytes] = []
        deadline = time.monotonic() + PATIENCE
        while len(taken) < count:
            raw = self.peek()
            if raw is None:
                assert time.monotonic() < deadline, f"{len(taken)} of {count} completions came"
                time.sleep(20e-6)
                continue
            taken.append(raw)
            self.head = (self.head + 1) % self.entries
            self.phase ^= self.head == 0
        if frees:
            self.free(self.head)
        return taken


class Host:
    """Enables a model and makes one I/O queue, with memory at `MEMORY`."""

    def __init__(self, rings: str, *, vector: int | None = None, **options: Any) -> None:
        self.model = NvmeModel("nvme", rings=rings, **options)
        self.memory = mmap.mmap(-1, SIZE)
        self._view = memoryview(self.memory)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.model.memory.map(self.address, SIZE, Iova(MEMORY), Direction.BOTH)
        self.model.config.write(0x04, 2, 6)
        self.admin = Ring(self, 0, ADMIN_SQ, ADMIN_CQ, ENTRIES)
        self.enable()
        self.io = self.make_queue(1, IO_SQ, IO_CQ, ENTRIES, vector)

    def enable(self) -> None:
        """Section 7.6.1."""
        self.admin = Ring(self, 0, ADMIN_SQ, ADMIN_CQ, ENTRIES)
        self.write(ADMIN_CQ, bytes(PAGE))
        write = self.model.write_bar
        write(0, AQA, 4, (ENTRIES - 1) << 16 | ENTRIES - 1)
        write(0, ASQ, 8, ADMIN_SQ)
        write(0, ACQ, 8, ADMIN_CQ)
        write(0, CC, 4, 4 << 20 | 6 << 16 | 1)
        assert self.status & 1

    @property
    def status(self) -> int:
        """CSTS."""
        return self.model.read_bar(0, CSTS, 4)

    def make_queue(
        self, number: int, sq: int, cq: int, entries: int, vector: int | None = None
    ) -> Ring:
        """Create both by admin commands."""
        self.write(cq, bytes(16 * entries))
        size = (entries - 1) << 16 | number
        flags = 1 if vector is None else vector << 16 | 3
        self.admin.submit(command(5, prp1=cq, cdw10=size, cdw11=flags))
        self.admin.submit(command(1, prp1=sq, cdw10=size, cdw11=number << 16 | 1))
        assert [entry[14] >> 1 for entry in self.admin.take(2)] == [0, 0]
        return Ring(self, number, sq, cq, entries)

    def read(self, iova: int, size: int) -> bytes:
        """What the host has in memory."""
        return bytes(self._view[iova - MEMORY : iova - MEMORY + size])

    def write(self, iova: int, data: bytes) -> None:
        """Put it there."""
        self._view[iova - MEMORY : iova - MEMORY + len(data)] = data

    def close(self) -> None:
        """Switch the model off."""
        self.model.close()
        self.model.memory.unmap_all()
        self._view.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def native(**options: Any) -> Host:
    """A model of 1 MiB with rings in C."""
    return Host("native", size="1M", **options)


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something that another thread does."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.0005)


def code(entry: bytes) -> int:
    """The status without the phase and what says whether to try again."""
    return int(struct.unpack_from("<H", entry, 14)[0] >> 1 & 0x7FF)


def read(number: int = 0, **fields: int) -> bytes:
    """A read of the first block."""
    return command(READ, **{"id": number, "nsid": 1, "prp1": DATA, **fields})


def forbid(host: Host) -> None:
    """Let Python execute nothing."""

    def refuse(submission: int, command: bytes) -> None:
        raise AssertionError(f"queue {submission}: {command.hex()} came to Python")

    host.model.execute = refuse

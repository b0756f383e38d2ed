"""A driver as small as can be for tests of the NVMe model: bytes in a page, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from uspace_drivers.nvme.model import NvmeModel
from uspace_drivers.nvme.spec.commands import AdminOpcode, Command, Completion, Opcode
from uspace_drivers.nvme.spec.identify import IdentifyController, IdentifyNamespace
from uspace_drivers.nvme.spec.status import CODE
from uspace_drv import Direction

BASE = 0x10_0000
"""The IOVA of all memory."""

SIZE = 0x20_0000
DATA = BASE + 0x10_0000
"""Where data is by default."""

CAP, VS, INTMS, INTMC, CC, CSTS, NSSR, AQA, ASQ, ACQ = (
    *(0x00, 0x08, 0x0C, 0x10, 0x14, 0x1C, 0x20, 0x24, 0x28, 0x30),
)
CMBLOC, CMBSZ, CMBMSC, CMBSTS = 0x38, 0x3C, 0x50, 0x58
ENABLE = 0x0046_0001
READY, FATAL = 1, 2


class Answer(NamedTuple):
    """A completion: `code` is the status without its flags."""

    id: int
    status: int
    result: int
    head: int = 0
    queue: int = 0

    @property
    def code(self) -> int:
        return self.status & CODE


@dataclass
class Pair:
    """A submission queue and its completion queue, as the driver sees them."""

    number: int
    submission: int
    completion: int
    entries: int
    tail: int = 0
    head: int = 0
    phase: int = 1


class Bench:
    """The model with 2 MiB of memory, and time held still."""

    address = 0

    def __init__(self, **options: Any) -> None:
        self.model = NvmeModel("nvme", **{"rings": "python", **options})
        self.model.clock.freeze()
        self.model.config.write(0x04, 2, 6)
        self.memory = bytearray(SIZE)
        self.model.memory.attach(BASE, SIZE, self, Direction.BOTH)
        self.pass_time = self.model.clock.advance
        self.pairs: dict[int, Pair] = {}
        self.next_id = 1
        self.others: list[Answer] = []

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self.memory[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        self.memory[offset : offset + len(data)] = data

    def get(self, offset: int, width: int = 4) -> int:
        return self.model.read_bar(0, offset, width)

    def set(self, offset: int, value: int, width: int = 4) -> None:
        self.model.write_bar(0, offset, width, value)

    def load(self, address: int, size: int) -> bytes:
        return self.read(address - BASE, size)

    def store(self, address: int, data: bytes) -> None:
        self.write(address - BASE, data)

    def enable(self, entries: int = 16) -> None:
        self.set(AQA, (entries - 1) << 16 | entries - 1)
        self.set(ASQ, BASE, 8)
        self.set(ACQ, BASE + 0x1000, 8)
        self.write(0, bytes(0x10000))
        self.pairs = {0: Pair(0, BASE, BASE + 0x1000, entries)}
        self.set(CC, ENABLE)
        assert self.get(CSTS) & (READY | FATAL) == READY

    def create_pair(
        self,
        number: int = 1,
        entries: int = 16,
        vector: int | None = None,
        place: int | None = None,
    ) -> Pair:
        """One completion queue and one submission queue, each in a page of its own or two."""
        submission = place or BASE + 0x2000 + (number - 1) * 0x2000
        pair = Pair(number, submission, submission + 0x1000, entries)
        create = (entries - 1) << 16 | number
        flags = 1 if vector is None else vector << 16 | 3
        for opcode, address, setup in (
            (AdminOpcode.CREATE_COMPLETION_QUEUE, pair.completion, flags),
            (AdminOpcode.CREATE_SUBMISSION_QUEUE, pair.submission, number << 16 | 1),
        ):
            answer = self.admin(opcode, prp1=address, cdw10=create, cdw11=setup)
            assert answer.status == 0, answer
        self.pairs[number] = pair
        return pair

    def put(self, queue: int, opcode: int, **fields: int) -> int:
        """Write a command to memory; its id."""
        pair = self.pairs[queue]
        command = Command.array(1)
        fields = {"id": self.next_id, "opcode": opcode, **fields}
        self.next_id = self.next_id + 1 & 0x7FFF
        for name, value in fields.items():
            command[name] = value
        self.store(pair.submission + 64 * pair.tail, command.tobytes())
        pair.tail = (pair.tail + 1) % pair.entries
        return fields["id"]

    def ring(self, queue: int) -> None:
        self.set(0x1000 + 8 * queue, self.pairs[queue].tail)

    def take(self, queue: int, rings: bool = True) -> list[Answer]:
        """The completions that are new."""
        pair = self.pairs[queue]
        found = []
        while True:
            raw = self.load(pair.completion + 16 * pair.head, 16)
            entry = np.frombuffer(raw, Completion.dtype)[0]
            if int(entry["status"]) & 1 != pair.phase:
                break
            result = int(entry["result"]) | int(entry["result_high"]) << 32
            found.append(
                Answer(
                    int(entry["id"]),
                    int(entry["status"]) >> 1,
                    result,
                    int(entry["head"]),
                    int(entry["queue"]),
                )
            )
            pair.head = (pair.head + 1) % pair.entries
            pair.phase ^= pair.head == 0
        if rings and found:
            self.set(0x1004 + 8 * queue, pair.head)
        return found

    def command(self, queue: int, opcode: int, **fields: int) -> Answer:
        """Do one command that completes at once; what else completes is kept in `others`."""
        number = self.put(queue, opcode, **fields)
        self.ring(queue)
        answers = {each.id: each for each in self.take(queue)}
        answer = answers.pop(number)
        self.others += answers.values()
        return answer

    def admin(self, opcode: int, **fields: int) -> Answer:
        return self.command(0, opcode, **fields)

    def identify(self, cns: int, namespace: int = 0) -> bytes:
        answer = self.admin(AdminOpcode.IDENTIFY, namespace=namespace, prp1=DATA, cdw10=cns)
        assert answer.status == 0, answer
        return self.load(DATA, 4096)

    def controller(self) -> Any:
        return np.frombuffer(self.identify(1), IdentifyController.dtype)[0]

    def namespace(self, number: int = 1) -> Any:
        return np.frombuffer(self.identify(0, number), IdentifyNamespace.dtype)[0]

    def log(self, page: int, size: int = 512, *, keeps_event: bool = False) -> bytes:
        select = (size // 4 - 1) << 16 | keeps_event << 15 | page
        answer = self.admin(AdminOpcode.GET_LOG_PAGE, prp1=DATA, cdw10=select)
        assert answer.status == 0, answer
        return self.load(DATA, size)

    def io(self, opcode: int, lba: int = 0, blocks: int = 1, **fields: int) -> Answer:
        """Do one I/O command on queue 1."""
        return self.command(1, opcode, **self.fields(lba, blocks, **fields))

    def fields(self, lba: int = 0, blocks: int = 1, **fields: int) -> dict[str, int]:
        """What a read or write has in its command."""
        usual = {
            "namespace": 1,
            "prp1": DATA,
            "prp2": DATA + 0x1000,
            "cdw10": lba & 0xFFFF_FFFF,
            "cdw11": lba >> 32,
            "cdw12": blocks - 1,
        }
        return usual | fields

    def write_blocks(self, lba: int, data: bytes) -> None:
        self.store(DATA, data)
        assert self.io(Opcode.WRITE, lba, len(data) // 512).status == 0

    def read_blocks(self, lba: int, blocks: int) -> bytes:
        self.store(DATA, bytes([0xEE]) * blocks * 512)
        assert self.io(Opcode.READ, lba, blocks).status == 0
        return self.load(DATA, blocks * 512)


def ready(**options: Any) -> Bench:
    """A bench whose controller is enabled and has I/O queue 1."""
    bench = Bench(**options)
    bench.enable()
    bench.create_pair()
    return bench

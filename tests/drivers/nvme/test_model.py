"""The NVMe model: registers, life cycle, queues, doorbells and interrupts (NVMe 1.4)."""

from __future__ import annotations

import struct

import pytest

from tests.drivers.nvme.model_bench import (
    ACQ,
    AQA,
    ASQ,
    BASE,
    CAP,
    CC,
    CMBLOC,
    CMBMSC,
    CMBSTS,
    CMBSZ,
    CSTS,
    DATA,
    ENABLE,
    FATAL,
    INTMC,
    INTMS,
    NSSR,
    READY,
    VS,
    Bench,
    Pair,
    ready,
)
from uspace_drivers.nvme.model import NvmeModel
from uspace_drivers.nvme.model.store.media import InMemory
from uspace_drivers.nvme.model.task import COMMAND, Sent
from uspace_drivers.nvme.spec.commands import AdminOpcode, Command, Opcode
from uspace_drivers.nvme.spec.status import Status
from uspace_drv import IrqKind, NoDevice

pytestmark = pytest.mark.usefixtures("nothing_left")

SHUTDOWN = 1 << 14
SHUT = 2 << 2
NSSRO = 1 << 4


def test_registers_after_a_reset() -> None:
    bench = Bench()
    assert bench.get(CAP, 8) == 0x30_0201_0FFF
    assert bench.get(CAP) | bench.get(CAP + 4) << 32 == bench.get(CAP, 8)
    assert bench.get(VS) == 0x0001_0400
    assert bench.get(CSTS) == bench.get(CC) == 0
    assert bench.get(0x1000) == bench.get(0xF00) == 0


def test_a_command_has_the_members_of_the_drivers_table() -> None:
    assert Sent._fields == tuple(Command.MEMBERS)
    assert COMMAND.size == Command.SIZE
    raw = bytes(range(64))
    assert tuple(Sent.parse(raw)) == Command.view(raw)[0].item()


def test_ready_follows_enable() -> None:
    bench = Bench()
    bench.enable()
    bench.set(CC, 0)
    assert bench.get(CSTS) == 0
    bench.enable()


@pytest.mark.parametrize(
    ("register", "value", "width"),
    [(ASQ, BASE + 4, 8), (ACQ, BASE + 8, 8), (AQA, 0x000F_0000, 4), (AQA, 0x0000_000F, 4)],
)
def test_wrong_admin_queues_are_fatal(register: int, value: int, width: int) -> None:
    bench = Bench()
    for place, usual, size in ((AQA, 0xF_000F, 4), (ASQ, BASE, 8), (ACQ, BASE + 0x1000, 8)):
        bench.set(place, usual, size)
    bench.set(register, value, width)
    bench.set(CC, ENABLE)
    assert bench.get(CSTS) & (READY | FATAL) == FATAL
    bench.set(CC, 0)
    assert bench.get(CSTS) == 0
    bench.enable()


@pytest.mark.parametrize("wrong", [1 << 4, 1 << 7, 1 << 11])
def test_wrong_configuration_is_fatal(wrong: int) -> None:
    bench = Bench()
    bench.set(AQA, 0xF_000F)
    bench.set(CC, ENABLE | wrong)
    assert bench.get(CSTS) & (READY | FATAL) == FATAL


def test_configuration_is_fixed_while_it_is_enabled() -> None:
    bench = ready()
    bench.set(CC, ENABLE | 1 << 7)
    assert bench.get(CC) == ENABLE
    assert bench.io(Opcode.FLUSH).status == 0


def test_a_stuck_ready_bit() -> None:
    bench = Bench()
    bench.model.is_ready_stuck = True
    bench.set(AQA, 0xF_000F)
    bench.set(CC, ENABLE)
    assert bench.get(CSTS) & READY == 0
    bench.model.is_ready_stuck = False
    bench.set(CC, 0)
    bench.enable()
    bench.model.is_ready_stuck = True
    bench.set(CC, 0)
    assert bench.get(CSTS) & READY


def test_shutdown_says_when_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = ready()
    flushed: list[InMemory] = []

    def flush(medium: InMemory) -> None:
        flushed.append(medium)

    monkeypatch.setattr(InMemory, "flush", flush)
    bench.set(CC, ENABLE | SHUTDOWN)
    assert flushed == [bench.model.namespaces.attached[0].medium]
    assert bench.get(CSTS) == READY | SHUT
    bench.put(0, AdminOpcode.IDENTIFY, cdw10=1, prp1=DATA)
    bench.ring(0)
    assert bench.take(0) == []
    bench.set(CC, 0)
    assert bench.get(CSTS) == 0
    bench.enable()


def test_subsystem_reset_says_that_it_was_one() -> None:
    bench = ready()
    bench.set(NSSR, 0x1234)
    assert bench.get(CSTS) == READY
    bench.set(NSSR, 0x4E56_4D65)
    assert bench.get(CSTS) == NSSRO
    assert bench.get(CC) == bench.get(AQA) == 0
    bench.enable()
    assert bench.get(CSTS) == NSSRO | READY
    bench.set(CSTS, NSSRO)
    assert bench.get(CSTS) == READY


def test_a_controller_reset_keeps_the_admin_registers() -> None:
    bench = ready()
    bench.set(CC, 0)
    assert (bench.get(AQA), bench.get(ASQ, 8)) == (0xF_000F, BASE)
    bench.model.reset()
    assert (bench.get(AQA), bench.get(ASQ, 8)) == (0, 0)


def test_all_ones_when_it_is_gone() -> None:
    bench = ready()
    bench.model.vanish()
    assert bench.get(CSTS) == 0xFFFF_FFFF
    assert bench.get(CAP, 8) == 0xFFFF_FFFF_FFFF_FFFF
    bench.model.is_gone = False
    bench.set(CC, 0)
    bench.enable()


def test_completions_go_round() -> None:
    bench = Bench()
    bench.enable(entries=3)
    heads = [bench.admin(AdminOpcode.KEEP_ALIVE).head for _ in range(7)]
    assert heads == [1, 2, 0, 1, 2, 0, 1]


def test_several_commands_with_one_doorbell() -> None:
    bench = ready()
    ids = [bench.put(1, Opcode.FLUSH, namespace=1) for _ in range(15)]
    bench.ring(1)
    answers = bench.take(1)
    assert [each.id for each in answers] == ids
    assert [each.head for each in answers] == list(range(1, 16))
    assert {each.queue for each in answers} == {1}


def test_a_full_completion_queue_holds_commands_back() -> None:
    bench = ready()
    bench.pairs[2] = wide = Pair(2, BASE + 0x8000, BASE + 0x9000, 16)
    create = AdminOpcode.CREATE_COMPLETION_QUEUE
    assert bench.admin(create, prp1=wide.completion, cdw10=3 << 16 | 2, cdw11=1).status == 0
    create = AdminOpcode.CREATE_SUBMISSION_QUEUE
    assert (
        bench.admin(create, prp1=wide.submission, cdw10=15 << 16 | 2, cdw11=2 << 16 | 1).code == 0
    )
    wide.entries = 16
    ids = [bench.put(2, Opcode.FLUSH, namespace=1) for _ in range(8)]
    bench.ring(2)
    wide.entries = 4  # from here on only its completions are looked at
    seen: list[tuple[int, int]] = []
    while batch := bench.take(2):
        assert len(batch) <= 3
        seen += [(each.id, each.head) for each in batch]
    assert seen == [(each, head) for head, each in enumerate(ids, 1)]


def test_queues_are_created_as_the_specification_says() -> None:
    bench = Bench()
    bench.enable()

    def completion(**fields: int) -> int:
        usual = {"prp1": BASE + 0x3000, "cdw10": 15 << 16 | 1, "cdw11": 1}
        return bench.admin(AdminOpcode.CREATE_COMPLETION_QUEUE, **usual | fields).code

    def submission(**fields: int) -> int:
        usual = {"prp1": BASE + 0x2000, "cdw10": 15 << 16 | 1, "cdw11": 1 << 16 | 1}
        return bench.admin(AdminOpcode.CREATE_SUBMISSION_QUEUE, **usual | fields).code

    assert submission() == Status.INVALID_COMPLETION_QUEUE
    assert completion(cdw10=15 << 16) == Status.INVALID_QUEUE_ID
    assert completion(cdw10=15 << 16 | 65) == Status.INVALID_QUEUE_ID
    assert completion(cdw10=1) == Status.INVALID_QUEUE_SIZE
    assert completion(cdw10=4096 << 16 | 1) == Status.INVALID_QUEUE_SIZE
    assert completion(cdw11=0) == Status.INVALID_FIELD
    assert completion(prp1=BASE + 0x3004) == Status.INVALID_PRP_OFFSET
    assert completion(cdw11=1 << 16 | 3) == Status.INVALID_INTERRUPT_VECTOR
    assert completion() == Status.SUCCESS
    assert completion() == Status.INVALID_QUEUE_ID
    assert submission(cdw11=2 << 16 | 1) == Status.INVALID_COMPLETION_QUEUE
    assert submission(cdw11=1) == Status.INVALID_COMPLETION_QUEUE
    assert submission(cdw11=1 << 16) == Status.INVALID_FIELD
    assert submission(cdw10=1) == Status.INVALID_QUEUE_SIZE
    assert submission() == Status.SUCCESS
    assert submission() == Status.INVALID_QUEUE_ID


def test_queues_are_deleted_in_order() -> None:
    bench = ready()
    assert bench.admin(AdminOpcode.DELETE_COMPLETION_QUEUE, cdw10=1).code == (
        Status.INVALID_QUEUE_DELETION
    )
    assert bench.admin(AdminOpcode.DELETE_SUBMISSION_QUEUE, cdw10=2).code == (
        Status.INVALID_QUEUE_ID
    )
    assert bench.admin(AdminOpcode.DELETE_SUBMISSION_QUEUE, cdw10=1).status == 0
    assert bench.admin(AdminOpcode.DELETE_COMPLETION_QUEUE, cdw10=1).status == 0
    assert bench.admin(AdminOpcode.DELETE_COMPLETION_QUEUE, cdw10=0).code == (
        Status.INVALID_QUEUE_ID
    )
    bench.create_pair()


def test_a_doorbell_that_is_wrong_is_an_event() -> None:
    bench = ready()
    wanted = bench.put(0, AdminOpcode.ASYNC_EVENT_REQUEST)
    bench.ring(0)
    bench.set(0x1000 + 8 * 5, 1)
    assert [(each.id, each.result) for each in bench.take(0)] == [(wanted, 0x0001_0000)]
    bench.put(0, AdminOpcode.ASYNC_EVENT_REQUEST)
    bench.ring(0)
    bench.set(0x1008, 16)
    assert bench.take(0) == []  # masked until the log page is read
    bench.set(0x1008, 17)  # the same once more, which is told once
    bench.put(0, AdminOpcode.ASYNC_EVENT_REQUEST)
    bench.log(1)
    assert [each.result for each in bench.others] == [0x0001_0100]
    bench.log(1)
    assert len(bench.others) == 1
    assert "there is no such queue" in bench.model.complaints[0]
    assert "it has 16 entries" in bench.model.complaints[1]


def test_a_completion_doorbell_cannot_pass_what_was_written() -> None:
    bench = ready()
    bench.set(0x100C, 1)
    assert "past the last entry" in bench.model.complaints[-1]
    assert bench.io(Opcode.FLUSH).status == 0


def test_a_queue_outside_of_memory_is_fatal() -> None:
    bench = Bench()
    for place, value, size in ((AQA, 0xF_000F, 4), (ASQ, 0x7000_0000, 8), (ACQ, BASE, 8)):
        bench.set(place, value, size)
    bench.set(CC, ENABLE)
    bench.set(0x1000, 1)
    assert bench.get(CSTS) & FATAL
    assert "submission queue 0 carried IOVA 0x70000000" in bench.model.complaints[-1]


def test_an_interrupt_pin_follows_what_is_left_to_take() -> None:
    bench = ready()
    line = bench.model.interrupts.line(IrqKind.INTX, 0)
    bench.create_pair(2, vector=0)
    line.take()
    line.unmask()
    assert line.take() == 0
    bench.put(2, Opcode.FLUSH, namespace=1)
    bench.ring(2)
    assert line.take() == 1
    line.unmask()
    assert line.take() == 1  # still asserted
    bench.take(2)
    line.unmask()
    assert line.take() == 0
    line.close()


def test_masks_hold_the_pin_back() -> None:
    bench = ready()
    line = bench.model.interrupts.line(IrqKind.INTX, 0)
    bench.set(INTMS, 1)
    assert bench.get(INTMS) == bench.get(INTMC) == 1
    bench.put(0, AdminOpcode.KEEP_ALIVE)
    bench.ring(0)
    assert line.take() == 0
    bench.set(INTMC, 1)
    assert line.take() == 1
    line.close()


def test_each_queue_has_its_message() -> None:
    bench = Bench()
    lines = [bench.model.interrupts.line(IrqKind.MSIX, number) for number in range(3)]
    bench.enable()
    bench.create_pair(1, vector=1)
    bench.create_pair(2, vector=2)
    for line in lines:
        line.take()
    bench.put(2, Opcode.FLUSH, namespace=1)
    bench.ring(2)
    assert [line.take() for line in lines] == [0, 0, 1]
    bench.io(Opcode.FLUSH)
    assert [line.take() for line in lines] == [0, 1, 0]
    for line in lines:
        line.close()


def test_shadow_doorbells() -> None:
    bench = ready(shadow=True)
    shadow, events = BASE + 0x8000, BASE + 0x9000
    config = AdminOpcode.DOORBELL_BUFFER_CONFIG
    assert bench.admin(config, prp1=shadow + 4, prp2=events).code == Status.INVALID_FIELD
    assert bench.admin(config, prp1=shadow, prp2=events).status == 0
    number = bench.put(1, Opcode.FLUSH, namespace=1)
    bench.store(shadow + 8, struct.pack("<I", bench.pairs[1].tail))
    bench.ring(1)
    assert [each.id for each in bench.take(1)] == [number]
    # An index equal to the tail: the driver has to ring for the next one.
    assert bench.load(events + 8, 4) == struct.pack("<I", bench.pairs[1].tail)
    assert bench.load(events + 12, 4) == struct.pack("<I", bench.pairs[1].head)
    bench.store(shadow + 8, struct.pack("<I", 99))
    bench.set(0x1008, 1)
    assert "99 is no entry" in bench.model.complaints[-1]


def test_no_shadow_doorbells_where_there_are_none() -> None:
    bench = ready()
    answer = bench.admin(AdminOpcode.DOORBELL_BUFFER_CONFIG, prp1=BASE, prp2=BASE)
    assert answer.code == Status.INVALID_OPCODE
    assert not bench.controller()["oacs"] >> 8 & 1


def test_a_controller_memory_buffer() -> None:
    bench = Bench(cmb="64K")
    assert bench.get(CAP, 8) >> 57 & 1
    assert bench.get(CMBLOC) == bench.get(CMBSZ) == 0
    bench.set(CMBMSC, 1, 8)
    assert bench.get(CMBLOC) & 7 == 4
    assert bench.get(CMBSZ) == 16 << 12 | 0x1F
    place = 0x8000_0000
    bench.set(CMBMSC, place | 3, 8)
    assert bench.get(CMBSTS) == 0
    bench.enable()
    bench.admin(AdminOpcode.IDENTIFY, prp1=place + 0x1000, cdw10=1)
    memory = bench.model.bar_memory(4)
    assert bytes(memory[0x1000 + 4 : 0x1000 + 14]) == b"USPACE0001"
    memory.release()
    bench.set(CMBMSC, BASE | 3, 8)
    assert bench.get(CMBSTS) == 1
    bench.set(CMBMSC, place | 3, 8)
    assert bench.get(CMBSTS) == 0
    bench.set(CC, 0)
    assert len(bench.model.memory.mappings) == 2
    bench.set(CMBMSC, 0, 8)
    assert bench.get(CMBLOC) == bench.get(CMBSZ) == 0
    assert len(bench.model.memory.mappings) == 1
    bench.set(CMBMSC, place | 3, 8)
    bench.model.reset()
    assert len(bench.model.memory.mappings) == 1
    bench.model.close()


@pytest.mark.parametrize(
    "options",
    [
        {"size": "many"},
        {"size": 1000},
        {"block_size": 1024},
        {"namespaces": 0},
        {"mdts": 40},
        {"latency": -1.0},
        {"latency": float("nan")},
        {"cmb": 12288},
        {"rings": "golden"},
    ],
)
def test_options_that_cannot_be(options: dict[str, str]) -> None:
    with pytest.raises(NoDevice, match=next(iter(options))):
        NvmeModel("nvme", **options)  # type: ignore[arg-type]


def test_options_as_text() -> None:
    model = NvmeModel.from_options("nvme", {"size": "1G", "medium": "discard", "shadow": "yes"})
    assert model.namespaces.attached[0].blocks == 1 << 21
    assert model.has_shadow

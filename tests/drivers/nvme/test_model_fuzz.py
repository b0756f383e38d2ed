"""The NVMe model answers whatever a driver sends: never an exception, never silence."""

from __future__ import annotations

import random

import pytest

from tests.drivers.nvme.model_bench import BASE, CC, CMBMSC, CSTS, DATA, FATAL, READY, Bench
from uspace_drivers.nvme.spec.commands import AdminOpcode, Opcode
from uspace_drivers.nvme.spec.identify import IdentifyController
from uspace_drivers.nvme.spec.status import Status, code_of

pytestmark = pytest.mark.usefixtures("nothing_left")

ADDRESSES = (DATA, DATA + 4, DATA + 0x1000, BASE + 0xF0FF8, 0, 1, 0x7000_0000, (1 << 64) - 1)
NUMBERS = (0, 1, 2, 3, 7, 0xF, 0xFF, 0x0100, 0xFFFF, 0x1_0000, 0xF_0001, 0xFFFF_FFFF, 1 << 31)
LASTING = {AdminOpcode.ASYNC_EVENT_REQUEST}


def command(chance: random.Random, opcode: int) -> dict[str, int]:
    """Fields that are likely to get somewhere, mixed with some that are not."""
    words = {f"cdw{n}": chance.choice(NUMBERS) for n in range(10, 16)}
    if chance.random() < 0.3:
        words["cdw10"] = chance.getrandbits(32)
    return {
        "opcode": opcode,
        "flags": chance.choice((0, 0, 0, 0x40, 0x80, 1)),
        "namespace": chance.choice((0, 1, 1, 1, 2, 3, 32, 33, 0xFFFF_FFFF)),
        "prp1": chance.choice(ADDRESSES),
        "prp2": chance.choice(ADDRESSES),
        **words,
    }


def restart(bench: Bench) -> None:
    bench.set(CC, 0)
    bench.enable()
    bench.create_pair()


@pytest.mark.parametrize("seed", range(8))
def test_any_command_is_completed_with_a_status_that_exists(seed: int) -> None:
    chance = random.Random(seed)
    bench = Bench(size=1 << 20, namespaces=2, shadow=True, sgl=True, cmb=4096, mdts=4)
    restart(bench)
    for _ in range(300):
        queue = chance.randrange(2)
        known: list[int] = [*AdminOpcode] if queue == 0 else [*Opcode]
        opcode = chance.choice(known) if chance.random() < 0.95 else chance.randrange(256)
        bench.store(DATA, chance.randbytes(64) if chance.random() < 0.5 else bytes(4096))
        fields = command(chance, opcode)
        number = bench.put(queue, **fields)
        bench.ring(queue)
        answers = {each.id: each for each in bench.take(queue)}
        status = bench.get(CSTS)
        if status & FATAL or opcode in {
            AdminOpcode.DOORBELL_BUFFER_CONFIG,
            AdminOpcode.DELETE_SUBMISSION_QUEUE,
            AdminOpcode.DELETE_COMPLETION_QUEUE,
        }:
            restart(bench)
            continue
        if queue or opcode not in LASTING:
            assert isinstance(code_of(answers[number].status), Status), fields
        assert status & READY
    restart(bench)
    assert len(bench.identify(1)) == IdentifyController.SIZE
    bench.model.close()


@pytest.mark.parametrize("seed", range(4))
def test_any_register_can_be_written(seed: int) -> None:
    chance = random.Random(seed)
    bench = Bench(size=1 << 20, cmb=4096)
    for _ in range(500):
        offset = chance.choice((*range(0, 0x60, 4), CMBMSC, CC, 0x1000, 0x1004, 0x1008, 0x2000))
        width = chance.choice((1, 2, 4, 4, 4, 8))
        if offset % width:
            continue
        value = chance.choice((0, 1, 0x0046_0001, chance.getrandbits(8 * width)))
        bench.set(offset, value & (1 << 8 * width) - 1, width)
        bench.get(offset, width)
    bench.model.reset()
    bench.model.config.write(0x04, 2, 6)
    bench.enable()
    bench.model.close()

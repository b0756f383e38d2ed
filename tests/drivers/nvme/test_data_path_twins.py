"""The data path in C and the rings in Python, on the same random commands: the same to the bit."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.drivers.nvme.data_path_host import DATA, MEMORY, PAGE, SIZE, Host, command
from uspace_drivers.nvme.model.model import NvmeModel

BLOCKS = 2048
"""Of 512 bytes."""

LISTS = DATA + 64 * PAGE
PAGES = [DATA + n * PAGE for n in range(24)]
BAD = [0, MEMORY - PAGE, MEMORY + SIZE - 512, DATA + 2, LISTS + 8, 1 << 63]
"""Not mapped, running off the end, or not where a page or a dword begins."""

addresses = st.sampled_from(PAGES) | st.sampled_from(BAD)
firsts = st.builds(
    lambda page, place: page + 4 * place, st.sampled_from(PAGES), st.integers(0, 1023)
)
opcodes = st.sampled_from([0, 1, 1, 1, 2, 2, 2, 5, 8, 9, 0x0C, 0x7F])
lists = st.sampled_from([LISTS, LISTS + PAGE - 16, LISTS + PAGE - 8, LISTS + 4, 0])
lbas = st.integers(0, 96) | st.sampled_from([BLOCKS - 1, BLOCKS, 1 << 40, (1 << 64) - 1])
controls = st.sampled_from([0, 0, 0, 1 << 30, 1 << 31, 1 << 25, 1 << 26, 1 << 20])

commands = st.builds(
    lambda opcode, flags, **words: (opcode, {"flags": flags} | words),
    opcodes,
    st.sampled_from([0, 0, 0, 0, 0, 0x40, 0x80, 0xC0, 1, 4]),
    nsid=st.sampled_from([1, 1, 1, 1, 2, 3, 0, 64, 0xFFFF_FFFF]),
    prp1=firsts | addresses,
    prp2=addresses | lists,
    lba=lbas,
    cdw12=st.builds(
        lambda blocks, bits: blocks | bits,
        st.integers(0, 40) | st.sampled_from([255, 256, 65535]),
        controls,
    ),
)


def run(rings: str, batches: list[list[tuple[int, dict[str, int]]]], **options: Any) -> list[Any]:
    """Everything that can be seen after some batches of commands."""
    seen: list[Any] = []
    with Host(rings, size=BLOCKS * 512, namespaces=2, mdts=3, **options) as host:
        host.write(DATA, bytes(n * 7 + (n >> 8) & 0xFF for n in range(64 * PAGE)))
        host.write(LISTS, struct.pack("<512Q", *(PAGES * 22)[:511], LISTS + PAGE))
        host.write(LISTS + PAGE, struct.pack("<512Q", *(PAGES[::-1] * 22)[:512]))
        number = 0
        for batch in batches:
            raws = []
            for opcode, words in batch:
                raws.append(command(opcode, id=number, **words))
                number += 1
            host.io.submit(*raws)
            seen += [entry.hex() for entry in host.io.take(len(raws))]
        seen.append(host.read(DATA, SIZE - (DATA - MEMORY)))
        media = [each.medium for each in host.model.namespaces.all]
        seen += [medium.read(0, medium.size) for medium in media]
        work = host.model.rings.take_work()
        host.model.health.add(work)
        seen.append(counters(host.model))
    return seen


def counters(model: NvmeModel) -> dict[str, Any]:
    """What the SMART log counts."""
    names = vars(model.health).items()
    return {name: value for name, value in names if isinstance(value, int) and name[0] != "_"}


@settings(max_examples=60, deadline=None)
@given(batches=st.lists(st.lists(commands, min_size=1, max_size=15), min_size=1, max_size=4))
def test_both_do_the_same(batches: list[list[tuple[int, dict[str, int]]]]) -> None:
    assert run("native", batches) == run("python", batches)


@settings(max_examples=25, deadline=None)
@given(batches=st.lists(st.lists(commands, min_size=1, max_size=15), min_size=1, max_size=3))
def test_both_do_the_same_with_sgls(batches: list[list[tuple[int, dict[str, int]]]]) -> None:
    assert run("native", batches, sgl=True) == run("python", batches, sgl=True)


@pytest.mark.parametrize("medium", ["discard", "file"])
@settings(max_examples=12, deadline=None)
@given(batches=st.lists(st.lists(commands, min_size=1, max_size=15), min_size=1, max_size=3))
def test_both_do_the_same_on_other_media(
    tmp_path_factory: pytest.TempPathFactory,
    medium: str,
    batches: list[list[tuple[int, dict[str, int]]]],
) -> None:
    found = []
    for rings in ("native", "python"):
        folder = tmp_path_factory.mktemp("media")
        kind = medium if medium == "discard" else str(folder / "medium")
        found.append(run(rings, batches, medium=kind))
    assert found[0] == found[1]

"""The verbs on any NVMe device: the model, in two ways, and QEMU's through VFIO and UIO.

They write to the first MiB of namespace 1, and put back what was there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from uspace_drivers.nvme import Nvme, NvmeModel
from uspace_drv.testing import Target
from uspace_drv.testing.pytest_plugin import parametrize_targets

MIB = 1 << 20


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize_targets(metafunc, "nvme_target", NvmeModel)


@pytest.fixture
def nvme(nvme_target: Target) -> Iterator[Nvme]:
    with nvme_target.attach(Nvme) as driver:
        yield driver


def test_what_it_says_agrees(nvme: Nvme) -> None:
    facts, health = nvme.identify(), nvme.smart()
    assert facts.version.split(".")[0] in {"1", "2"}
    assert facts.largest_namespace >= 1
    assert health.temperature is None or -20 < health.temperature < 100
    first = nvme.list()[0]
    details = nvme.identify(namespace=first.id)
    assert (details.size, details.format) == (first.size, first.format)
    assert first.size == first.blocks * first.block_size >= 4 * MIB
    assert first.format in details.formats


def test_files_go_in_and_come_out(nvme: Nvme, tmp_path: Path) -> None:
    before, source, copy = (tmp_path / name for name in ("before", "source", "copy"))
    kept = nvme.copy_out(before, size=MIB)
    assert kept is not None
    assert kept.size == before.stat().st_size == MIB
    size = MIB - 100
    content = bytearray(np.random.default_rng(1).bytes(size))
    content[256 << 10 : 768 << 10] = bytes(512 << 10)
    source.write_bytes(content)
    try:
        assert nvme.copy_in(source, pad=True).size == size
        nvme.copy_out(copy, size=size)
        assert copy.read_bytes() == content
    finally:
        nvme.copy_in(before)
    nvme.copy_out(copy, size=MIB)
    assert copy.read_bytes() == before.read_bytes()


def test_a_soak_finds_nothing_wrong(nvme: Nvme, tmp_path: Path) -> None:
    before = tmp_path / "before"
    nvme.copy_out(before, size=MIB)
    try:
        found = nvme.soak(seconds=2, seed=1, workers=1, size=MIB)
    finally:
        nvme.copy_in(before)
    assert found.checked >= MIB  # all of it at the end; before that, what there was time for


@pytest.mark.parametrize("depth", [1, 16])
def test_reads_can_be_measured(nvme: Nvme, depth: int) -> None:
    found = nvme.bench(depth=depth, seconds=0.2)
    assert found.commands >= 1
    assert 0 < found.p50 <= found.p999

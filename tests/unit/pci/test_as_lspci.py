"""What we read of configuration space is what lspci reads of the same bytes.

dumps/q35.txt is what Linux made of 35 functions of QEMU 11: PCI and PCI Express devices, virtio
old and new, SR-IOV, root ports, a switch, bridges to PCI. All that lspci prints must have a rule.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.pci.lspci.comparison import Comparison, compare
from tests.unit.pci.lspci.made_functions import as_dump, made_space
from tests.unit.pci.lspci.text import LSPCI, run_lspci
from uspace_drv.native import Window
from uspace_drv.pci.dump import read_dump

DUMPS = sorted((Path(__file__).parent / "dumps").glob("*.txt"))

pytestmark = pytest.mark.skipif(LSPCI is None, reason="needs lspci (Debian: pciutils)")


def compare_file(path: Path) -> list[Comparison]:
    """Compare each function in the dump."""
    theirs = run_lspci(path)
    ours = read_dump(path)
    assert list(theirs) == [str(address) for address in sorted(ours)]
    return [compare(str(address), config, theirs[str(address)]) for address, config in ours.items()]


def differences(found: list[Comparison]) -> str:
    """All of them, a line each."""
    return "\n".join(line for each in found for line in each.differences)


@pytest.mark.parametrize("path", DUMPS, ids=lambda path: path.stem)
def test_a_machine_of_qemu(path: Path) -> None:
    found = compare_file(path)
    assert not differences(found)
    assert all(each.compared > 20 for each in found)


@pytest.mark.parametrize("batch", range(8))
def test_random_bits_in_every_capability(batch: int, tmp_path: Path) -> None:
    path = tmp_path / "made.txt"
    path.write_text(as_dump([made_space(seed) for seed in range(batch * 27, batch * 27 + 27)]))
    found = compare_file(path)
    assert not differences(found)
    assert min(each.compared for each in found) > 250


def test_a_difference_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "made.txt"
    path.write_text(as_dump([made_space(4)]))
    (theirs,) = run_lspci(path).values()
    other = made_space(4)
    other[0x6C + 8] ^= 1  # Device Control: one bit
    found = compare("made", Window.over_buffer("made", other), theirs)
    assert len(found.differences) == 1
    assert "CorrErr" in found.differences[0]

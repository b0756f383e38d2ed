"""Configuration space read from what lspci printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from uspace_drv.errors import HostError, NoDevice
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.dump import parse_dump, read_dump

ROWS = "\n".join(f"{at:02x}: {' '.join([f'{at:02x}'] * 16)}" for at in range(0, 64, 16))


def test_functions_by_their_address() -> None:
    text = f"00:04.0 Some: name\n\tFlags: fast devsel\n{ROWS}\n\n0001:02:1f.7 Other\n{ROWS}\n"
    found = parse_dump(text)
    assert list(found) == [PciAddress(0, 0, 4, 0), PciAddress(1, 2, 0x1F, 7)]
    assert [found[each].size for each in found] == [64, 64]
    assert found[PciAddress(0, 0, 4, 0)].read32(0x10) == 0x10101010


def test_what_no_line_has_reads_as_ones() -> None:
    (config,) = parse_dump(f"00:04.0 name\n{ROWS}\n100: 01 02 03 04\n").values()
    assert config.size == 0x104
    assert config.read32(0x40) == 0xFFFF_FFFF
    assert config.read32(0x100) == 0x04030201


@pytest.mark.parametrize(
    "text",
    ["", "some text", ROWS, "00:04.0 name\n00: 01 02\n", "00:04.0 name\n00: zz\n"],
)
def test_what_is_no_header_is_left_out(text: str) -> None:
    assert parse_dump(text) == {}


def test_a_row_beyond_the_space_is_cut_off() -> None:
    (config,) = parse_dump(f"00:04.0 name\n{ROWS}\nffc: {'11 ' * 15}22\n").values()
    assert config.size == 0x1000
    assert config.read32(0xFFC) == 0x11111111


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"missing\.txt: cannot be read: No such file"):
        read_dump(tmp_path / "missing.txt")
    (tmp_path / "empty.txt").write_text("nothing")
    with pytest.raises(NoDevice, match="no configuration space of a function in it; expected"):
        read_dump(tmp_path / "empty.txt")

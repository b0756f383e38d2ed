"""Configuration space read from what lspci printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from uspace_drv.errors import HostError, NoDevice
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.dump import parse_dump, read_dump


def rows(size: int) -> str:
    """So many bytes of configuration space, each the offset of its row."""
    return "\n".join(
        f"{at:02x}: {' '.join([f'{at & 0xFF:02x}'] * 16)}" for at in range(0, size, 16)
    )


ROWS = rows(64)
WHOLE = f"00:04.0 name\n\tFlags: fast devsel\n{rows(256)}\n\n00:05.0 other\n{ROWS}\n"


def test_functions_by_their_address() -> None:
    text = f"00:04.0 Some: name\n\tFlags: fast devsel\n{ROWS}\n\n0001:02:1f.7 Other\n{ROWS}\n"
    found = parse_dump(text)
    assert list(found) == [PciAddress(0, 0, 4, 0), PciAddress(1, 2, 0x1F, 7)]
    assert [found[each].size for each in found] == [64, 64]
    assert found[PciAddress(0, 0, 4, 0)].read32(0x10) == 0x10101010


@pytest.mark.parametrize("size", [64, 128, 256, 768, 4096])
def test_what_lspci_prints_is_whole(size: int) -> None:
    (config,) = parse_dump(f"00:04.0 name\n{rows(size)}").values()
    assert config.size == size


@pytest.mark.parametrize("text", ["", "some text", "00:04.0 name\n", "00:04.0 name\nsome: text\n"])
def test_what_has_no_row_is_left_out(text: str) -> None:
    assert parse_dump(text) == {}


def test_capital_letters_and_spaces_at_the_end() -> None:
    text = f"00:04.0 name\n{ROWS}\n".replace("\n", " \r\n")
    (config,) = parse_dump(text.replace("30: 30", "30: AB")).values()
    assert config.read8(0x30) == 0xAB


ROW_10, ROW_50 = (f"{at:x}: {' '.join([f'{at:x}'] * 16)}" for at in (0x10, 0x50))


@pytest.mark.parametrize(
    ("old", "new", "line", "expected", "found"),
    [
        (f"{ROW_10}\n", "", 4, "16 bytes after 10:", "'20: 20 "),
        (ROW_10, "10:", 4, "16 bytes after 10:", "'10:'"),
        (ROW_10, ROW_10.replace(": 10", ": zz"), 4, "16 bytes after 10:", "'10: zz 10"),
        (ROW_10, ROW_10.replace("10 10", "1010"), 4, "16 bytes after 10:", "'10: 1010"),
        (ROW_10, ROW_10[:-3], 4, "16 bytes after 10:", "'10: 10 "),
        (ROW_10, f"{ROW_10} 10", 4, "16 bytes after 10:", "'10: 10 "),
        (ROW_10, f"x{ROW_10}", 4, "16 bytes after 10:", "'x10: 10 "),
        (f"{ROW_50}\n", "", 8, "16 bytes after 50:", "'60: 60 "),
        ("00: 00", "0x: 00", 4, "16 bytes after 00:", "'10: 10 "),
        ("00:05.0 other", "garbage", 20, "the address of another function", "'garbage'"),
        ("00:04.0 name", "garbage", 3, "the address of a function before", "'00: 00"),
    ],
)
def test_a_damaged_or_missing_row(old: str, new: str, line: int, expected: str, found: str) -> None:
    text = WHOLE.replace(old, new, 1)
    assert text != WHOLE
    with pytest.raises(HostError, match=rf"^a\.txt:{line}: expected ") as caught:
        parse_dump(text, Path("a.txt"))
    assert expected in str(caught.value)
    assert f", found {found}" in str(caught.value)
    assert str(caught.value).endswith("make it again: lspci -xxxx")


@pytest.mark.parametrize(
    ("kept", "line", "found"),
    [
        (8 * 52 - 20, 9, "'70: 70 70"),  # in the bytes of a row
        (7 * 52, 9, "the end of the file"),  # after 112 bytes: no lspci prints so many
        (7 * 52 + 1, 9, "'7'"),  # in an offset
    ],
)
def test_a_file_that_was_cut(kept: int, line: int, found: str) -> None:
    head = "00:04.0 name\n"
    text = (head + rows(256))[: len(head) + kept]
    with pytest.raises(HostError, match=rf":{line}: expected 16 bytes after 70:, found {found}"):
        parse_dump(text)


def test_no_more_than_there_can_be() -> None:
    expected = "dump:258: expected the address of another function, found '1000: 00"
    with pytest.raises(HostError, match=re.escape(expected)):
        parse_dump(f"00:04.0 name\n{rows(4112)}")


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"missing\.txt: cannot be read: No such file"):
        read_dump(tmp_path / "missing.txt")
    (tmp_path / "empty.txt").write_text("nothing")
    with pytest.raises(NoDevice, match="no configuration space of a function in it; expected"):
        read_dump(tmp_path / "empty.txt")
    (tmp_path / "cut.txt").write_text("00:04.0 name\n00: 01")
    with pytest.raises(HostError, match=r"cut\.txt:2: expected 16 bytes after 00:, found '00: 01'"):
        read_dump(tmp_path / "cut.txt")

"""Capability lists: decoded by the specification, and never led astray."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.pci.config_bytes import config_of, edu, nvme
from uspace_drv.native import Window
from uspace_drv.pci import capability_values as values
from uspace_drv.pci.capabilities import capabilities, find
from uspace_drv.pci.capability_registers import PortType

LIST = (0x06, "10 00")


def test_edu_has_msi() -> None:
    (msi,) = capabilities(edu())
    assert msi == values.Msi(5, 0x40, False, 1, 1, True, False)
    assert str(msi) == "[0x40] MSI: 1 vector(s), off, 64-bit address"


def test_nvme_standard_list() -> None:
    msix, express, power, *_ = capabilities(nvme())
    assert msix == values.Msix(0x11, 0x40, True, False, 65, 0, 0x2000, 0, 0x3000)
    link = values.Link(speed=3, width=4, max_speed=4, max_width=8)
    assert express == values.PciExpress(0x10, 0x80, 2, PortType.ENDPOINT, True, 128, 256, 512, link)
    assert power == values.PowerManagement(1, 0x60, 3, 3, True, False, ("D0", "D3hot"), True)
    assert "x4 at 8.0 GT/s of x8 at 16.0 GT/s" in str(express)
    assert "function level reset" in str(express)
    assert "wakes from D0 D3hot" in str(power)


def test_nvme_extended_list() -> None:
    aer, vendor, designated = capabilities(nvme())[3:]
    assert str(aer) == "[0x100] Advanced Error Reporting"
    assert vendor == values.ExtendedVendorSpecific(0xB, 0x148, 1, None, 0x123, 3, 0x14)
    assert designated == values.ExtendedVendorSpecific(0x23, 0x200, 1, 0x1E98, 8, 1, 0x38)
    assert str(designated).endswith("vendor 1e98, id 0x0008, revision 1, 56 bytes")


def test_find_takes_the_first_of_a_class() -> None:
    assert find(nvme(), values.Msix) == capabilities(nvme())[0]
    assert find(edu(), values.Msix) is None


def test_vendor_specific_keeps_its_bytes() -> None:
    # A virtio capability (virtio 1.2, section 4.1.4) for its common configuration.
    row = "09 00 10 01 00 00 00 00 00 00 00 00 38 00 00 00"
    (found,) = capabilities(config_of(0x100, LIST, (0x34, "40"), (0x40, row)))
    assert found == values.VendorSpecific(9, 0x40, bytes.fromhex(row))
    assert found.detail == "09001001 00000000 00000000 38000000"


def test_no_list_where_the_status_says_so() -> None:
    assert capabilities(config_of(0x100, (0x34, "40"), (0x40, "05 00 80 00"))) == []


def test_unknown_ids_are_shown_by_number() -> None:
    found = capabilities(config_of(0x200, LIST, (0x34, "40"), (0x40, "7e"), (0x100, "ee 0f 01")))
    assert [str(each) for each in found] == [
        "[0x40] capability 0x7e",
        "[0x100] extended capability 0x0fee",
    ]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([(0x34, "40"), (0x40, "03 50"), (0x50, "03 40")], "0x40 was in the list already"),
        ([(0x34, "20")], "0x20 is outside of the list"),
        ([(0x34, "40"), (0x40, "ff ff")], "all ones instead of a capability"),
        ([(0x34, "fc"), (0xFC, "11 00")], "MSI-X does not fit before its end"),
        ([(0x100, "01 00 01 10")], "0x100 was in the list already"),
        ([(0x100, "01 00 c1 ff")], "0xffc is outside of the list"),
        ([(0x100, "01 00 01 18"), (0x180, "ff ff ff ff")], "all ones instead of a capability"),
        ([(0x100, "01 00 c1 1f"), (0x1FC, "0b 00 01 00")], "Vendor-Specific does not fit"),
    ],
)
def test_broken_lists_end_with_the_reason(rows: list[tuple[int, str]], reason: str) -> None:
    broken = capabilities(config_of(0x200, LIST, *rows))
    broken = [each for each in broken if isinstance(each, values.BrokenList)]
    assert [reason in each.detail for each in broken] == [True]


def test_a_header_without_rights_shows_why_the_list_is_short() -> None:
    (broken,) = capabilities(config_of(0x40, LIST, (0x34, "40")))
    assert "0x40 bytes can be read" in str(broken)


def test_all_ones_in_place_of_extended_space_is_no_list() -> None:
    assert capabilities(config_of(0x1000, (0x100, "ff" * 0xF00))) == []


@given(st.binary(min_size=0x40, max_size=0x400), st.booleans())
def test_random_space_ends_without_an_exception(data: bytes, has_list: bool) -> None:
    space = bytearray(data)
    space[6] = 0x10 if has_list else space[6]
    found = capabilities(Window.over_buffer("random", space))
    assert all(str(each) for each in found)
    assert len(found) <= 48 + 0x300 // 4 + 2

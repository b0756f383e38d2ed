"""Capability lists: decoded by the specification, and never led astray."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.pci.config_bytes import config_of, edu, nvme
from tests.unit.pci.lspci.made_functions import made_space
from uspace_drv.native import Window
from uspace_drv.pci import capability_values as values
from uspace_drv.pci.capabilities import capabilities, find
from uspace_drv.pci.capability_words import describe
from uspace_drv.pci.express_registers import PortType

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
    assert "x4 at 8 GT/s of x8 at 16 GT/s" in str(express)
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


VIRTIO = (0x00, "f4 1a 41 10")


@pytest.mark.parametrize(
    ("row", "place", "size", "multiplier", "words"),
    [
        ("09 00 10 01 04 00 00 00 00 10 00 00 38 00 00 00", 0x1000, 0x38, None,
         "virtio's common configuration, in bar 4 at 0x1000, 0x38 bytes"),
        ("09 00 14 02 04 00 00 00 00 30 00 00 00 10 00 00 04 00 00 00", 0x3000, 0x1000, 4,
         "virtio's notifications, in bar 4 at 0x3000, 0x1000 bytes, multiplier 4"),
        ("09 00 18 08 02 01 00 00 00 00 00 00 00 00 00 10 01 00 00 00 02 00 00 00",
         0x1_0000_0000, 0x2_1000_0000, None,
         "virtio's shared memory, in bar 2 at 0x100000000, 0x210000000 bytes"),
    ],
)  # fmt: skip
def test_virtio(row: str, place: int, size: int, multiplier: int | None, words: str) -> None:
    # Virtio 1.2, section 4.1.4: cap_len, cfg_type, bar, id, offset, length, then by kind.
    (found,) = capabilities(config_of(0x100, VIRTIO, LIST, (0x34, "40"), (0x40, row)))
    assert isinstance(found, values.VirtioStructure)
    assert (found.place, found.size, found.multiplier) == (place, size, multiplier)
    assert found.detail == words
    assert found.data == bytes.fromhex(row)


def test_a_vendor_capability_too_short_for_virtio() -> None:
    row = "09 00 0c 01 00 00 00 00 00 00 00 00 38 00 00 00"
    (found,) = capabilities(config_of(0x100, VIRTIO, LIST, (0x34, "40"), (0x40, row)))
    assert type(found) is values.VendorSpecific


def test_virtio_that_does_not_fit() -> None:
    config = config_of(0x100, VIRTIO, LIST, (0x34, "f0"), (0xF0, "09 00 14 02"))
    assert [type(each) for each in capabilities(config)] == [values.BrokenList]


def test_summaries_of_the_extended_list() -> None:
    rows = (
        (0x100, "03 00 01 14 56 34 12 ff ff 00 54 52"),
        (0x140, "10 00 01 18 00 00 00 00 01 00 00 00 08 00 08 00 03 00"),
        (0x180, "15 00 01 00 f0 ff 00 00 20 08 00 00"),
    )
    serial, functions, bars = capabilities(config_of(0x1000, *rows))
    assert str(serial) == "[0x100] Device Serial Number: 52-54-00-ff-ff-12-34-56"
    assert str(functions).endswith("up to 8 virtual functions, on with 3")
    assert isinstance(functions, values.VirtualFunctions)
    assert [(each.name, each.offset) for each in bars.registers] == [
        ("bar_capability[0]", 0x184),
        ("bar_control[0]", 0x188),
    ]


def test_registers_that_only_some_functions_have() -> None:
    def names(port: PortType, version: int, slot: bool) -> set[str]:
        express = bytes((0x10, 0, port << 4 | version, slot)).hex()
        (found,) = capabilities(config_of(0x100, LIST, (0x34, "40"), (0x40, express)))
        return {each.name for each in found.registers}

    first = {"capabilities", "device_capabilities", "device_control", "device_status"}
    link = {"link_capabilities", "link_control", "link_status"}
    assert names(PortType.ROOT_COMPLEX_INTEGRATED_ENDPOINT, 1, slot=False) == first
    assert names(PortType.ENDPOINT, 1, slot=False) == first | link
    assert "slot_control" in names(PortType.DOWNSTREAM_PORT, 2, slot=True)
    assert {"root_status", "link_status_2"} <= names(PortType.ROOT_PORT, 2, slot=False)
    assert "root_status" in names(PortType.ROOT_COMPLEX_EVENT_COLLECTOR, 2, slot=False)


def test_errors_of_a_root_port_have_three_more_registers() -> None:
    express, errors = (0x40, "10 00 42 01"), (0x100, "01 00 02 00")
    root = capabilities(config_of(0x1000, LIST, (0x34, "40"), express, errors))[1]
    other = capabilities(config_of(0x1000, LIST, errors))[0]
    more = {each.name for each in root.registers} - {each.name for each in other.registers}
    assert more == {
        "root_error_command", "root_error_status", "err_cor_source", "err_fatal_nonfatal_source",
    }  # fmt: skip


def read_all(space: bytearray) -> int:
    """Read both lists and put everything into words; returns how many there are."""
    found = capabilities(Window.over_buffer("random", space))
    assert all(str(each) for each in found)
    for reading in (reading for each in found for reading in each.registers):
        assert isinstance(reading.value, int) or describe(reading.value)
    return len(found)


@given(st.binary(min_size=0x40, max_size=0x400), st.booleans())
def test_random_space_ends_without_an_exception(data: bytes, has_list: bool) -> None:
    space = bytearray(data)
    space[6] = 0x10 if has_list else space[6]
    assert read_all(space) <= 48 + 0x300 // 4 + 2


@given(
    st.integers(0, 200),
    st.integers(0x40, 0x1000),
    st.lists(st.tuples(st.integers(0, 0x3FF), st.integers(0, 255)), max_size=20),
)
@example(0, 0x7E, [])  # in the middle of the link's registers
@example(0, 0xCA, [])  # before the length of a vendor-specific capability
def test_lists_cut_off_and_changed_end_without_an_exception(
    seed: int, size: int, changes: list[tuple[int, int]]
) -> None:
    space = made_space(seed)
    for offset, value in changes:
        space[offset] = value
    assert read_all(space[:size]) <= 48 + 0xF00 // 4 + 2

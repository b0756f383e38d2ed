"""Device addresses as users write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uspace_drv.errors import NoDevice
from uspace_drv.pci.address import DeviceAddress, PciAddress, Scheme

ADDRESSES = st.builds(
    PciAddress,
    st.integers(0, 0xFFFF_FFFF),
    st.integers(0, 0xFF),
    st.integers(0, 0x1F),
    st.integers(0, 7),
)


@given(ADDRESSES)
def test_address_survives_the_round_trip(address: PciAddress) -> None:
    assert PciAddress.parse(str(address)) == address
    assert DeviceAddress.parse(str(address)).pci == address


def test_short_form_is_domain_zero() -> None:
    assert str(PciAddress.parse("00:04.0")) == "0000:00:04.0"
    assert PciAddress.parse("0001:AF:1f.7") == PciAddress(1, 0xAF, 0x1F, 7)


def test_addresses_are_in_bus_order() -> None:
    texts = ["0001:00:00.0", "0000:10:00.0", "0000:02:1f.0", "0000:02:02.1"]
    assert [str(a) for a in sorted(map(PciAddress.parse, texts))] == texts[::-1]


@pytest.mark.parametrize(
    "text", ["", "4", "00:04", "00:20.0", "00:04.8", "0:4.0", "zz:04.0", "0000:00:04.0 "]
)
def test_mistyped_pci_address_shows_the_form(text: str) -> None:
    with pytest.raises(NoDevice, match=r"as in 0000:00:04\.0"):
        PciAddress.parse(text)


def test_number_out_of_range_names_the_part() -> None:
    with pytest.raises(NoDevice, match="device 0x20; expected 0 to 0x1f"):
        PciAddress(0, 0, 0x20, 0)


@pytest.mark.parametrize(
    ("text", "scheme", "rest"),
    [
        ("00:04.0", Scheme.PCI, "0000:00:04.0"),
        ("pci:00:04.0", Scheme.PCI, "0000:00:04.0"),
        ("uio:uio0", Scheme.UIO, "uio0"),
        ("uio:regs@40000000, left", Scheme.UIO, "regs@40000000, left"),
        ("virtual:edu", Scheme.VIRTUAL, "edu"),
        ("vfio-user:/run/edu.sock", Scheme.VFIO_USER, "/run/edu.sock"),
    ],
)
def test_every_scheme(text: str, scheme: Scheme, rest: str) -> None:
    address = DeviceAddress.parse(text)
    assert (address.scheme, address.rest, address.parameters) == (scheme, rest, {})
    assert DeviceAddress.parse(str(address)) == address


def test_options_follow_a_question_mark() -> None:
    address = DeviceAddress.parse("virtual:edu?dma_bits=28&fault=late")
    assert address.parameters == {"dma_bits": "28", "fault": "late"}
    assert str(address) == "virtual:edu?dma_bits=28&fault=late"


@pytest.mark.parametrize("text", ["edu", "uio", "uio:", "virtual:", "vfio-user:", "usb:1-1", ""])
def test_mistyped_device_address_shows_the_forms(text: str) -> None:
    with pytest.raises(NoDevice, match=r"expected one of: 0000:00:04\.0.*virtual:edu"):
        DeviceAddress.parse(text)


@pytest.mark.parametrize("query", ["dma_bits", "=28", "a=1&a=2"])
def test_mistyped_option_is_named(query: str) -> None:
    with pytest.raises(NoDevice, match="is not NAME=VALUE"):
        DeviceAddress.parse(f"virtual:edu?{query}")


def test_only_pci_addresses_have_one() -> None:
    with pytest.raises(NoDevice, match="virtual:edu is not a PCI function"):
        _ = DeviceAddress.parse("virtual:edu").pci


@given(st.text())
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        address = DeviceAddress.parse(text)
    except NoDevice:
        return
    assert DeviceAddress.parse(str(address)) == address

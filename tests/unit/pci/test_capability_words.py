"""What numbers in capabilities mean, where lspci does not say it or says it otherwise."""

from __future__ import annotations

import pytest

from uspace_drv.pci import express_registers as express
from uspace_drv.pci import link_registers as links
from uspace_drv.pci import sharing_registers as sharing
from uspace_drv.pci.capability_words import WORDS, describe, mebibytes, nanoseconds, speed, watts


@pytest.mark.parametrize(
    ("value", "scale", "text"),
    [(25, 0, "25 W"), (250, 1, "25 W"), (1, 3, "0.001 W"), (0xEF, 0, "239 W"),
     (0xF0, 0, "250 W"), (0xFE, 0, "600 W"), (0xFF, 0, ">600 W"), (0xFF, 1, "25.5 W")],
)  # fmt: skip
def test_watts(value: int, scale: int, text: str) -> None:
    # PCI Express 6.0, section 7.5.3.9, Slot Power Limit Value.
    assert watts(value, scale) == text


def test_sizes_speeds_and_latencies() -> None:
    assert [mebibytes(n) for n in (0, 9, 10, 20, 43, 44)] == [
        "1 MiB", "512 MiB", "1 GiB", "1 TiB", "8 EiB", "reserved",
    ]  # fmt: skip
    assert [speed(n) for n in (0, 1, 6, 8)] == ["unknown", "2.5 GT/s", "64 GT/s", "unknown"]
    assert nanoseconds(3, 5) == f"{3 << 25} ns"
    assert nanoseconds(3, 6) == "reserved"


def test_larger_sizes_of_a_bar() -> None:
    said = describe(sharing.ResizableControl(larger_sizes=0b101, bar_size=28))
    assert said["larger_sizes"] == "256 TiB 1 PiB"
    assert said["bar_size"] == "256 TiB"


def test_a_gap_in_the_speeds_is_seen() -> None:
    said = describe(express.LinkCapabilities2(supported_link_speeds_vector=0b0101))
    assert said["supported_link_speeds_vector"] == "2.5/8 GT/s"


def test_bits_numbers_enums_and_pairs() -> None:
    said = describe(express.PciExpressCapabilities(device_port_type=4, interrupt_message_number=31))
    assert said == {
        "interrupt_message_number": "0x1f",
        "slot_implemented": "-",
        "device_port_type": "root port",
        "capability_version": "0",
    }
    assert describe(express.PciExpressCapabilities(0xF0))["device_port_type"] == "15 (unknown)"
    assert describe(links.Latency(latency_scale=2, latency_value=3))["latency"] == "3072 ns"


def test_every_number_has_words() -> None:
    for field, words in WORDS.items():
        numbers = {*range(min(1 << field.width, 0x400)), (1 << field.width) - 1}
        assert all(words(number) for number in numbers), field

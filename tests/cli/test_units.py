"""Numbers with units, as they are printed and as they are typed."""

from __future__ import annotations

from typing import Annotated

import click
import pytest

from uspace_drv.cli.units import to_size, unit_of, with_unit
from uspace_drv.verbs import Size, Unit


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0, "B", "0 B"),
        (1023, "B", "1023 B"),
        (1024, "B", "1.0 KiB"),
        (1 << 30, "B", "1.0 GiB"),
        (5 << 60, "B", "5.0 EiB"),
        (999, "B/s", "999 B/s"),
        (5e9, "B/s", "5.0 GB/s"),
        (0.0, "s", "0 s"),
        (1.2e-6, "s", "1.2 us"),
        (0.25, "s", "250 ms"),
        (3e-10, "s", "0.3 ns"),
        (3661.0, "s", "3,661 s"),
        (42, "C", "42 C"),
        (1_234_567, "/s", "1,234,567/s"),
        (1234.5678, "/s", "1,235/s"),
        (3.14159, "V", "3.14 V"),
    ],
)
def test_numbers_for_people(value: float, unit: str, expected: str) -> None:
    assert with_unit(value, unit) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4096", 4096),
        ("0x1000", 4096),
        ("4K", 4096),
        ("4 kib", 4096),
        ("64M", 64 << 20),
        ("0x10G", 16 << 30),
        ("2tb", 2 << 40),
    ],
)
def test_sizes_as_they_are_typed(text: str, expected: int) -> None:
    assert to_size(text) == expected


@pytest.mark.parametrize("text", ["", "K", "4X", "4.5K", "lots", "4KK"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a size like 4096, 4K or 1G"):
        to_size(text)


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (Size, "B"),
        (Size | None, "B"),
        (Annotated[float, "words", Unit("s")], "s"),
        (int, ""),
        (Annotated[int, "no unit"], ""),
    ],
)
def test_units_of_hints(hint: object, expected: str) -> None:
    assert unit_of(hint) == expected

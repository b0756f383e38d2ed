"""The kernel's own gpio-pci-idio-16 drives our model of the card; runs in a guest, by its name.

Each output of the card is wired to the input of the same number (Linux
Documentation/userspace-api/gpio/chardev.rst is how a program reaches the lines).
"""

from __future__ import annotations

import os
import re
import struct
from fcntl import ioctl
from pathlib import Path

import pytest
from periphery import GPIO

CARD = Path("/sys/bus/pci/devices/0000:00:11.0")
LINES = 16
GET_CHIP_INFO = 0x8044B401  # GPIO_GET_CHIPINFO_IOCTL: name[32], label[32], u32 lines


@pytest.fixture(scope="module")
def chip() -> str:
    assert (CARD / "driver").resolve().name == "pci-idio-16"
    (found,) = CARD.glob("gpiochip*")
    return f"/dev/{found.name}"


def interrupts() -> int:
    """Return how often the card has interrupted a processor, by the kernel's count."""
    (line,) = re.findall(rf".*\b{CARD.name}\n", Path("/proc/interrupts").read_text())
    return sum(int(word) for word in line.split()[1 : 1 + (os.cpu_count() or 1)])


def test_the_kernel_offers_its_lines(chip: str) -> None:
    with Path(chip).open("rb") as file:
        answer = ioctl(file, GET_CHIP_INFO, bytes(68))
        _, label, lines = struct.unpack("32s32sI", answer)
    assert label.rstrip(b"\0").decode() == CARD.name
    assert lines == 2 * LINES


@pytest.mark.parametrize("number", range(LINES))
def test_an_output_reaches_its_input(chip: str, number: int) -> None:
    with GPIO(chip, f"OUT{number}", "out") as output, GPIO(chip, f"IIN{number}", "in") as own:
        for value in (True, False, True, False):
            output.write(value)
            assert output.read() is value
            assert own.read() is value


def test_an_output_reaches_no_other_input(chip: str) -> None:
    with GPIO(chip, "OUT9", "high"):
        for number in range(LINES):
            with GPIO(chip, f"IIN{number}", "in") as line:
                assert line.read() is (number == 9)


@pytest.mark.parametrize("number", [0, 7, 8, 15])
def test_an_input_that_changes_interrupts(chip: str, number: int) -> None:
    with (
        GPIO(chip, f"OUT{number}", "low") as output,
        GPIO(chip, f"IIN{number}", "in", edge="both") as own,
    ):
        for edge in ("rising", "falling") * 5:
            before = interrupts()
            output.write(edge == "rising")
            assert own.poll(10.0)
            assert own.read_event().edge == edge  # type: ignore[attr-defined] # its stub has none
            # QEMU takes each access to a BAR for the end of an INTx: one more may follow.
            assert interrupts() > before


def test_an_output_that_stays_is_no_interrupt(chip: str) -> None:
    with GPIO(chip, "OUT3", "low") as output, GPIO(chip, "IIN3", "in", edge="both") as own:
        output.write(False)
        assert not own.poll(0.2)

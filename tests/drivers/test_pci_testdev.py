"""The driver for QEMU's PCI test device, on the model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from uspace_drivers.pci_testdev import PciTestdev, PciTestdevModel
from uspace_drivers.pci_testdev.driver import Outcome
from uspace_drv import DeviceError, attach
from uspace_drv.testing import CHECKS, Check, Target


@pytest.fixture
def testdev() -> Iterator[PciTestdev]:
    with attach(PciTestdevModel("testdev"), PciTestdev) as driver:
        yield driver


@pytest.mark.parametrize(
    ("bar", "number", "name"),
    [
        (0, 0, "mmio-no-eventfd"),
        (0, 1, "mmio-wildcard-eventfd"),
        (0, 2, "mmio-datamatch-eventfd"),
        (1, 0, "portio-no-eventfd"),
        (1, 1, "portio-wildcard-eventfd"),
        (1, 2, "portio-datamatch-eventfd"),
    ],
)
def test_every_write_is_counted(testdev: PciTestdev, bar: int, number: int, name: str) -> None:
    assert testdev.run(bar, number, writes=7) == Outcome(bar, name, 7, 7)


def test_a_test_that_is_not_there(testdev: PciTestdev) -> None:
    assert not testdev.start(1, 3)
    with pytest.raises(DeviceError, match="testdev: BAR 1 has no test 3"):
        testdev.run(1, 3)


def test_what_does_not_match_is_not_counted(testdev: PciTestdev) -> None:
    header, bar = testdev.headers[0], testdev.device.bar(0)
    for number, counted in ((0, 1), (1, 2)):
        testdev.start(0, number)
        offset = header.offset.read()
        bar.write8(offset, 0x01)
        bar.write8(offset, 0xFA)
        bar.write8(offset + 1, 0xFA)
        assert header.count.read() == counted


def test_header_can_be_read_in_any_width(testdev: PciTestdev) -> None:
    testdev.start(0, 2)
    bar = testdev.device.bar(0)
    assert bar.read32(0) == 0x0000_0102
    assert (bar.read16(4), bar.read8(8), bar.read8(0x10)) == (2050, 0xFA, ord("m"))


def test_large_bar_of_nothing() -> None:
    model = PciTestdevModel(membar=1 << 33)
    assert model.bar_list[2].size == 1 << 33
    model.config.write(0x18, 4, 0xFFFF_FFFF)
    model.config.write(0x1C, 4, 0xFFFF_FFFF)
    assert (model.config.read(0x18, 4), model.config.read(0x1C, 4)) == (0x0000_000C, 0xFFFF_FFFE)
    assert model.read_bar(2, 1 << 32, 4) == 0xFFFF_FFFF


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conforms(check: Check) -> None:
    check(PciTestdev, Target(model=PciTestdevModel))

"""The configuration header and its verbs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.pci.config_bytes import config_of, edu
from uspace_drv.pci import config as pci_config
from uspace_drv.pci.config import ConfigHeader
from uspace_drv.pci.ids import FunctionIds
from uspace_drv.registers import Window


def test_header_of_edu_reads_as_its_document_says() -> None:
    header = ConfigHeader(edu())
    assert pci_config.read_ids(edu()) == FunctionIds(0x1234, 0x11E8, 0x1AF4, 0x1100, 0x00FF00, 0x10)
    assert header.status.read().capabilities_list
    assert header.base_address[0].read().address << 4 == 0xFEA00000
    assert header.interrupt_pin.read() == 1
    assert header.interrupt_line.read() == 11
    assert header.capabilities_pointer.read() == 0x40


def test_offsets_are_those_of_the_specification() -> None:
    # PCI Express 6.0, figures 7-10 and 7-11.
    offsets = {entry.name: entry.offset for entry in ConfigHeader.registers()}
    expected = {"command": 4, "status": 6, "header_type": 0xE, "base_address[5]": 0x24}
    expected |= {"subsystem_id": 0x2E, "capabilities_pointer": 0x34, "interrupt_pin": 0x3D}
    assert offsets.items() >= expected.items()


def test_a_bridge_has_no_subsystem_in_its_header() -> None:
    bridge = config_of(
        0x100, (0x00, "36 1b 0c 00"), (0x08, "00 00 04 06 00 00 81 00"), (0x2C, "ff" * 4)
    )
    assert pci_config.read_ids(bridge) == FunctionIds(0x1B36, 0x000C, 0, 0, 0x060400, 0)
    assert ConfigHeader(bridge).header_type.read().multi_function_device


@pytest.mark.parametrize(
    ("verb", "mask"),
    [
        (pci_config.set_bus_master, 0x0004),
        (pci_config.set_memory_space, 0x0002),
        (pci_config.set_intx_disable, 0x0400),
    ],
)
def test_verbs_change_one_bit_of_the_command_register(
    verb: Callable[[Window, bool], None], mask: int
) -> None:
    config = edu()
    verb(config, True)
    assert config.read16(4) == 0x0103 | mask
    verb(config, False)
    assert config.read16(4) == 0x0103 & ~mask
    assert config.read16(6) == 0x0010


def test_all_ones_is_nobody() -> None:
    assert pci_config.is_present(edu())
    assert not pci_config.is_present(config_of(0x100, (0, "ff" * 0x100)))

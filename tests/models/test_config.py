"""Configuration space of a model, read by the same tables as a real one's."""

from __future__ import annotations

import pytest

from uspace_drv import IrqKind
from uspace_drv.models.config import ModelConfig, PciIdentity
from uspace_drv.native import Window
from uspace_drv.pci.capabilities import capabilities
from uspace_drv.pci.config import ConfigHeader, read_ids
from uspace_drv.pci.ids import FunctionIds

IDENTITY = PciIdentity(0x1234, 0x11E8, 0x010802, 0x10, 0x1AF4, 0x1100)


@pytest.fixture
def config() -> ModelConfig:
    return ModelConfig(IDENTITY, {0: 1 << 20, 2: 16}, {IrqKind.INTX: 1, IrqKind.MSI: 3})


@pytest.fixture
def window(config: ModelConfig) -> Window:
    return Window.over_calls("model config", config.size, config.read, config.write)


def test_header_says_who_it_is(window: Window) -> None:
    assert read_ids(window) == FunctionIds(0x1234, 0x11E8, 0x1AF4, 0x1100, 0x010802, 0x10)
    assert ConfigHeader(window).interrupt_pin.read() == 1


def test_identity_cannot_be_written(window: Window) -> None:
    before = [window.read32(offset) for offset in (0x00, 0x08, 0x2C, 0x34, 0x3C)]
    for offset in (0x00, 0x08, 0x2C, 0x34, 0x3C):
        window.write32(offset, 0xFFFF_FFFF)
    assert [window.read32(offset) for offset in (0x00, 0x08, 0x2C, 0x34, 0x3C)] == before


@pytest.mark.parametrize(("bar", "size"), [(0, 1 << 20), (2, 16), (1, 0)])
def test_bars_are_sized_by_writing_ones(window: Window, bar: int, size: int) -> None:
    """PCI Local Bus Specification 3.0, section 6.2.5.1."""
    window.write32(0x10 + 4 * bar, 0xFFFF_FFFF)
    assert -(window.read32(0x10 + 4 * bar) & ~0xF) & 0xFFFF_FFFF == size


def test_command_keeps_what_a_type_0_function_has(window: Window, config: ModelConfig) -> None:
    seen = [(window.read16(0x04), config.is_bus_master)]
    window.write16(0x04, 0xFFFF)
    seen.append((window.read16(0x04), config.is_bus_master))
    window.write8(0x04, 0x03)
    seen.append((window.read16(0x04), config.is_bus_master))
    assert seen == [(0, False), (0x0547, True), (0x0503, False)]


def test_msi_is_a_capability(window: Window) -> None:
    (msi,) = capabilities(window)
    assert msi.id == 0x05
    assert window.read16(0x42) == 0x0084  # 64-bit address; room for four, as three are no power


def test_msi_can_be_programmed(window: Window) -> None:
    window.write32(0x44, 0xFEE0_0FFF)
    window.write32(0x48, 0xFFFF_FFFF)
    window.write16(0x4C, 0xABCD)
    window.write16(0x42, 0xFFFF)
    assert (window.read32(0x44), window.read32(0x48)) == (0xFEE0_0FFC, 0xFFFF_FFFF)
    assert (window.read16(0x4C), window.read16(0x42)) == (0xABCD, 0x00F5)


def test_no_interrupts_no_pin_and_no_capability() -> None:
    config = ModelConfig(IDENTITY, {}, {})
    assert (config.read(0x3D, 1), config.read(0x06, 2), config.read(0x34, 1)) == (0, 0, 0)

"""Configuration space of a model, read by the same tables as a real one's."""

from __future__ import annotations

import pytest

from uspace_drv import IrqKind, LayoutError
from uspace_drv.models import (
    Area,
    Bar,
    BarKind,
    Msi,
    PciExpress,
    PowerManagement,
    VendorSpecific,
)
from uspace_drv.models.capabilities import Capability
from uspace_drv.models.config import ModelConfig, PciIdentity
from uspace_drv.native import Window
from uspace_drv.pci import capability_values as values
from uspace_drv.pci.capabilities import capabilities
from uspace_drv.pci.config import ConfigHeader, read_ids
from uspace_drv.pci.express_registers import PortType
from uspace_drv.pci.ids import FunctionIds

IDENTITY = PciIdentity(0x1234, 0x11E8, 0x010802, 0x10, 0x1AF4, 0x1100)


@pytest.fixture
def config() -> ModelConfig:
    bars = {0: Bar(size=1 << 20), 2: Bar(size=16)}
    return ModelConfig(IDENTITY, bars, {IrqKind.INTX: 1, IrqKind.MSI: 3})


@pytest.fixture
def window(config: ModelConfig) -> Window:
    return Window.over_calls("model config", config.size, config.read, config.write)


def test_header_says_who_it_is(window: Window) -> None:
    assert read_ids(window) == FunctionIds(0x1234, 0x11E8, 0x1AF4, 0x1100, 0x010802, 0x10)
    assert ConfigHeader(window).interrupt_pin.read() == 1


def test_identity_cannot_be_written(window: Window) -> None:
    before = [window.read32(offset) for offset in (0x00, 0x08, 0x2C, 0x34)]
    for offset in (0x00, 0x08, 0x2C, 0x34, 0x3C):
        window.write32(offset, 0xFFFF_FFFF)
    assert [window.read32(offset) for offset in (0x00, 0x08, 0x2C, 0x34)] == before
    assert window.read32(0x3C) == 0x0000_01FF  # the line is a note for the operating system


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


def window_on(config: ModelConfig) -> Window:
    return Window.over_calls("model config", config.size, config.read, config.write)


def test_every_capability_reads_as_it_was_declared() -> None:
    declared: list[Capability] = [
        PowerManagement(has_d2=True, keeps_state=True),
        PciExpress(port_type=PortType.LEGACY_ENDPOINT),
        VendorSpecific(b"\x01\x02\x03"),
        Msi(maskable=True),
    ]
    config = ModelConfig(IDENTITY, {0: Bar(size=4096)}, {IrqKind.MSI: 8, IrqKind.MSIX: 5}, declared)
    assert config.size == 4096
    assert capabilities(window_on(config)) == [
        values.PowerManagement(0x01, 0x40, 3, 0, False, True, (), True),
        values.PciExpress(
            0x10,
            0x48,
            2,
            PortType.LEGACY_ENDPOINT,
            True,
            128,
            128,
            512,
            values.Link(1, 1, 1, 1),
        ),
        values.VendorSpecific(0x09, 0x84, b"\x09\x8c\x06\x01\x02\x03"),
        values.Msi(0x05, 0x8C, False, 8, 1, True, True),
        values.Msix(0x11, 0xA4, False, False, 5, 0, 0, 0, 0),
    ]


@pytest.mark.parametrize(
    ("bar", "low", "high"),
    [
        (Bar(size=1 << 20), 0xFFF0_0000, 0),
        (Bar(size=16, kind=BarKind.PORTS), 0xFFFF_FFF1, 0),
        (Bar(size=1 << 20, kind=BarKind.MEMORY_64), 0xFFF0_0004, 0xFFFF_FFFF),
        (Bar(size=1 << 34, kind=BarKind.MEMORY_64, prefetchable=True), 0x0000_000C, 0xFFFF_FFFC),
    ],
)
def test_kind_and_size_of_a_bar_are_found_by_writing_ones(bar: Bar, low: int, high: int) -> None:
    window = window_on(ModelConfig(IDENTITY, {2: bar}, {}))
    window.write32(0x18, 0xFFFF_FFFF)
    window.write32(0x1C, 0xFFFF_FFFF)
    assert (window.read32(0x18), window.read32(0x1C)) == (low, high)
    window.write32(0x18, 0xE000_0000)
    assert window.read32(0x18) & ~0xF == 0xE000_0000 & low & ~0xF


@pytest.mark.parametrize("number", [-1, 6])
def test_bar_that_does_not_exist(number: int) -> None:
    with pytest.raises(LayoutError, match=f"BAR {number} .*a function has 0 to 5"):
        ModelConfig(IDENTITY, {number: Bar(size=16)}, {})


def test_last_bar_has_no_upper_half() -> None:
    with pytest.raises(LayoutError, match=r"BAR 5 \(memory, 64 bits\): a function has 0 to 5"):
        ModelConfig(IDENTITY, {5: Bar(size=16, kind=BarKind.MEMORY_64)}, {})


@pytest.mark.parametrize(
    ("kind", "count"),
    [(IrqKind.INTX, 2), (IrqKind.MSI, 33), (IrqKind.MSIX, 2049), (IrqKind.MSI, 0)],
)
def test_number_of_interrupts_is_limited(kind: IrqKind, count: int) -> None:
    with pytest.raises(LayoutError, match=f"{count} {kind.value} interrupts: expected 1 to"):
        ModelConfig(IDENTITY, {}, {kind: count})


def test_capability_without_its_interrupts() -> None:
    with pytest.raises(LayoutError, match="MSI is declared, but irqs has no msi"):
        ModelConfig(IDENTITY, {}, {}, [Msi()])


def test_list_that_is_too_long() -> None:
    with pytest.raises(LayoutError, match="does not fit into 0x100 bytes"):
        ModelConfig(IDENTITY, {}, {}, [VendorSpecific(bytes(100)), VendorSpecific(bytes(100))])


@pytest.mark.parametrize(("offset", "width"), [(0xFF, 2), (0x100, 1), (-1, 1), (0xFFFF, 4)])
def test_past_the_end_nothing_answers(config: ModelConfig, offset: int, width: int) -> None:
    config.write(offset, width, 0)
    assert config.read(offset, width) == (1 << 8 * width) - 1


def test_errors_are_cleared_by_ones(config: ModelConfig) -> None:
    config.set(ConfigHeader.status, 0x8010)
    config.write(0x06, 2, 0x0010)
    assert config.read(0x06, 2) == 0x8010
    config.write(0x06, 2, 0x8000)
    assert config.read(0x06, 2) == 0x0010


def test_reset_puts_back_what_was_declared(config: ModelConfig) -> None:
    before = bytes(config.read(offset, 1) for offset in range(config.size))
    for offset in range(0, config.size, 4):
        config.write(offset, 4, 0xFFFF_FFFF)
    config.reset()
    assert bytes(config.read(offset, 1) for offset in range(config.size)) == before


@pytest.mark.parametrize(
    "areas",
    [
        (Area(0x800, 0x1000),),
        (Area(0x1000, 0x800),),
        (Area(0x1000, 0),),
        (Area(0x1000, 0x2000), Area(0x2000, 0x1000)),
        (Area(0x4000, 0x1000),),
        (Area(-0x1000, 0x1000),),
    ],
)
def test_areas_of_memory_are_whole_pages_side_by_side(areas: tuple[Area, ...]) -> None:
    with pytest.raises(LayoutError, match=r"Area\(offset=.*"):
        Bar(size=0x4000, memory=areas)


def test_ports_are_no_memory() -> None:
    with pytest.raises(LayoutError, match="a BAR of I/O ports has no memory"):
        Bar(size=256, memory=(Area(0, 0x1000),), kind=BarKind.PORTS)
    with pytest.raises(LayoutError, match="from 4 up to 0x100"):
        Bar(size=512, kind=BarKind.PORTS)

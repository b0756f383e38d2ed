"""The header of configuration space as it was read: registers, BARs, a bridge's windows.

PCI Express Base Specification 6.0, sections 7.5.1.1 (common), 7.5.1.2 (type 0) and 7.5.1.3 (type 1,
bridges).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from uspace_drv.pci.capability_layouts import Part, Reading, read_part
from uspace_drv.pci.config import HEADER_SIZE, BaseAddress, ConfigHeader, RomAddress, Status
from uspace_drv.registers import Register, RegisterBlock, Window, array, bit, field, ro, rw, w1c

DEVICE, BRIDGE = 0, 1
"""Header layouts."""

_COMMON = {
    "vendor_id", "device_id", "command", "status", "class_revision", "cache_line_size",
    "latency_timer", "header_type", "bist", "capabilities_pointer", "interrupt_line",
    "interrupt_pin",
}  # fmt: skip
_ALL_ONES = 0xFFFF_FFFF


class BridgeControl(Register, width=16):
    """Bridge Control Register (section 7.5.1.3.10); from bit 8 on, conventional bridges only."""

    discard_timer_serr_enable = bit(11)
    discard_timer_status = bit(10)
    secondary_discard_timer = bit(9)
    primary_discard_timer = bit(8)
    fast_back_to_back_transactions_enable = bit(7)
    secondary_bus_reset = bit(6)
    master_abort_mode = bit(5)
    vga_16_bit_decode = bit(4)
    vga_enable = bit(3)
    isa_enable = bit(2)
    serr_enable = bit(1)
    parity_error_response_enable = bit(0)


class IoWindow(Register, width=8):
    """I/O Base and Limit Registers: steps of 4 KiB."""

    address = field(7, 4)
    type = field(3, 0, "1 for 32 bits, with an upper half")


class MemoryWindow(Register, width=16):
    """Memory Base and Limit Registers: steps of 1 MiB."""

    address = field(15, 4)
    type = field(3, 0, "1 for 64 bits, with an upper half; prefetchable memory only")


class BridgeHeader(RegisterBlock, size=HEADER_SIZE):
    """What the header of a bridge has in the place of a device's BARs and subsystem."""

    base_address = array(rw(0x10, BaseAddress), count=2, stride=4)
    primary_bus_number = rw(0x18, width=8)
    secondary_bus_number = rw(0x19, width=8)
    subordinate_bus_number = rw(0x1A, width=8)
    secondary_latency_timer = ro(0x1B, width=8)
    io_base = rw(0x1C, IoWindow)
    io_limit = rw(0x1D, IoWindow)
    secondary_status = w1c(0x1E, Status)
    memory_base = rw(0x20, MemoryWindow)
    memory_limit = rw(0x22, MemoryWindow)
    prefetchable_memory_base = rw(0x24, MemoryWindow)
    prefetchable_memory_limit = rw(0x26, MemoryWindow)
    prefetchable_base_upper = rw(0x28)
    prefetchable_limit_upper = rw(0x2C)
    io_base_upper = rw(0x30, width=16)
    io_limit_upper = rw(0x32, width=16)
    expansion_rom_base_address = rw(0x38, RomAddress)
    bridge_control = rw(0x3E, BridgeControl)


@dataclass(frozen=True)
class Bar:
    """A BAR by its register: where it is, not how large; `number` 6 is the expansion ROM."""

    number: int
    address: int
    is_io: bool = False
    is_wide: bool = False
    is_prefetchable: bool = False
    is_enabled: bool = True

    def __str__(self) -> str:
        name = "rom" if self.number == 6 else f"bar {self.number}"
        kind = "io ports" if self.is_io else "memory"
        kind += ", 64-bit" if self.is_wide else ""
        kind += ", prefetchable" if self.is_prefetchable else ""
        return f"{name}: {self.address:#x}, {kind}{'' if self.is_enabled else ', off'}"


@dataclass(frozen=True)
class BridgeRange:
    """Addresses that a bridge forwards to the bus behind it, `first` and `last` included."""

    kind: str
    first: int
    last: int

    def __str__(self) -> str:
        if self.first > self.last:
            return f"{self.kind}: nothing"
        return f"{self.kind}: {self.first:#x} to {self.last:#x}"


def is_bridge(config: Window) -> bool:
    """Whether it has the header of a bridge (type 1)."""
    return _layout(config) == BRIDGE


def read_header(config: Window) -> list[Reading]:
    """Read all registers of the header, in the order of their offsets.

    Of one that is neither a device's nor a bridge's (CardBus) those are read that all have.
    """
    found = read_part(config, 0, Part(ConfigHeader), config.size)
    if _layout(config) != DEVICE:
        found = [each for each in found if each.name in _COMMON]
    if is_bridge(config):
        found += read_part(config, 0, Part(BridgeHeader), config.size)
    return sorted(found, key=lambda each: each.offset)


def _layout(config: Window) -> int:
    return ConfigHeader(config).header_type.read().header_layout


def read_bars(config: Window) -> list[Bar]:
    """Read the BARs that hold anything, and the expansion ROM last."""
    if _layout(config) not in {DEVICE, BRIDGE}:
        return []
    bridge = is_bridge(config)
    block = BridgeHeader(config) if bridge else ConfigHeader(config)
    raw = [int(each.read()) for each in block.base_address]
    found = list(_bars([0 if number == _ALL_ONES else number for number in raw]))
    rom = (BridgeHeader if bridge else ConfigHeader)(config).expansion_rom_base_address.read()
    if rom and rom.raw != _ALL_ONES:
        found.append(Bar(6, rom.address << 11, is_enabled=rom.enable))
    return found


def _bars(raw: list[int]) -> Iterator[Bar]:
    numbers = iter(range(len(raw)))
    for number in numbers:
        low = BaseAddress(raw[number])
        is_wide = not low.io_space and low.type == 2 and number + 1 < len(raw)
        high = raw[next(numbers)] if is_wide else 0
        if low.io_space:
            yield Bar(number, low.raw & ~3, is_io=True)
        elif low.raw or high:
            address = high << 32 | low.address << 4
            yield Bar(number, address, is_wide=is_wide, is_prefetchable=low.prefetchable)


def read_ranges(config: Window) -> list[BridgeRange]:
    """Read what a bridge forwards: I/O ports, memory and prefetchable memory, in this order."""
    block = BridgeHeader(config)
    base, limit = block.io_base.read(), block.io_limit.read()
    upper = (block.io_base_upper.read(), block.io_limit_upper.read()) if base.type else (0, 0)
    ports = BridgeRange(
        "io ports",
        upper[0] << 16 | base.address << 12,
        upper[1] << 16 | limit.address << 12 | 0xFFF,
    )
    memory = _memory_range("memory", block.memory_base.read(), block.memory_limit.read(), (0, 0))
    low = block.prefetchable_memory_base.read()
    high = (block.prefetchable_base_upper.read(), block.prefetchable_limit_upper.read())
    prefetchable = _memory_range(
        "prefetchable memory",
        low,
        block.prefetchable_memory_limit.read(),
        high if low.type else (0, 0),
    )
    return [ports, memory, prefetchable]


def _memory_range(
    kind: str, base: MemoryWindow, limit: MemoryWindow, upper: tuple[int, int]
) -> BridgeRange:
    first = upper[0] << 32 | base.address << 20
    return BridgeRange(kind, first, upper[1] << 32 | limit.address << 20 | 0xFFFFF)

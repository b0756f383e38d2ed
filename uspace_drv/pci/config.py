"""The header of PCI configuration space, and the few verbs that everybody needs of it.

PCI Express Base Specification 6.0, section 7.5.1 (common and type 0 registers).
"""

from __future__ import annotations

from uspace_drv.pci.ids import FunctionIds
from uspace_drv.registers import Register, RegisterBlock, Window, array, bit, field, ro, rw, w1c

HEADER_SIZE = 0x40
CONFIG_SIZE = 0x100
EXTENDED_CONFIG_SIZE = 0x1000
NO_DEVICE = 0xFFFF
"""The vendor id that nobody has: what is read where no function answers."""


class Command(Register, width=16):
    """What the function may do (section 7.5.1.1.3)."""

    interrupt_disable = bit(10, "may not assert INTx")
    fast_back_to_back_transactions_enable = bit(9)
    serr_enable = bit(8)
    idsel_stepping = bit(7)
    parity_error_response = bit(6)
    vga_palette_snoop = bit(5)
    memory_write_and_invalidate = bit(4)
    special_cycle_enable = bit(3)
    bus_master_enable = bit(2, "may reach memory and send MSI")
    memory_space_enable = bit(1, "answers in its memory BARs")
    io_space_enable = bit(0, "answers in its I/O BARs")


class Status(Register, width=16):
    """What happened (section 7.5.1.1.4); the errors are cleared by writing ones."""

    detected_parity_error = bit(15)
    signaled_system_error = bit(14)
    received_master_abort = bit(13)
    received_target_abort = bit(12)
    signaled_target_abort = bit(11)
    devsel_timing = field(10, 9)
    master_data_parity_error = bit(8)
    fast_back_to_back_transactions_capable = bit(7)
    user_definable_features = bit(6, "PCI 2.1 only")
    mhz_66_capable = bit(5)
    capabilities_list = bit(4, "the capabilities pointer means something")
    interrupt_status = bit(3, "an INTx is pending")
    immediate_readiness = bit(0)


class ClassRevision(Register):
    """Class code (base class, sub-class, interface) and revision (sections 7.5.1.1.5 and 6)."""

    class_code = field(31, 8)
    revision_id = field(7, 0)


class HeaderType(Register, width=8):
    """What the rest of the header looks like (section 7.5.1.1.9)."""

    multi_function_device = bit(7)
    header_layout = field(6, 0, "0 for a device, 1 for a bridge")


class BaseAddress(Register):
    """A BAR (section 7.5.1.2.1); `address` counts in 16 bytes and is for memory."""

    address = field(31, 4)
    prefetchable = bit(3)
    type = field(2, 1, "0 for 32 bits, 2 for 64 bits with the next BAR")
    io_space = bit(0)


class RomAddress(Register):
    """Expansion ROM Base Address Register (section 7.5.1.2.4); `address` counts in 2 KiB."""

    address = field(31, 11)
    enable = bit(0, "the function answers there, if it does in memory at all")


class ConfigHeader(RegisterBlock, size=HEADER_SIZE):
    """The header of a device (type 0); a bridge has its first 0x10 bytes and the last 12 alike."""

    vendor_id = ro(0x00, width=16)
    device_id = ro(0x02, width=16)
    command = rw(0x04, Command)
    status = w1c(0x06, Status)
    class_revision = ro(0x08, ClassRevision)
    cache_line_size = rw(0x0C, width=8)
    latency_timer = ro(0x0D, width=8)
    header_type = ro(0x0E, HeaderType)
    bist = rw(0x0F, width=8)
    base_address = array(rw(0x10, BaseAddress), count=6, stride=4)
    cardbus_cis_pointer = ro(0x28)
    subsystem_vendor_id = ro(0x2C, width=16)
    subsystem_id = ro(0x2E, width=16)
    expansion_rom_base_address = rw(0x30, RomAddress)
    capabilities_pointer = ro(0x34, width=8)
    interrupt_line = rw(0x3C, width=8)
    interrupt_pin = ro(0x3D, "0 for none, 1 to 4 for INTA to INTD", width=8)
    min_gnt = ro(0x3E, width=8)
    max_lat = ro(0x3F, width=8)


def is_present(config: Window) -> bool:
    """Whether a function answers: all ones is what the bus reads where there is none."""
    return config.read16(ConfigHeader.vendor_id.offset) != NO_DEVICE


def read_ids(config: Window) -> FunctionIds:
    """Read who the function is; a bridge has no subsystem in its header, so it reads as 0."""
    header = ConfigHeader(config)
    has_subsystem = header.header_type.read().header_layout == 0
    kind = header.class_revision.read()
    return FunctionIds(
        header.vendor_id.read(),
        header.device_id.read(),
        header.subsystem_vendor_id.read() if has_subsystem else 0,
        header.subsystem_id.read() if has_subsystem else 0,
        kind.class_code,
        kind.revision_id,
    )


def set_bus_master(config: Window, on: bool) -> None:
    """Let the function reach memory and send MSI, or stop both."""
    ConfigHeader(config).command.update(bus_master_enable=on)


def set_memory_space(config: Window, on: bool) -> None:
    """Let the function answer in its memory BARs, or not."""
    ConfigHeader(config).command.update(memory_space_enable=on)


def set_intx_disable(config: Window, on: bool) -> None:
    """Keep the function from asserting INTx (`on`), or let it."""
    ConfigHeader(config).command.update(interrupt_disable=on)

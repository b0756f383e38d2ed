"""Configuration space of a model: the header and the capabilities that it declares.

PCI Local Bus Specification 3.0, section 6.1 (header) and 6.8 (MSI, MSI-X).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from uspace_drv.pci.config import CONFIG_SIZE, BaseAddress, Command, ConfigHeader, Status
from uspace_drv.port import IrqKind
from uspace_drv.registers import Declaration

FIRST_CAPABILITY = 0x40
COMMAND_WRITABLE = Command(
    interrupt_disable=True,
    serr_enable=True,
    parity_error_response=True,
    bus_master_enable=True,
    memory_space_enable=True,
    io_space_enable=True,
)
MSI = 0x05
MSI_64_BITS = 0x0080
MSI_CONTROL_WRITABLE = 0x0071
MSI_ADDRESS_WRITABLE = 0xFFFF_FFFC


@dataclass(frozen=True)
class PciIdentity:
    """Who the function says it is; `class_code` has three bytes."""

    vendor: int
    device: int
    class_code: int = 0x00FF00
    revision: int = 0
    subvendor: int = 0
    subdevice: int = 0


class ModelConfig:
    """256 bytes that read as the header and capabilities, of which some bits can be written."""

    size = CONFIG_SIZE

    def __init__(
        self, identity: PciIdentity, bar_sizes: Mapping[int, int], irqs: Mapping[IrqKind, int]
    ) -> None:
        self._data = bytearray(self.size)
        self._writable = bytearray(self.size)
        self._put_header(identity, bar_sizes)
        if IrqKind.INTX in irqs:
            self._put(ConfigHeader.interrupt_pin, 1)
        if IrqKind.MSI in irqs:
            self._put_msi(irqs[IrqKind.MSI])

    @property
    def is_bus_master(self) -> bool:
        """Whether the function may reach memory and send messages."""
        command = ConfigHeader.command
        return command.decode(self.read(command.offset, 2)).bus_master_enable

    def read(self, offset: int, width: int) -> int:
        """What `width` bytes hold."""
        return int.from_bytes(self._data[offset : offset + width], "little")

    def write(self, offset: int, width: int, value: int) -> None:
        """Change the bits that can be written, and no others."""
        for place, byte in enumerate(value.to_bytes(width, "little"), offset):
            mask = self._writable[place]
            self._data[place] = self._data[place] & ~mask | byte & mask

    def _put(self, register: Declaration[Any, Any], raw: int, *, writable: int = 0) -> None:
        place = slice(register.offset, register.offset + register.width // 8)
        self._data[place] = raw.to_bytes(register.width // 8, "little")
        self._writable[place] = writable.to_bytes(register.width // 8, "little")

    def _put_header(self, identity: PciIdentity, bar_sizes: Mapping[int, int]) -> None:
        kind = identity.class_code << 8 | identity.revision
        self._put(ConfigHeader.vendor_id, identity.vendor)
        self._put(ConfigHeader.device_id, identity.device)
        self._put(ConfigHeader.command, 0, writable=COMMAND_WRITABLE.raw)
        self._put(ConfigHeader.class_revision, kind)
        self._put(ConfigHeader.subsystem_vendor_id, identity.subvendor)
        self._put(ConfigHeader.subsystem_id, identity.subdevice)
        for number, size in bar_sizes.items():
            # No bus assigns addresses here; the bits below the size are what sizing would find.
            address = BaseAddress(-size & 0xFFFF_FFF0)
            self._put(ConfigHeader.base_address[number], 0, writable=address.raw)

    def _put_msi(self, count: int) -> None:
        """A capability with 64-bit address (section 6.8.1)."""
        self._put(ConfigHeader.status, Status(capabilities_list=True).raw)
        self._put(ConfigHeader.capabilities_pointer, FIRST_CAPABILITY)
        control = MSI_64_BITS | (count - 1).bit_length() << 1
        struct.pack_into("<BBH", self._data, FIRST_CAPABILITY, MSI, 0, control)
        struct.pack_into(
            "<HIIH",
            self._writable,
            FIRST_CAPABILITY + 2,
            MSI_CONTROL_WRITABLE,
            MSI_ADDRESS_WRITABLE,
            0xFFFF_FFFF,
            0xFFFF,
        )

"""Capabilities that a model declares: what each puts into configuration space.

PCI Express Base Specification 6.0: power management 7.5.2, PCI Express 7.5.3, MSI 7.7.1,
MSI-X 7.7.2, vendor-specific 7.9.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from uspace_drv.models.space import Space
from uspace_drv.pci import capability_registers as regs
from uspace_drv.pci import express_registers as express
from uspace_drv.pci.capability_names import CapabilityId
from uspace_drv.port import IrqKind

HEADER_SIZE = 2
MSI_MOST = 32
MSIX_MOST = 2048


class Capability(Protocol):
    """A capability of the standard list."""

    @property
    def id(self) -> CapabilityId:
        """Its number."""

    @property
    def size(self) -> int:
        """Bytes, the header included."""

    def build(self, space: Space, base: int, irqs: Mapping[IrqKind, int]) -> None:
        """Put everything but the header at `base`."""


@dataclass(frozen=True)
class PowerManagement:
    """Power states D0 and D3hot, and D1 and D2 where declared.

    `keeps_state`: what the registers hold survives D3hot; without it the way back is a reset.
    """

    has_d1: bool = False
    has_d2: bool = False
    keeps_state: bool = False

    id = CapabilityId.POWER_MANAGEMENT
    size = regs.PowerManagementRegisters.SIZE

    def build(self, space: Space, base: int, irqs: Mapping[IrqKind, int]) -> None:
        """Version 3; no PME."""
        block = regs.PowerManagementRegisters
        can = regs.PowerManagementCapabilities(
            version=3, d1_support=self.has_d1, d2_support=self.has_d2
        )
        status = regs.PowerManagementStatus(no_soft_reset=self.keeps_state)
        space.put(block.capabilities, can, base=base)
        state = regs.PowerManagementStatus(power_state=3)
        space.put(block.status, status, writable=state, base=base)

    def has_state(self, state: int) -> bool:
        """Whether D`state` exists."""
        return (True, self.has_d1, self.has_d2, True)[state]


@dataclass(frozen=True)
class Msi:
    """MSI with a 64-bit address, as many vectors as `irqs` says; `maskable` one by one."""

    maskable: bool = False

    id = CapabilityId.MSI

    @property
    def size(self) -> int:
        """Without masks the last two registers are not there."""
        block = regs.Msi64Registers
        return block.SIZE if self.maskable else block.message_data.offset + 2

    def build(self, space: Space, base: int, irqs: Mapping[IrqKind, int]) -> None:
        """Off, and all vectors unmasked."""
        block, count = regs.Msi64Registers, irqs[IrqKind.MSI]
        control = regs.MsiControl(
            per_vector_masking_capable=self.maskable,
            address_64_capable=True,
            multiple_message_capable=(count - 1).bit_length(),
        )
        writable = regs.MsiControl(msi_enable=True, multiple_message_enable=7)
        space.put(block.control, control, writable=writable, base=base)
        space.put(block.message_address, 0, writable=0xFFFF_FFFC, base=base)
        space.put(block.message_upper_address, 0, writable=0xFFFF_FFFF, base=base)
        space.put(block.message_data, 0, writable=0xFFFF, base=base)
        if self.maskable:
            space.put(block.mask_bits, 0, writable=(1 << count) - 1, base=base)
            space.put(block.pending_bits, 0, base=base)


@dataclass(frozen=True)
class Msix:
    """MSI-X, as many vectors as `irqs` says; where its table and its pending bits are.

    Without a `bar` the kit makes one for them. Offsets in bytes, multiples of 8; without `pending`
    the pending bits follow the table.
    """

    bar: int | None = None
    table: int = 0
    pending: int | None = None

    id = CapabilityId.MSIX
    size = regs.MsixRegisters.SIZE

    def build(self, space: Space, base: int, irqs: Mapping[IrqKind, int]) -> None:
        """Off, and the function not masked."""
        block, count = regs.MsixRegisters, irqs[IrqKind.MSIX]
        control = regs.MsixControl(table_size=count - 1)
        writable = regs.MsixControl(msix_enable=True, function_mask=True)
        space.put(block.control, control, writable=writable, base=base)
        bar, pending = self.bar or 0, self.pending or 0
        space.put(block.table, regs.BarOffset(offset=self.table // 8, bir=bar), base=base)
        space.put(block.pending, regs.BarOffset(offset=pending // 8, bir=bar), base=base)


@dataclass(frozen=True)
class PciExpress:
    """PCI Express, with function level reset unless switched off; a link of one lane at 2.5 GT/s.

    A model that declares it has 4096 bytes of configuration space.
    """

    has_flr: bool = True
    port_type: express.PortType = express.PortType.ENDPOINT

    id = CapabilityId.PCI_EXPRESS
    size = 0x3C  # version 2 has all registers, be they empty

    def build(self, space: Space, base: int, irqs: Mapping[IrqKind, int]) -> None:
        """Version 2, payloads of 128 bytes."""
        block, link = express.PciExpressRegisters, express.LinkRegisters
        kind = express.PciExpressCapabilities(capability_version=2, device_port_type=self.port_type)
        can = express.DeviceCapabilities(
            function_level_reset_capability=self.has_flr, role_based_error_reporting=True
        )
        control = express.DeviceControl(
            max_read_request_size=2, enable_relaxed_ordering=True, enable_no_snoop=True
        )
        writable = express.DeviceControl(0x7FFF, initiate_function_level_reset=self.has_flr)
        space.put(block.capabilities, kind, base=base)
        space.put(block.device_capabilities, can, base=base)
        space.put(block.device_control, control, writable=writable, base=base)
        width = express.LinkCapabilities(maximum_link_width=1, max_link_speed=1)
        now = express.LinkStatus(negotiated_link_width=1, current_link_speed=1)
        space.put(link.link_capabilities, width, base=base)
        space.put(link.link_status, now, base=base)


@dataclass(frozen=True)
class VendorSpecific:
    """What the vendor wants: `data` without the three bytes of header."""

    data: bytes

    id = CapabilityId.VENDOR_SPECIFIC

    @property
    def size(self) -> int:
        """The length is a byte of its own, after id and pointer."""
        return regs.VendorRegisters.SIZE + len(self.data)

    def build(self, space: Space, base: int, irqs: Mapping[IrqKind, int]) -> None:
        """Read-only."""
        space.put(regs.VendorRegisters.length, self.size, base=base)
        space.put_bytes(base + regs.VendorRegisters.SIZE, self.data)

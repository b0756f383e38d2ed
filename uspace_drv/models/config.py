"""Configuration space of a model: its header, and the capabilities that it declares.

PCI Express Base Specification 6.0, section 7.5.1 (header) and 7.5.1.1.11 (capability list).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from uspace_drv.errors import LayoutError
from uspace_drv.models.bars import Bar, BarKind
from uspace_drv.models.capabilities import MSI_MOST, MSIX_MOST, Capability, Msi, Msix, PciExpress
from uspace_drv.models.space import Space
from uspace_drv.pci.capability_registers import Msi64Registers, MsixControl, MsixRegisters
from uspace_drv.pci.config import (
    CONFIG_SIZE,
    EXTENDED_CONFIG_SIZE,
    HEADER_SIZE,
    BaseAddress,
    ClassRevision,
    Command,
    ConfigHeader,
    Status,
)
from uspace_drv.port import IrqKind

C = TypeVar("C")

COMMAND_WRITABLE = Command(
    interrupt_disable=True,
    serr_enable=True,
    parity_error_response=True,
    bus_master_enable=True,
    memory_space_enable=True,
    io_space_enable=True,
)
STATUS_CLEARABLE = Status(
    detected_parity_error=True,
    signaled_system_error=True,
    received_master_abort=True,
    received_target_abort=True,
    signaled_target_abort=True,
    master_data_parity_error=True,
)
BUS_MASTER = Command(bus_master_enable=True).raw
INTX_DISABLED = Command(interrupt_disable=True).raw
INTX_PENDING = Status(interrupt_status=True).raw
FUNCTION_MASK = MsixControl(function_mask=True).raw
MSIX_ENABLE = MsixControl(msix_enable=True).raw
IRQ_MOST = {IrqKind.INTX: 1, IrqKind.MSI: MSI_MOST, IrqKind.MSIX: MSIX_MOST}


@dataclass(frozen=True)
class PciIdentity:
    """Who the function says it is; `class_code` has three bytes."""

    vendor: int
    device: int
    class_code: int = 0x00FF00
    revision: int = 0
    subvendor: int = 0
    subdevice: int = 0


class ModelConfig(Space):
    """256 bytes, or 4096 of a PCI Express function: header, capabilities, what can be written.

    An operating system finds the size of a BAR by writing ones: those below it do not stay.
    """

    def __init__(
        self,
        identity: PciIdentity,
        bars: Mapping[int, Bar],
        irqs: Mapping[IrqKind, int],
        capabilities: Iterable[Capability] = (),
        turn: AbstractContextManager[Any] | None = None,
    ) -> None:
        _check_irqs(irqs)
        listed = _complete(list(capabilities), irqs)
        express = any(isinstance(each, PciExpress) for each in listed)
        super().__init__(
            EXTENDED_CONFIG_SIZE if express else CONFIG_SIZE, turn or threading.RLock()
        )
        self._irqs = irqs
        self._found: dict[type, tuple[Any, int]] = {}
        self._put_header(identity, irqs, bool(listed))
        for number, bar in bars.items():
            self._put_bar(number, bar)
        self._put_list(listed)

    @property
    def is_bus_master(self) -> bool:
        """Whether the function may reach memory and send messages."""
        return self.has(ConfigHeader.command, BUS_MASTER)

    @property
    def is_intx_disabled(self) -> bool:
        """Whether it may not assert INTx."""
        return self.has(ConfigHeader.command, INTX_DISABLED)

    def set_interrupt_status(self, pending: bool) -> None:
        """Show whether an INTx is pending inside of the function."""
        if self.has(ConfigHeader.status, INTX_PENDING) is not pending:
            status = self.get(ConfigHeader.status).replace(interrupt_status=pending)
            self.set(ConfigHeader.status, status)

    def find(self, kind: type[C]) -> tuple[C, int] | None:
        """A capability that was declared, and its offset."""
        return self._found.get(kind)

    def is_masked(self, kind: IrqKind, index: int) -> bool:
        """Whether configuration space holds back message `index`."""
        if kind is IrqKind.MSIX and (found := self.find(Msix)):
            return self.has(MsixRegisters.control, FUNCTION_MASK, found[1])
        if kind is IrqKind.MSI and (masks := self._msi_masks()) is not None:
            return self.has(Msi64Registers.mask_bits, 1 << index, masks)
        return False

    @property
    def is_msix_enabled(self) -> bool:
        """Whether software has switched MSI-X on."""
        found = self.find(Msix)
        return found is not None and self.has(MsixRegisters.control, MSIX_ENABLE, found[1])

    def set_enabled(self, kind: IrqKind, on: bool) -> None:
        """Show MSI or MSI-X as on or off, as a host's kernel does that was asked for vectors."""
        if kind is IrqKind.MSIX and (found := self.find(Msix)):
            control = self.get(MsixRegisters.control, found[1])
            self.set(MsixRegisters.control, control.replace(msix_enable=on), found[1])
        if kind is IrqKind.MSI and (msi := self.find(Msi)):
            setting = self.get(Msi64Registers.control, msi[1])
            self.set(Msi64Registers.control, setting.replace(msi_enable=on), msi[1])

    def set_msi_pending(self, index: int, pending: bool) -> None:
        """Set a pending bit of MSI, where there are any."""
        masks = self._msi_masks()
        if masks is not None:
            bits = self.get(Msi64Registers.pending_bits, masks) & ~(1 << index)
            self.set(Msi64Registers.pending_bits, bits | pending << index, masks)

    def _msi_masks(self) -> int | None:
        """Where the MSI capability is, if it can mask."""
        found = self.find(Msi)
        return found[1] if found and found[0].maskable else None

    def _put_header(
        self, identity: PciIdentity, irqs: Mapping[IrqKind, int], has_list: bool
    ) -> None:
        kind = ClassRevision(class_code=identity.class_code, revision_id=identity.revision)
        status = Status(capabilities_list=has_list)
        self.put(ConfigHeader.vendor_id, identity.vendor)
        self.put(ConfigHeader.device_id, identity.device)
        self.put(ConfigHeader.command, 0, writable=COMMAND_WRITABLE)
        self.put(ConfigHeader.status, status, clearable=STATUS_CLEARABLE)
        self.put(ConfigHeader.class_revision, kind)
        self.put(ConfigHeader.cache_line_size, 0, writable=0xFF)
        self.put(ConfigHeader.subsystem_vendor_id, identity.subvendor)
        self.put(ConfigHeader.subsystem_id, identity.subdevice)
        self.put(ConfigHeader.interrupt_line, 0, writable=0xFF)
        self.put(ConfigHeader.interrupt_pin, int(IrqKind.INTX in irqs))

    def _put_bar(self, number: int, bar: Bar) -> None:
        """The bits below the size are read-only: this is how software finds the size."""
        is_wide = bar.kind is BarKind.MEMORY_64
        if not 0 <= number <= 5 - is_wide:
            raise LayoutError(f"BAR {number} ({bar.kind.value}): a function has 0 to 5")
        flags = BaseAddress(
            io_space=not bar.is_memory, type=2 * is_wide, prefetchable=bar.prefetchable
        )
        mask = -bar.size & (0xFFFF_FFFF_FFFF_FFFF if is_wide else 0xFFFF_FFFF)
        self.put(ConfigHeader.base_address[number], flags, writable=mask & 0xFFFF_FFFF)
        if is_wide:
            self.put(ConfigHeader.base_address[number + 1], 0, writable=mask >> 32)

    def _put_list(self, capabilities: Iterable[Capability]) -> None:
        link = ConfigHeader.capabilities_pointer.offset
        place = HEADER_SIZE
        for each in capabilities:
            if place + each.size > CONFIG_SIZE:
                raise LayoutError(f"{each} at {place:#x} does not fit into {CONFIG_SIZE:#x} bytes")
            self.put_bytes(link, bytes([place]))
            self.put_bytes(place, bytes([each.id, 0]))
            each.build(self, place, self._irqs)
            self._found.setdefault(type(each), (each, place))
            link = place + 1
            place = -(-(place + each.size) // 4) * 4


def _check_irqs(irqs: Mapping[IrqKind, int]) -> None:
    for kind, count in irqs.items():
        if not 1 <= count <= IRQ_MOST[kind]:
            raise LayoutError(f"{count} {kind.value} interrupts: expected 1 to {IRQ_MOST[kind]}")


def _complete(listed: list[Capability], irqs: Mapping[IrqKind, int]) -> list[Capability]:
    """Add what the interrupts need, where the author has not said how."""
    needed: list[tuple[IrqKind, Capability]] = [
        (IrqKind.MSI, Msi()),
        (IrqKind.MSIX, Msix()),
    ]
    for kind, capability in needed:
        declared = any(each.id == capability.id for each in listed)
        if kind in irqs and not declared:
            listed.append(capability)
        if kind not in irqs and declared:
            raise LayoutError(f"{capability.id.name} is declared, but irqs has no {kind.value}")
    return listed

"""What writes to configuration space do to a model: interrupt masks, power states, reset.

PCI Express Base Specification 6.0: power management 7.5.2.2, function level reset 6.6.2.
"""

from __future__ import annotations

from typing import Protocol

from uspace_drv.models.capabilities import Msi, Msix, PciExpress, PowerManagement
from uspace_drv.models.config import ModelConfig
from uspace_drv.models.interrupts import ModelIrqs
from uspace_drv.models.iommu import Iommu
from uspace_drv.pci.capability_registers import (
    Msi64Registers,
    MsixRegisters,
    PowerManagementRegisters,
)
from uspace_drv.pci.config import ConfigHeader
from uspace_drv.pci.express_registers import PciExpressRegisters

D0, D3_HOT = 0, 3


class Function(Protocol):
    """What this needs of a model."""

    config: ModelConfig
    interrupts: ModelIrqs
    memory: Iommu
    power_state: int

    def reset_function(self) -> None:
        """Reset all of it."""


def follow_config(model: Function) -> None:
    """Let the model follow its configuration space from now on."""
    config, refresh = model.config, model.interrupts.refresh
    config.watch(ConfigHeader.command, refresh)
    config.watch(ConfigHeader.command, model.memory.turn.settle)  # bus mastering may be off now
    if msix := config.find(Msix):
        config.watch(MsixRegisters.control, refresh, msix[1])
    if (msi := config.find(Msi)) and msi[0].maskable:
        config.watch(Msi64Registers.mask_bits, refresh, msi[1])
    if power := config.find(PowerManagement):
        _follow_power(model, *power)
    if express := config.find(PciExpress):
        _follow_reset(model, express[1])


def _follow_power(model: Function, power: PowerManagement, base: int) -> None:
    register = PowerManagementRegisters.status

    def change() -> None:
        status = model.config.get(register, base)
        before, wanted = model.power_state, status.power_state
        if not power.has_state(wanted):
            # A state that does not exist is ignored: the function stays where it is.
            model.config.set(register, status.replace(power_state=before), base)
            return
        model.power_state = wanted
        model.memory.turn.settle()
        if before == D3_HOT and wanted == D0 and not power.keeps_state:
            model.reset_function()

    model.config.watch(register, change, base)


def _follow_reset(model: Function, base: int) -> None:
    register = PciExpressRegisters.device_control

    def look() -> None:
        control = model.config.get(register, base)
        if control.initiate_function_level_reset:
            model.config.set(register, control.replace(initiate_function_level_reset=False), base)
            model.reset_function()

    model.config.watch(register, look, base)

"""QEMU's PCI test device: driver, registers and model."""

from uspace_drivers.pci_testdev.driver import PciTestdev
from uspace_drivers.pci_testdev.model import PciTestdevModel
from uspace_drivers.pci_testdev.registers import PciTestdevRegisters
from uspace_drv import Plugin

plugin = Plugin(
    driver=PciTestdev,
    registers={0: PciTestdevRegisters, 1: PciTestdevRegisters},
    model=PciTestdevModel,
)

__all__ = ["PciTestdev", "PciTestdevModel", "PciTestdevRegisters", "plugin"]

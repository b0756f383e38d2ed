"""The ACCES PCI-IDIO-16 card: 16 isolated inputs and 16 outputs; driver, registers and model."""

from uspace_drivers.idio16.driver import Idio16
from uspace_drivers.idio16.model import Idio16Model
from uspace_drivers.idio16.registers import Idio16Registers
from uspace_drv import Plugin

plugin = Plugin(driver=Idio16, registers={2: Idio16Registers}, model=Idio16Model)

__all__ = ["Idio16", "Idio16Model", "Idio16Registers", "plugin"]

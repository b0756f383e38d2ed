"""QEMU's teaching device: driver, registers and model."""

from uspace_drivers.edu.driver import Edu
from uspace_drivers.edu.model import EduModel
from uspace_drivers.edu.registers import EduRegisters
from uspace_drv import Plugin

plugin = Plugin(driver=Edu, registers={0: EduRegisters}, model=EduModel)

__all__ = ["Edu", "EduModel", "EduRegisters", "plugin"]

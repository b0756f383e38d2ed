"""NVM Express storage: driver, registers and model."""

from uspace_drivers.nvme.driver import Nvme
from uspace_drivers.nvme.engine.requests import Request, Result
from uspace_drivers.nvme.model import NvmeModel
from uspace_drivers.nvme.spec.commands import Opcode
from uspace_drivers.nvme.spec.registers import NvmeRegisters
from uspace_drv import Plugin

plugin = Plugin(driver=Nvme, registers={0: NvmeRegisters}, model=NvmeModel)

__all__ = ["Nvme", "NvmeModel", "NvmeRegisters", "Opcode", "Request", "Result", "plugin"]

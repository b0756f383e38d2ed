"""The virtio entropy device, as QEMU and others have it: driver, registers and model."""

from uspace_drivers.virtio_rng.driver import VirtioRng
from uspace_drivers.virtio_rng.model import Fault, RngRegisters, VirtioRngModel
from uspace_drivers.virtio_rng.registers import CommonConfiguration
from uspace_drv import Plugin

plugin = Plugin(driver=VirtioRng, model=VirtioRngModel)

__all__ = [
    "CommonConfiguration",
    "Fault",
    "RngRegisters",
    "VirtioRng",
    "VirtioRngModel",
    "plugin",
]

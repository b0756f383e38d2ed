"""The kit for device models: small classes that answer a driver as the device would."""

from uspace_drv.models.bars import Area, Bar, BarKind
from uspace_drv.models.capabilities import (
    Msi,
    Msix,
    PciExpress,
    PowerManagement,
    VendorSpecific,
)
from uspace_drv.models.config import PciIdentity
from uspace_drv.models.model import DeviceModel
from uspace_drv.models.register_file import on_read, on_write

__all__ = [
    "Area",
    "Bar",
    "BarKind",
    "DeviceModel",
    "Msi",
    "Msix",
    "PciExpress",
    "PciIdentity",
    "PowerManagement",
    "VendorSpecific",
    "on_read",
    "on_write",
]

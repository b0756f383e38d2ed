"""The kit for device models: small classes that answer a driver as the device would."""

from uspace_drv.models.config import PciIdentity
from uspace_drv.models.model import Bar, DeviceModel, on_read, on_write

__all__ = ["Bar", "DeviceModel", "PciIdentity", "on_read", "on_write"]

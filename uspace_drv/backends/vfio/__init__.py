"""VFIO: a device handed to this process by the kernel, fenced in by the IOMMU."""

from uspace_drv.backends.vfio.device import VfioDevice
from uspace_drv.backends.vfio.opening import Handover, Opening, Options
from uspace_drv.backends.vfio.ways import WAYS, open_function, resume

__all__ = ["WAYS", "Handover", "Opening", "Options", "VfioDevice", "open_function", "resume"]

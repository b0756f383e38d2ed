"""VFIO: a device handed to this process by the kernel, fenced in by the IOMMU."""

from uspace_drv.backends.vfio.device import VfioDevice

__all__ = ["VfioDevice"]

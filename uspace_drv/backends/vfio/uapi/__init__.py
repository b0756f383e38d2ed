"""VFIO's requests and structures, as Linux include/uapi/linux/vfio.h has them.

The numbers that vfio-user has too are in `uspace_drv.vfio_numbers`.
"""

from uspace_drv.backends.vfio.uapi.device import (
    AttachIommufd,
    BindFlag,
    BindIommufd,
    CapabilityHeader,
    DetachIommufd,
    DeviceInfo,
    IrqInfo,
    IrqSetHeader,
    RegionInfo,
)
from uspace_drv.backends.vfio.uapi.requests import (
    API_VERSION,
    Extension,
    GroupFlag,
    GroupStatus,
    Request,
    Type1Request,
)
from uspace_drv.backends.vfio.uapi.type1 import (
    DmaAvailCapability,
    DmaMap,
    DmaUnmap,
    IommuCapability,
    IommuFlag,
    IommuInfo,
    IovaRangeCapability,
    IovaRangeEntry,
)

__all__ = [
    "API_VERSION",
    "AttachIommufd",
    "BindFlag",
    "BindIommufd",
    "CapabilityHeader",
    "DetachIommufd",
    "DeviceInfo",
    "DmaAvailCapability",
    "DmaMap",
    "DmaUnmap",
    "Extension",
    "GroupFlag",
    "GroupStatus",
    "IommuCapability",
    "IommuFlag",
    "IommuInfo",
    "IovaRangeCapability",
    "IovaRangeEntry",
    "IrqInfo",
    "IrqSetHeader",
    "RegionInfo",
    "Request",
    "Type1Request",
]

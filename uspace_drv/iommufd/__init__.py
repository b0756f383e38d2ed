"""Address spaces, page tables and queues of devices through /dev/iommu (Linux iommufd)."""

from uspace_drv.iommufd.context import Iommufd
from uspace_drv.iommufd.event_queue import Event, EventQueue
from uspace_drv.iommufd.fault_queue import Fault, FaultQueue
from uspace_drv.iommufd.hardware import Hardware
from uspace_drv.iommufd.ioas import Ioas
from uspace_drv.iommufd.page_table import Hwpt, Nesting, Smmuv3Command, VtdInvalidation
from uspace_drv.iommufd.uapi.page_tables import (
    HwCapability,
    HwInfoType,
    HwptData,
    HwptFlag,
    InvalidateData,
)
from uspace_drv.iommufd.uapi.queues import (
    FaultAccess,
    FaultFlag,
    HwQueueType,
    Response,
    ViommuType,
)
from uspace_drv.iommufd.virtual import HwQueue, Vdevice, Viommu

__all__ = [
    "Event",
    "EventQueue",
    "Fault",
    "FaultAccess",
    "FaultFlag",
    "FaultQueue",
    "Hardware",
    "HwCapability",
    "HwInfoType",
    "HwQueue",
    "HwQueueType",
    "Hwpt",
    "HwptData",
    "HwptFlag",
    "InvalidateData",
    "Ioas",
    "Iommufd",
    "Nesting",
    "Response",
    "Smmuv3Command",
    "Vdevice",
    "Viommu",
    "ViommuType",
    "VtdInvalidation",
]

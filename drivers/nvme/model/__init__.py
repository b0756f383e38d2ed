"""A model of an NVMe controller (NVM Express Base Specification 1.4)."""

from uspace_drivers.nvme.model.faults import Action, Fault
from uspace_drivers.nvme.model.model import NvmeModel
from uspace_drivers.nvme.model.rings.rings import Owner, PythonRings, Rings, Work
from uspace_drivers.nvme.model.store.namespaces import ModelNamespace

__all__ = [
    "Action",
    "Fault",
    "ModelNamespace",
    "NvmeModel",
    "Owner",
    "PythonRings",
    "Rings",
    "Work",
]

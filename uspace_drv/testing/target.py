"""Where a driver is tried: a model in this process, or a device of the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from uspace_drv.attachment import Attachment, attach
from uspace_drv.backends.vfio import WAYS
from uspace_drv.backends.virtual import VirtualDevice
from uspace_drv.driver import Driver
from uspace_drv.errors import NoDevice
from uspace_drv.models import DeviceModel
from uspace_drv.opening import VFIO_VIA, open_backend
from uspace_drv.port import Backend, IrqKind

D = TypeVar("D", bound=Driver)


@dataclass(frozen=True)
class Target:
    """The same tests run on each: a model, or the address of a device, as `attach` takes it."""

    model: type[DeviceModel] | None = None
    address: str | None = None
    via: str | None = None
    irq_kind: IrqKind | None = None
    unsafe_dma_without_iommu: bool = False

    def open(self) -> Backend:
        """Open it without a driver; the caller closes it. Each model is a new one."""
        if self.address is not None:
            return open_backend(
                self.address,
                via=self.via,
                unsafe_dma_without_iommu=self.unsafe_dma_without_iommu,
            )
        if self.model is not None:
            return VirtualDevice(self.model())
        raise NoDevice("a target needs a model, or the address of a device")

    def attach(self, driver: type[D]) -> Attachment[D]:
        """Open it and start a driver."""
        return attach(self.open(), driver, irq_kind=self.irq_kind)


def comes_via(wanted: str, way: str | None) -> bool:
    """Whether a run by `way` is what a test that wants `wanted` asks for: 'vfio' is any VFIO."""
    return way == wanted or (wanted == VFIO_VIA and way in WAYS)

"""What every way of opening a function through VFIO has in common; the ways are in `ways.py`.

Linux Documentation/driver-api/vfio.rst: by the group and a container, or by the device's own
character device and an iommufd; each with an IOMMU or, where the user insists, without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from uspace_drv.port import DmaSpace


@dataclass(frozen=True)
class Options:
    """What the user asked for beyond the address.

    `vf_token` is the UUID that the owner of the physical function set, for a virtual function
    whose physical function is at vfio-pci too (Linux commit 'vfio/pci: Introduce VF token').
    """

    vf_token: str | None = None
    unsafe_dma_without_iommu: bool = False

    def as_data(self) -> dict[str, Any]:
        """Plain data for a `Handover`."""
        return asdict(self)


@dataclass(frozen=True)
class Handover:
    """All that another process needs to go on with an opening; `resume` in `ways.py` takes it.

    `kind` is the name of the way, `fds` go over a socket with SCM_RIGHTS in this order, `data` is
    plain enough for JSON.
    """

    kind: str
    fds: tuple[int, ...]
    data: Mapping[str, Any]


class Opening(Protocol):
    """One way by which the kernel hands a function over; opened, its device not yet."""

    @property
    def via(self) -> str:
        """The name of the way: 'vfio-cdev', 'vfio-type1' ..."""

    @property
    def dma(self) -> DmaSpace:
        """Its view of memory; `UnsupportedError` without an IOMMU, unless the user insists."""

    def open_device(self) -> int:
        """Return a new descriptor of the device; the caller closes it, before this is closed."""

    @property
    def reset_fds(self) -> Sequence[int]:
        """What VFIO_DEVICE_PCI_HOT_RESET takes: descriptors of groups, none for a device file."""

    def handover(self) -> Handover:
        """What another process needs to go on with it; the descriptors stay ours."""

    def close(self) -> None:
        """Take memory away from the device and give everything back. Twice is fine."""

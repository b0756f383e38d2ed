"""What a VFIO device has beside registers, interrupts and DMA: each thing a part of `Features`.

Linux include/uapi/linux/vfio.h, "VFIO_DEVICE_FEATURE" and the calls of a device around it.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from functools import cached_property

from uspace_drv.backends.vfio.dma_buf import export_bar
from uspace_drv.backends.vfio.dma_logging import DmaLogging
from uspace_drv.backends.vfio.feature_call import FeatureCall
from uspace_drv.backends.vfio.gfx import Gfx
from uspace_drv.backends.vfio.hot_reset import HotReset, OwnsGroups
from uspace_drv.backends.vfio.migration import Migration
from uspace_drv.backends.vfio.power import Power
from uspace_drv.backends.vfio.uapi.features import BusMaster, Feature


class Features:
    """The features of one open device, each of which few devices and kernels have.

    What is missing raises `UnsupportedError`, which names the Linux and the option that have it.
    The descriptor stays the device's.
    """

    def __init__(self, fd: int, address: str, opening: OwnsGroups) -> None:
        self._fd = fd
        self._address = address
        self._opening = opening
        self._call = FeatureCall(fd, address)

    def supported(self) -> frozenset[Feature]:
        """Ask the kernel for each feature whether this device has it; changes nothing."""
        return frozenset(each for each in Feature if self._call.offers(each))

    @cached_property
    def power(self) -> Power:
        """Low power: entry, wake-up, exit."""
        return Power(self._call)

    @cached_property
    def hot_reset(self) -> HotReset:
        """Reset of the whole bus or slot."""
        return HotReset(self._fd, self._address, self._opening)

    @cached_property
    def migration(self) -> Migration:
        """The device's state: saving and loading it."""
        return Migration(self._call, self._fd)

    @cached_property
    def dma_logging(self) -> DmaLogging:
        """The device's own log of the memory that it wrote."""
        return DmaLogging(self._call)

    @cached_property
    def gfx(self) -> Gfx:
        """The picture of a mediated display device."""
        return Gfx(self._fd, self._address)

    def export_bar(self, bar: int, ranges: Sequence[tuple[int, int]]) -> int:
        """Return a new descriptor of a dma-buf of (offset, size) pieces of a memory BAR.

        The caller closes it; see `uspace_drv.backends.vfio.dma_buf`.
        """
        return export_bar(self._call, bar, ranges)

    def set_vf_token(self, token: uuid.UUID) -> None:
        """Choose the secret that who opens a virtual function of this device has to know.

        For the physical function with SR-IOV on, while none of its virtual functions is open. The
        kernel never shows it again.
        """
        self._call.set_bytes(Feature.PCI_VF_TOKEN, token.bytes)

    def set_bus_master(self, *, on: bool) -> None:
        """Let a CDX device reach memory, or not; a PCI function has a bit of its own for that."""
        self._call.set(Feature.BUS_MASTER, BusMaster(int(on)))

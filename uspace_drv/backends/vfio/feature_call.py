"""One feature of a VFIO device: probe it, read it, set it.

Linux include/uapi/linux/vfio.h, "VFIO_DEVICE_FEATURE".
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from uspace_drv.backends.vfio.call import call
from uspace_drv.backends.vfio.uapi import Request
from uspace_drv.backends.vfio.uapi.features import Feature, FeatureHeader
from uspace_drv.errors import HostError, UnsupportedError
from uspace_drv.vfio_numbers import FeatureFlag

S = TypeVar("S", bound=ctypes.Structure)

_ABSENT = frozenset({errno.ENOTTY, errno.EOPNOTSUPP})
_NOT_OFFERED = _ABSENT | {errno.EINVAL}
_HEADER = ctypes.sizeof(FeatureHeader)


@dataclass(frozen=True)
class Need:
    """The first Linux that has a feature, and what it takes besides."""

    linux: str
    what: str


_VFIO_PCI = "a PCI function that is bound to vfio-pci"
_MIGRATES = "a driver of the kernel that migrates the device, as mlx5-vfio-pci does"
_LOGS = "a device that logs its DMA, under a driver as mlx5-vfio-pci"

NEEDS: Mapping[Feature, Need] = {
    Feature.PCI_VF_TOKEN: Need("5.7", "a function with SR-IOV that is bound to vfio-pci"),
    Feature.MIGRATION: Need("5.18", _MIGRATES),
    Feature.MIG_DEVICE_STATE: Need("5.18", _MIGRATES),
    Feature.LOW_POWER_ENTRY: Need("6.1", f"CONFIG_PM and {_VFIO_PCI}"),
    Feature.LOW_POWER_ENTRY_WITH_WAKEUP: Need("6.1", f"CONFIG_PM and {_VFIO_PCI}"),
    Feature.LOW_POWER_EXIT: Need("6.1", f"CONFIG_PM and {_VFIO_PCI}"),
    Feature.DMA_LOGGING_START: Need("6.1", _LOGS),
    Feature.DMA_LOGGING_STOP: Need("6.1", _LOGS),
    Feature.DMA_LOGGING_REPORT: Need("6.1", _LOGS),
    Feature.MIG_DATA_SIZE: Need("6.2", _MIGRATES),
    Feature.BUS_MASTER: Need(
        "6.7", "a CDX device; a PCI function has the bit in its configuration space"
    ),
    Feature.DMA_BUF: Need("6.19", f"CONFIG_VFIO_PCI_DMABUF, CONFIG_PCI_P2PDMA and {_VFIO_PCI}"),
    Feature.MIG_PRECOPY_INFO_V2: Need("7.1", f"{_MIGRATES} while it runs"),
}


class FeatureCall:
    """The features of one open device; `address` is for errors.

    Every method raises `UnsupportedError` where kernel or device lack the feature, which names the
    Linux and the option that have it, `HostError` with the errno of the kernel where the feature is
    there and refuses, `DeviceGone` where the device is not.
    """

    def __init__(self, fd: int, address: str) -> None:
        self._fd = fd
        self.address = address

    def offers(self, feature: Feature) -> bool:
        """Whether the kernel has the feature for this device; changes nothing."""
        try:
            self._exchange(FeatureFlag.PROBE, feature, b"")
        except UnsupportedError:
            return False
        except HostError as error:
            if error.errno in _NOT_OFFERED:
                return False
            raise
        return True

    def apply(self, feature: Feature) -> None:
        """Set a feature that has no data."""
        self._exchange(FeatureFlag.SET, feature, b"")

    def set(self, feature: Feature, data: S) -> S:
        """Set it, and return the data as the kernel left it."""
        return self._filled(FeatureFlag.SET, feature, data)

    def set_bytes(self, feature: Feature, data: bytes) -> None:
        """Set one whose data is no structure."""
        self._exchange(FeatureFlag.SET, feature, data)

    def get(self, feature: Feature, data: S) -> S:
        """Read it: returns the data as the kernel filled it in."""
        return self._filled(FeatureFlag.GET, feature, data)

    def get_descriptor(self, feature: Feature, data: bytes) -> int:
        """Read one whose answer is a new descriptor, which is the caller's to close."""
        return self._exchange(FeatureFlag.GET, feature, data)[0]

    def _filled(self, action: FeatureFlag, feature: Feature, data: S) -> S:
        answer = self._exchange(action, feature, bytes(data))[1]
        return type(data).from_buffer_copy(answer)

    def _exchange(self, action: FeatureFlag, feature: Feature, data: bytes) -> tuple[int, bytes]:
        header = FeatureHeader(_HEADER + len(data), action | feature)
        message = bytearray(bytes(header) + data)
        try:
            result = call(self.address, self._fd, Request.DEVICE_FEATURE, message)
        except HostError as error:
            if error.errno in _ABSENT:
                raise self.unsupported(feature) from error
            name = f"VFIO_DEVICE_FEATURE_{feature.name}"
            text = os.strerror(error.errno or 0)
            raise HostError(f"{self.address}: {name}: {text}", cause=error) from error
        return result, bytes(message[_HEADER:])

    def unsupported(self, feature: Feature) -> UnsupportedError:
        """Return the error that says what this feature takes."""
        need = NEEDS[feature]
        return UnsupportedError(
            f"{self.address}: no VFIO_DEVICE_FEATURE_{feature.name} here: it needs Linux "
            f"{need.linux} or newer with {need.what}; this is Linux {os.uname().release}"
        )

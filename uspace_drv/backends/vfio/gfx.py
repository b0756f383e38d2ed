"""The picture of a mediated display device: where its pixels are.

Linux include/uapi/linux/vfio.h, "VFIO_DEVICE_QUERY_GFX_PLANE" and "VFIO_DEVICE_GET_GFX_DMABUF".
"""

from __future__ import annotations

import ctypes
import errno
from dataclasses import dataclass

from uspace_drv.backends.vfio.call import call
from uspace_drv.backends.vfio.uapi import Request
from uspace_drv.backends.vfio.uapi.gfx import GfxPlaneInfo, PlaneFlag, PlaneType
from uspace_drv.errors import HostError, UnsupportedError

_ABSENT = frozenset({errno.ENOTTY, errno.EINVAL})


@dataclass(frozen=True)
class Plane:
    """One picture: format as the kernel's DRM names it (four characters), sizes in pixels.

    `stride` and `size` are in bytes. `source` is the number of the region that holds the pixels, or
    the id of a dma-buf, see `Gfx.open_dmabuf`. A plane that is switched off has a size of 0.
    """

    format: int
    width: int
    height: int
    stride: int
    size: int
    source: int

    @property
    def format_name(self) -> str:
        """The format's four characters, 'XR24' for 32-bit RGB."""
        return self.format.to_bytes(4, "little").decode("ascii", "replace")


class Gfx:
    """The planes of one device; `UnsupportedError` where it shows none."""

    def __init__(self, fd: int, address: str) -> None:
        self._fd = fd
        self._address = address

    def way(self) -> PlaneFlag:
        """How the pixels are to be had: REGION or DMABUF."""
        for flag in (PlaneFlag.REGION, PlaneFlag.DMABUF):
            try:
                self._query(PlaneFlag.PROBE | flag, PlaneType.PRIMARY)
            except HostError as error:
                if error.errno not in _ABSENT:
                    raise
            else:
                return flag
        raise UnsupportedError(
            f"{self._address}: shows no picture; a mediated display device does (as GVT-g's, or "
            "the kernel's samples mdpy and mbochs)"
        )

    def plane(self, kind: PlaneType = PlaneType.PRIMARY) -> Plane:
        """Describe the picture as it is now; it may change at any time."""
        info = self._query(self.way(), kind)
        return Plane(info.drm_format, info.width, info.height, info.stride, info.size, info.source)

    def open_dmabuf(self, plane: Plane) -> int:
        """Return a new descriptor of the pixels, where `way()` is DMABUF; the caller closes it."""
        number = bytes(ctypes.c_uint32(plane.source))
        return call(self._address, self._fd, Request.DEVICE_GET_GFX_DMABUF, number)

    def _query(self, flags: PlaneFlag, kind: PlaneType) -> GfxPlaneInfo:
        info = GfxPlaneInfo(ctypes.sizeof(GfxPlaneInfo), flags, kind)
        call(self._address, self._fd, Request.DEVICE_QUERY_GFX_PLANE, info)
        return info

"""The regions of a VFIO device: mapped where the kernel lets us, else one pread or pwrite each.

Linux include/uapi/linux/vfio.h, "VFIO_DEVICE_GET_REGION_INFO". A region may be mapped whole, in
areas (kernels before 4.16 leave out the page of the MSI-X table), or not at all (I/O ports, ROM).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from struct import Struct

from uspace_drv.backends.vfio import uapi
from uspace_drv.backends.vfio.call import call
from uspace_drv.errors import HostError, NoDevice, PeerError
from uspace_drv.native import Window
from uspace_drv.regions import (
    Area,
    Calls,
    Capability,
    check_inside,
    in_order,
    open_in_parts,
    unpack_areas,
    walk,
)
from uspace_drv.vfio_numbers import REGION_COUNT, Region, RegionCapability, RegionFlag

_FIXED = ctypes.sizeof(uapi.RegionInfo)
_TYPE = Struct("=II")  # type, subtype


@dataclass(frozen=True)
class RegionKind:
    """What a device-specific region is: vfio_region_info_cap_type, whose types the header lists."""

    type: int
    subtype: int


@dataclass(frozen=True)
class RegionInfo:
    """A region as the kernel describes it; `areas` is what of its `size` bytes can be mapped.

    `offset` is where it starts in the device's descriptor. `has_mappable_msix` says that the
    MSI-X table lies in it and may be mapped with the rest.
    """

    number: int
    flags: RegionFlag
    size: int
    offset: int
    areas: tuple[Area, ...] = ()
    kind: RegionKind | None = None
    has_mappable_msix: bool = False


class VfioRegions:
    """The `count` regions of one open device: `fd` stays the device's, `name` is for errors."""

    def __init__(self, fd: int, name: str, count: int) -> None:
        self._fd = fd
        self._name = name
        self._count = max(count, REGION_COUNT)
        self.info = cache(self._ask)
        """What the kernel says of a region by its number; asked once."""

    def open(self, number: int, what: str) -> Window:
        """Open a window on all of a region; the caller closes it.

        Raises `NoDevice` where the device has none of that number.
        """
        info = self.info(number)
        name = f"{self._name} {what}"
        if not info.size:
            raise NoDevice(f"{self._name}: no {what}: region {number} has no bytes")
        if info.areas == (Area(0, info.size),):
            return self._map(info, name, info.areas[0])
        rest = Window.over_file(name, self._fd, info.offset, info.size)
        if not info.areas:
            return rest
        return open_in_parts(
            name, info.size, info.areas, lambda part, area: self._map(info, part, area), by(rest)
        )

    def rom(self) -> Window:
        """Open the expansion ROM, read-only; `NoDevice` where there is none to read."""
        return self.open(Region.ROM, "rom")

    def vga(self) -> Window:
        """Open VGA's legacy ports and memory: 0xA0000 to 0xBFFFF and 0x3B0 to 0x3DF.

        For a VGA device, on a kernel with CONFIG_VFIO_PCI_VGA; elsewhere `NoDevice`.
        """
        return self.open(Region.VGA, "vga")

    def special(self, kind: RegionKind) -> Window:
        """Open the device-specific region of that kind; `NoDevice` lists those that there are."""
        kinds = {info.kind: info.number for info in self.specials()}
        if kind not in kinds:
            listed = ", ".join(map(str, kinds)) or "none"
            raise NoDevice(f"{self._name}: no region of {kind}; it has {listed}")
        return self.open(kinds[kind], f"region {kind.type:#x}/{kind.subtype:#x}")

    def specials(self) -> Iterator[RegionInfo]:
        """Describe what a device has beyond the regions of every PCI function."""
        for number in range(REGION_COUNT, self._count):
            yield self.info(number)

    def _map(self, info: RegionInfo, name: str, area: Area) -> Window:
        writable = RegionFlag.WRITE in info.flags
        return Window.map(name, self._fd, info.offset + area.offset, area.size, writable=writable)

    def _ask(self, number: int) -> RegionInfo:
        first = uapi.RegionInfo(argsz=_FIXED, index=number)
        try:
            call(self._name, self._fd, uapi.Request.DEVICE_GET_REGION_INFO, first)
        except HostError as error:
            if number != Region.VGA or error.errno != errno.EINVAL:
                raise
            return RegionInfo(number, RegionFlag(0), 0, 0)  # kernels without VGA refuse its number
        raw = bytes(first)
        if first.argsz > _FIXED:
            whole = bytearray(first.argsz)
            uapi.RegionInfo.from_buffer(whole).argsz = len(whole)
            uapi.RegionInfo.from_buffer(whole).index = number
            call(self._name, self._fd, uapi.Request.DEVICE_GET_REGION_INFO, whole)
            raw = bytes(whole)
        try:
            return _understand(number, raw)
        except PeerError as error:
            raise HostError(
                f"{self._name}: what the kernel says makes no sense: {error}"
            ) from error


def by(window: Window) -> Calls:
    """Access what is not mapped through another window, with the width that was asked for."""
    reads = {1: window.read8, 2: window.read16, 4: window.read32, 8: window.read64}
    writes = {1: window.write8, 2: window.write16, 4: window.write32, 8: window.write64}
    return Calls(
        lambda offset, width: reads[width](offset),
        lambda offset, width, value: writes[width](offset, value),
    )


def _understand(number: int, raw: bytes) -> RegionInfo:
    """Take the kernel's description with the capabilities behind it."""
    fixed = uapi.RegionInfo.from_buffer_copy(raw)
    flags = RegionFlag(fixed.flags)
    chain: tuple[Capability, ...] = ()
    if RegionFlag.CAPS in flags and fixed.cap_offset:
        chain = tuple(walk(raw, fixed.cap_offset, _FIXED, f"region {number}"))
    bodies = {each.id: each.body for each in chain}
    return RegionInfo(
        number,
        flags,
        fixed.size,
        fixed.offset,
        _mappable(fixed, bodies.get(RegionCapability.SPARSE_MMAP)),
        _kind(bodies.get(RegionCapability.TYPE), number),
        RegionCapability.MSIX_MAPPABLE in bodies,
    )


def _mappable(info: uapi.RegionInfo, sparse: bytes | None) -> tuple[Area, ...]:
    """What may be mapped, ascending; nothing where an area does not consist of whole pages."""
    what = f"region {info.index}"
    if not info.flags & RegionFlag.MMAP or not info.size:
        return ()
    if sparse is None:
        return (Area(0, info.size),)
    areas = in_order(unpack_areas(sparse, what), what)
    check_inside(areas, info.size, what)
    if any((area.offset | area.size) % mmap.PAGESIZE for area in areas):
        return ()
    return areas


def _kind(body: bytes | None, number: int) -> RegionKind | None:
    if body is None:
        return None
    if len(body) < _TYPE.size:
        raise PeerError(f"region {number}: a type of {len(body)} bytes, expected {_TYPE.size}")
    return RegionKind(*_TYPE.unpack_from(body))

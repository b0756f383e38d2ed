"""A VFIO container with a type1 IOMMU: where a device's DMA mappings live.

Linux Documentation/driver-api/vfio.rst, "Group, container"; include/uapi/linux/vfio.h, "API for
Type1 VFIO IOMMU".
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from uspace_drv.backends.vfio import dirty_pages, uapi
from uspace_drv.backends.vfio.call import call
from uspace_drv.backends.vfio.nodes import CONTAINER, forgeable
from uspace_drv.backends.vfio.uapi.dirty import UnmapFlag
from uspace_drv.errors import DeviceError, HostError, PeerError, UnsupportedError
from uspace_drv.port import BareDmaSpace, Direction, DmaCalls, DmaKernel, Iova, IovaRange
from uspace_drv.regions import walk
from uspace_drv.vfio_numbers import DmaFlag


@dataclass(frozen=True)
class Limits:
    """What vfio_iommu_type1_info says: see the port's `DmaSpace`."""

    page_size: int
    ranges: Sequence[IovaRange]
    entry_limit: int | None


class Container(BareDmaSpace):
    """Fills the port's `DmaSpace`. `name` is the device's address, for errors.

    `node` is VFIO's own, or an iommufd's, which knows the same requests. A container that another
    process opened comes as its `fd`, which this one then owns.
    """

    def __init__(self, name: str, node: str = CONTAINER, fd: int | None = None) -> None:
        self.name = name
        self.fd = _open(name, node) if fd is None else fd

    def set_iommu(self, kind: uapi.Extension = uapi.Extension.TYPE1V2) -> None:
        """Choose the kind of IOMMU, once a group is in."""
        if not call(self.name, self.fd, uapi.Request.CHECK_EXTENSION, kind):
            raise UnsupportedError(
                f"{self.name}: this kernel's VFIO has no {kind.name.lower()} IOMMU; "
                "run: sudo modprobe vfio_iommu_type1"
            )
        try:
            call(self.name, self.fd, uapi.Request.SET_IOMMU, kind)
        except HostError as error:
            raise forgeable(self.name, "vfio_iommu_type1", error) or error from error

    @property
    def page_size(self) -> int:
        """Bytes: the smallest page that this process and the IOMMU share."""
        return self._limits.page_size

    @property
    def ranges(self) -> Sequence[IovaRange] | None:
        """What the host's IOMMU can map."""
        return self._limits.ranges

    @property
    def entry_limit(self) -> int | None:
        """The most mappings at once, where the kernel says it (from Linux 5.10 on)."""
        return self._limits.entry_limit

    def memory(self, size: int, reach: int) -> mmap.mmap:
        """Anonymous shared memory: a fork keeps both sides on the same pages."""
        return mmap.mmap(-1, size)

    def map(self, address: int, size: int, iova: Iova | None, direction: Direction) -> Iova:
        """Pin the memory and show it to the device at `iova`."""
        if iova is None:
            raise HostError(f"{self.name}: a mapping through VFIO needs an IOVA")
        flags = DmaFlag(0)
        if Direction.TO_DEVICE in direction:
            flags |= DmaFlag.READ
        if Direction.FROM_DEVICE in direction:
            flags |= DmaFlag.WRITE
        argument = uapi.DmaMap(ctypes.sizeof(uapi.DmaMap), flags, address, iova, size)
        try:
            call(self.name, self.fd, uapi.Type1Request.IOMMU_MAP_DMA, argument)
        except HostError as error:
            raise self._explain(error, size) from error
        return iova

    def unmap(self, iova: Iova, size: int) -> None:
        """Take it away from the device and unpin the memory."""
        argument = uapi.DmaUnmap(ctypes.sizeof(uapi.DmaUnmap), 0, iova, size)
        call(self.name, self.fd, uapi.Type1Request.IOMMU_UNMAP_DMA, argument)
        if argument.size != size:
            raise DeviceError(
                f"{self.name}: unmapped {argument.size:#x} of {size:#x} bytes at {iova:#x}"
            )

    def unmap_all(self) -> None:
        """Take everything away: one call from Linux 5.12 on, one for each range before that."""
        try:
            self._unmap_range(UnmapFlag.ALL, 0, 0)
        except HostError as error:
            if error.errno != errno.EINVAL:
                raise
            for each in self._limits.ranges:
                self._unmap_range(UnmapFlag(0), each.start, _bytes_of(each))

    def start_dirty_tracking(self) -> None:
        """From now on the kernel remembers which pages the device may have written."""
        dirty_pages.switch(self.name, self.fd, True)

    def stop_dirty_tracking(self) -> None:
        """Forget it."""
        dirty_pages.switch(self.name, self.fd, False)

    def dirty_pages(self, iova: Iova, size: int) -> bytes:
        """A bit for each page of whole mappings, lowest first; asking clears them."""
        return dirty_pages.read(self.name, self.fd, iova, size, self.page_size)

    def unmap_dirty(self, iova: Iova, size: int) -> bytes:
        """Unmap one mapping and return which of its pages were written, in the same moment."""
        return dirty_pages.unmap(self.name, self.fd, iova, size, self.page_size)

    @property
    def dma_calls(self) -> DmaCalls:
        """Mapping is one ioctl on this descriptor."""
        return DmaCalls(DmaKernel.TYPE1, self.fd)

    def close(self) -> None:
        """Close it; the kernel unmaps what is left. Twice is fine."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    def _unmap_range(self, flags: UnmapFlag, iova: int, size: int) -> None:
        argument = uapi.DmaUnmap(ctypes.sizeof(uapi.DmaUnmap), flags, iova, size)
        call(self.name, self.fd, uapi.Type1Request.IOMMU_UNMAP_DMA, argument)

    def _explain(self, error: HostError, size: int) -> HostError:
        where = f"{self.name}: cannot map {size:#x} bytes for DMA"
        if error.errno == errno.ENOMEM:
            return HostError(f"{where}: {_memlock_advice(size)}", cause=error)
        if error.errno == errno.ENOSPC:
            return HostError(
                f"{where}: the kernel's limit of mappings is reached; map fewer and larger ones, "
                "or raise the module parameter vfio_iommu_type1.dma_entry_limit",
                cause=error,
            )
        return HostError(f"{where}: {error}", cause=error)

    @cached_property
    def _limits(self) -> Limits:
        """Asked late: an iommufd knows them only once the device itself is open."""
        info = _info(self.name, self.fd)
        try:
            return _understand(info)
        except (PeerError, ValueError) as error:
            raise HostError(f"{self.name}: what the kernel says makes no sense: {error}") from error


def _open(name: str, node: str) -> int:
    try:
        fd = os.open(node, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        denied = error.errno in {errno.EACCES, errno.EPERM}
        module = "vfio-pci" if node == CONTAINER else "iommufd"
        cure = f"sudo chmod 666 {node}" if denied else f"sudo modprobe {module}"
        raise HostError(
            f"{name}: cannot open {node}: {error.strerror}; run: {cure}", cause=error
        ) from error
    try:
        _check_version(name, fd, node)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_version(name: str, fd: int, node: str) -> None:
    version = call(name, fd, uapi.Request.GET_API_VERSION, 0)
    if version != uapi.API_VERSION:
        raise UnsupportedError(f"{node}: VFIO version {version}; expected {uapi.API_VERSION}")


def _info(name: str, fd: int) -> bytearray:
    """A vfio_iommu_type1_info with the capabilities behind it."""
    first = uapi.IommuInfo(ctypes.sizeof(uapi.IommuInfo))
    call(name, fd, uapi.Type1Request.IOMMU_GET_INFO, first)
    info = bytearray(max(first.argsz, ctypes.sizeof(first)))
    uapi.IommuInfo.from_buffer(info).argsz = len(info)
    call(name, fd, uapi.Type1Request.IOMMU_GET_INFO, info)
    return info


def _understand(info: bytearray) -> Limits:
    page_sizes = uapi.IommuInfo.from_buffer(info).iova_pgsizes
    page_size = max(mmap.PAGESIZE, page_sizes & -page_sizes)  # the lowest bit set
    ranges: Sequence[IovaRange] = ()
    entry_limit = None
    for capability, offset in _capabilities(info):
        if capability == uapi.IommuCapability.IOVA_RANGE:
            ranges = _iova_ranges(info, offset)
        elif capability == uapi.IommuCapability.DMA_AVAIL:
            entry_limit = uapi.DmaAvailCapability.from_buffer(info, offset).avail
    # Kernels before 5.4 do not say: take what every IOMMU has.
    return Limits(page_size, ranges or [IovaRange(0, 0xFEDF_FFFF)], entry_limit)


def _capabilities(info: bytearray) -> Iterator[tuple[int, int]]:
    """Id and offset of each capability."""
    fixed = uapi.IommuInfo.from_buffer(info)
    first = fixed.cap_offset if fixed.flags & uapi.IommuFlag.CAPS else 0
    for each in walk(bytes(info), first, ctypes.sizeof(fixed), "IOMMU"):
        yield each.id, len(info) - len(each.body) - ctypes.sizeof(uapi.CapabilityHeader)


def _iova_ranges(info: bytearray, offset: int) -> Sequence[IovaRange]:
    count = uapi.IovaRangeCapability.from_buffer(info, offset).count
    first = offset + ctypes.sizeof(uapi.IovaRangeCapability)
    entries = (uapi.IovaRangeEntry * count).from_buffer(info, first)
    return [IovaRange(entry.start, entry.end) for entry in entries]


def _bytes_of(each: IovaRange) -> int:
    """Of a range; the kernel's sizes have 64 bits, so all of them is a page less."""
    return min(each.end - each.start + 1, (1 << 64) - mmap.PAGESIZE)


def _memlock_advice(size: int) -> str:
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit == resource.RLIM_INFINITY or os.geteuid() == 0:  # root is not held to the limit
        return "the machine has too little free memory to pin"
    needed = locked_memory() + size
    return (
        f"that makes {needed:#x} bytes, and this process may lock {limit:#x} (RLIMIT_MEMLOCK); "
        f"run: sudo prlimit --pid {os.getpid()} --memlock={needed}, or raise it for the user with "
        "memlock in /etc/security/limits.conf or LimitMEMLOCK= in a systemd unit"
    )


def locked_memory() -> int:
    """Bytes that count against this process's limit now (Linux Documentation/filesystems/proc.rst).

    VFIO's pinned memory counts as locked, an iommufd's as pinned.
    """
    fields = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text("utf-8").splitlines()
    )
    return sum(int(fields[name].split()[0]) for name in ("VmLck", "VmPin")) << 10

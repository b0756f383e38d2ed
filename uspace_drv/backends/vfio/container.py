"""A VFIO container with a type1v2 IOMMU: where a device's DMA mappings live.

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

from uspace_drv.backends.vfio import uapi
from uspace_drv.backends.vfio.call import call
from uspace_drv.errors import DeviceError, HostError, UnsupportedError
from uspace_drv.port import Direction, Iova, IovaRange
from uspace_drv.vfio_numbers import DmaFlag

NODE = "/dev/vfio/vfio"


class Container:
    """Fills the port's `DmaSpace`. `name` is the device's address, for errors."""

    entry_limit: int | None = None
    page_size = mmap.PAGESIZE

    def __init__(self, name: str) -> None:
        self._name = name
        self._mapped = 0
        self._ranges: Sequence[IovaRange] = ()
        self.fd = _open(name)

    def set_iommu(self) -> None:
        """Choose type1v2, once a group is in; learn what may be mapped."""
        if not call(self._name, self.fd, uapi.Request.CHECK_EXTENSION, uapi.Extension.TYPE1V2):
            raise UnsupportedError(
                f"{self._name}: this kernel's VFIO has no type1v2 IOMMU; "
                "run: sudo modprobe vfio_iommu_type1"
            )
        try:
            call(self._name, self.fd, uapi.Request.SET_IOMMU, uapi.Extension.TYPE1V2)
        except HostError as error:
            if error.errno == errno.EPERM:
                raise HostError(
                    f"{self._name}: the IOMMU cannot remap interrupts, so the device could forge "
                    "them. Use a machine with interrupt remapping; or, if you trust the device, "
                    "set vfio_iommu_type1.allow_unsafe_interrupts=1",
                    cause=error,
                ) from error
            raise
        self._read_limits()

    @property
    def ranges(self) -> Sequence[IovaRange] | None:
        """What the host's IOMMU can map."""
        return self._ranges

    def memory(self, size: int, reach: int) -> mmap.mmap:
        """Anonymous shared memory: a fork keeps both sides on the same pages."""
        return mmap.mmap(-1, size)

    def map(self, address: int, size: int, iova: Iova | None, direction: Direction) -> Iova:
        """Pin the memory and show it to the device at `iova`."""
        if iova is None:
            raise HostError(f"{self._name}: a mapping through VFIO needs an IOVA")
        flags = DmaFlag(0)
        if Direction.TO_DEVICE in direction:
            flags |= DmaFlag.READ
        if Direction.FROM_DEVICE in direction:
            flags |= DmaFlag.WRITE
        argument = uapi.DmaMap(ctypes.sizeof(uapi.DmaMap), flags, address, iova, size)
        try:
            call(self._name, self.fd, uapi.Request.IOMMU_MAP_DMA, argument)
        except HostError as error:
            raise self._explain(error, size) from error
        self._mapped += size
        return iova

    def unmap(self, iova: Iova, size: int) -> None:
        """Take it away from the device and unpin the memory."""
        argument = uapi.DmaUnmap(ctypes.sizeof(uapi.DmaUnmap), 0, iova, size)
        call(self._name, self.fd, uapi.Request.IOMMU_UNMAP_DMA, argument)
        self._mapped -= size
        if argument.size != size:
            raise DeviceError(
                f"{self._name}: unmapped {argument.size:#x} of {size:#x} bytes at {iova:#x}"
            )

    def close(self) -> None:
        """Close it; the kernel unmaps what is left. Twice is fine."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    def _explain(self, error: HostError, size: int) -> HostError:
        where = f"{self._name}: cannot map {size:#x} bytes for DMA"
        if error.errno == errno.ENOMEM:
            return HostError(f"{where}: {_memlock_advice(self._mapped + size)}", cause=error)
        if error.errno == errno.ENOSPC:
            return HostError(
                f"{where}: the kernel's limit of mappings is reached; map fewer and larger ones, "
                "or raise the module parameter vfio_iommu_type1.dma_entry_limit",
                cause=error,
            )
        return HostError(f"{where}: {error}", cause=error)

    def _read_limits(self) -> None:
        info = _info(self._name, self.fd)
        page_sizes = uapi.IommuInfo.from_buffer(info).iova_pgsizes
        self.page_size = max(mmap.PAGESIZE, page_sizes & -page_sizes)  # the lowest bit set
        for capability, offset in _capabilities(info):
            if capability == uapi.IommuCapability.IOVA_RANGE:
                self._ranges = _iova_ranges(info, offset)
            elif capability == uapi.IommuCapability.DMA_AVAIL:
                self.entry_limit = uapi.DmaAvailCapability.from_buffer(info, offset).avail
        if not self._ranges:  # kernels before 5.4 do not say: take what every IOMMU has
            self._ranges = [IovaRange(0, 0xFEDF_FFFF)]


def _open(name: str) -> int:
    try:
        fd = os.open(NODE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        denied = error.errno in {errno.EACCES, errno.EPERM}
        cure = f"sudo chmod 666 {NODE}" if denied else "sudo modprobe vfio-pci"
        raise HostError(
            f"{name}: cannot open {NODE}: {error.strerror}; run: {cure}", cause=error
        ) from error
    try:
        _check_version(name, fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_version(name: str, fd: int) -> None:
    version = call(name, fd, uapi.Request.GET_API_VERSION, 0)
    if version != uapi.API_VERSION:
        raise UnsupportedError(f"{NODE}: VFIO version {version}; expected {uapi.API_VERSION}")


def _info(name: str, fd: int) -> bytearray:
    """A vfio_iommu_type1_info with the capabilities behind it."""
    first = uapi.IommuInfo(ctypes.sizeof(uapi.IommuInfo))
    call(name, fd, uapi.Request.IOMMU_GET_INFO, first)
    info = bytearray(max(first.argsz, ctypes.sizeof(first)))
    uapi.IommuInfo.from_buffer(info).argsz = len(info)
    call(name, fd, uapi.Request.IOMMU_GET_INFO, info)
    return info


def _capabilities(info: bytearray) -> Iterator[tuple[int, int]]:
    """Id and offset of each capability."""
    fixed = uapi.IommuInfo.from_buffer(info)
    offset = fixed.cap_offset if fixed.flags & uapi.IommuFlag.CAPS else 0
    while offset:
        header = uapi.CapabilityHeader.from_buffer(info, offset)
        yield header.id, offset
        offset = header.next


def _iova_ranges(info: bytearray, offset: int) -> Sequence[IovaRange]:
    count = uapi.IovaRangeCapability.from_buffer(info, offset).count
    first = offset + ctypes.sizeof(uapi.IovaRangeCapability)
    entries = (uapi.IovaRangeEntry * count).from_buffer(info, first)
    return [IovaRange(entry.start, entry.end) for entry in entries]


def _memlock_advice(needed: int) -> str:
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit == resource.RLIM_INFINITY or os.geteuid() == 0:  # root is not held to the limit
        return "the machine has too little free memory to pin"
    return (
        f"that makes {needed:#x} bytes, and this process may lock {limit:#x} (RLIMIT_MEMLOCK); "
        f"run: sudo prlimit --pid {os.getpid()} --memlock={needed}, or raise it for the user with "
        "memlock in /etc/security/limits.conf or LimitMEMLOCK= in a systemd unit"
    )

"""A kernel's VFIO at the boundary: what `os.open` and `fcntl.ioctl` answer, and what was asked."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from typing import Any

import pytest

from uspace_drv.backends.vfio import uapi
from uspace_drv.backends.vfio.uapi import Request
from uspace_drv.vfio_numbers import DeviceFlag, IrqAction, IrqFlag, IrqIndex, Region

BAR_SIZE = 0x1000
CONFIG_SIZE = 0x100
IRQS = {IrqIndex.INTX: 1, IrqIndex.MSI: 4, IrqIndex.MSIX: 0}


class FakeVfio:
    """One container, one viable group, one device; `fails` and `missing` are faults on purpose."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.missing: dict[str, int] = {}
        """Errno by path of node."""
        self.fails: dict[Request, int] = {}
        """Errno by request."""
        self.version = 0
        self.has_type1 = True
        self.group_flags = uapi.GroupFlag.VIABLE
        self.device_flags = DeviceFlag.PCI | DeviceFlag.RESET
        self.irq_flags = IrqFlag.EVENTFD
        self.iommu_info = iommu_info([(0, 0xFFFF)], 100)
        self.mapped: dict[int, tuple[int, int]] = {}
        self.signals: list[tuple[int, IrqAction, int, list[int]]] = []
        """Of each SET_IRQS: index, flags, start, and 1 or -1 for each eventfd or none."""
        self.vectors_to_be_had = 32
        self.resets = 0
        self._open = os.open
        monkeypatch.setattr(os, "open", self.open)
        monkeypatch.setattr(fcntl, "ioctl", self.ioctl)

    def open(self, path: Any, flags: int, *rest: Any, **options: Any) -> int:
        name = os.fspath(path)
        if not str(name).startswith("/dev/vfio/"):
            return self._open(path, flags, *rest, **options)
        if name in self.missing:
            raise OSError(self.missing[name], os.strerror(self.missing[name]), name)
        return self._open("/dev/null", flags)

    def ioctl(self, fd: int, request: int, argument: Any = 0, mutate: bool = True) -> int:
        os.fstat(fd)  # a closed descriptor is a mistake
        number = Request(request)
        if number in self.fails:
            raise OSError(self.fails[number], os.strerror(self.fails[number]))
        answer = getattr(self, number.name.lower())(argument)
        return answer if isinstance(answer, int) else 0

    def get_api_version(self, _: int) -> int:
        return self.version

    def check_extension(self, _: int) -> int:
        return int(self.has_type1)

    def set_iommu(self, _: int) -> None: ...

    def group_set_container(self, argument: bytearray) -> None:
        os.fstat(struct.unpack("=i", argument)[0])

    def group_get_status(self, status: uapi.GroupStatus) -> None:
        status.flags = self.group_flags

    def group_get_device_fd(self, name: bytearray) -> int:
        assert name.endswith(b"\0")
        fd = os.memfd_create("device")
        os.truncate(fd, BAR_SIZE + CONFIG_SIZE)
        return fd

    def device_get_info(self, info: uapi.DeviceInfo) -> None:
        info.flags = self.device_flags

    def device_get_region_info(self, info: uapi.RegionInfo) -> None:
        if info.index == Region.BAR0:
            info.size, info.flags = BAR_SIZE, 7
        if info.index == Region.CONFIG:
            info.size, info.offset = CONFIG_SIZE, BAR_SIZE

    def device_get_irq_info(self, info: uapi.IrqInfo) -> None:
        info.count, info.flags = IRQS[IrqIndex(info.index)], self.irq_flags
        if info.index == IrqIndex.INTX:
            info.flags |= IrqFlag.MASKABLE | IrqFlag.AUTOMASKED

    def device_set_irqs(self, argument: bytearray) -> int:
        header = uapi.IrqSetHeader.from_buffer(argument)
        fds = struct.unpack_from(f"={(len(argument) - 20) // 4}i", argument, 20)
        assert header.argsz == len(argument)
        flags = IrqAction(header.flags)
        self.signals.append((header.index, flags, header.start, [min(fd, 1) for fd in fds]))
        return self.vectors_to_be_had if len(fds) > self.vectors_to_be_had else 0

    def device_reset(self, _: int) -> None:
        self.resets += 1

    def iommu_get_info(self, argument: Any) -> None:
        view = memoryview(argument).cast("B")
        size = min(len(view), len(self.iommu_info))
        view[:size] = self.iommu_info[:size]

    def iommu_map_dma(self, argument: uapi.DmaMap) -> None:
        self.mapped[argument.iova] = (argument.size, argument.flags)

    def iommu_unmap_dma(self, argument: uapi.DmaUnmap) -> None:
        argument.size = self.mapped.pop(argument.iova, (0, 0))[0]


def iommu_info(ranges: list[tuple[int, int]], avail: int) -> bytes:
    """vfio_iommu_type1_info with both capabilities behind it, the way the kernel chains them."""
    first = ctypes.sizeof(uapi.IommuInfo)
    second = first + 16 + 16 * len(ranges)
    head = struct.pack("=IIQII", second + 12, uapi.IommuFlag.CAPS, 0x1000, first, 0)
    limits = b"".join(struct.pack("=QQ", *each) for each in ranges)
    iovas = struct.pack("=HHIII", uapi.IommuCapability.IOVA_RANGE, 1, second, len(ranges), 0)
    return head + iovas + limits + struct.pack("=HHII", uapi.IommuCapability.DMA_AVAIL, 1, 0, avail)

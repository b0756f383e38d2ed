"""A kernel's VFIO at the boundary: what `os.open` and `fcntl.ioctl` answer, and what was asked."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from typing import Any

import pytest

from uspace_drv.backends.vfio import Options, VfioDevice, open_function, uapi
from uspace_drv.backends.vfio.uapi import Request, Type1Request
from uspace_drv.iommufd.uapi import memory
from uspace_drv.iommufd.uapi import requests as iommufd
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.sysfs import PciBus
from uspace_drv.vfio_numbers import DeviceFlag, IrqAction, IrqFlag, IrqIndex, Region

BAR_SIZE = 0x1000
CONFIG_SIZE = 0x100
IOAS = 7
PHYSICAL = 0x1_0000_0000
NODES = ("/dev/vfio/", "/dev/iommu")
IRQS = {IrqIndex.INTX: 1, IrqIndex.MSI: 4, IrqIndex.MSIX: 0}


class FakeVfio:
    """One container, one viable group, one device; `fails` and `missing` are faults on purpose.

    The device may be bound to an iommufd too, where memory lies at PHYSICAL plus its IOVA.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.missing: dict[str, int] = {}
        """Errno by path of node."""
        self.fails: dict[str, int] = {}
        """Errno by name of request: the numbers are used twice."""
        self.passing: dict[str, int] = {}
        """How often what is in `missing` (by path) or `fails` (by name) happens; else always."""
        self.opened: list[str] = []
        self.requests: list[str] = []
        self.device_name = ""
        self.token = bytes(16)
        self.bind_size = 0
        self.contiguous = 1 << 40
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
        self._access = os.access
        monkeypatch.setattr(os, "open", self.open)
        monkeypatch.setattr(os, "access", self.access)
        monkeypatch.setattr(fcntl, "ioctl", self.ioctl)

    def open(self, path: Any, flags: int, *rest: Any, **options: Any) -> int:
        name = str(os.fspath(path))
        if not name.startswith(NODES):
            return self._open(path, flags, *rest, **options)
        if name in self.missing and self._still(name):
            raise OSError(self.missing[name], os.strerror(self.missing[name]), name)
        self.opened.append(name)
        return device() if "/devices/" in name else self._open("/dev/null", flags)

    def access(self, path: Any, mode: int, **options: Any) -> bool:
        name = str(os.fspath(path))
        if not name.startswith(NODES):
            return self._access(path, mode, **options)
        return name not in self.missing or (mode == os.F_OK and self.missing[name] != errno.ENOENT)

    def _still(self, name: str) -> bool:
        if name not in self.passing:
            return True
        self.passing[name] -= 1
        return self.passing[name] >= 0

    def ioctl(self, fd: int, request: int, argument: Any = 0, mutate: bool = True) -> int:
        os.fstat(fd)  # a closed descriptor is a mistake
        assert isinstance(request, Request | Type1Request | iommufd.Request)
        name = request.name
        self.requests.append(name)
        if name in self.fails and self._still(name):
            raise OSError(self.fails[name], os.strerror(self.fails[name]))
        answer = getattr(self, name.lower())(argument)
        return answer if isinstance(answer, int) else 0

    def get_api_version(self, _: int) -> int:
        return self.version

    def check_extension(self, _: int) -> int:
        return int(self.has_type1)

    def set_iommu(self, _: int) -> None: ...

    def group_set_container(self, argument: bytearray) -> None:
        os.fstat(struct.unpack("=i", argument)[0])

    def group_unset_container(self, _: int) -> None: ...

    def group_get_status(self, status: uapi.GroupStatus) -> None:
        status.flags = self.group_flags

    def group_get_device_fd(self, name: bytearray) -> int:
        assert name.endswith(b"\0")
        self.device_name = name[:-1].decode()
        return device()

    def device_bind_iommufd(self, argument: uapi.BindIommufd) -> None:
        os.fstat(argument.iommufd)
        self.bind_size = argument.argsz
        if argument.flags & uapi.BindFlag.TOKEN:
            self.token = ctypes.string_at(argument.token_uuid_ptr, 16)

    def device_attach_iommufd_pt(self, argument: uapi.AttachIommufd) -> None:
        assert (argument.argsz, argument.pt_id) == (16, IOAS)

    def device_detach_iommufd_pt(self, argument: uapi.DetachIommufd) -> None:
        assert argument.argsz == 12

    def ioas_alloc(self, argument: memory.IoasAlloc) -> None:
        argument.out_ioas_id = IOAS

    def ioas_iova_ranges(self, argument: memory.IoasIovaRanges) -> None:
        entry = memory.IovaRangeEntry.from_address(argument.allowed_iovas)
        entry.start, entry.last = 0, 0xFFFF
        argument.num_iovas, argument.out_iova_alignment = 1, 0x1000

    def ioas_map(self, argument: memory.IoasMap) -> None:
        assert argument.ioas_id == IOAS
        if not argument.flags & memory.MapFlag.FIXED_IOVA:
            argument.iova = 0x10_0000 + 0x1000 * len(self.mapped)
        self.mapped[argument.iova] = (argument.length, argument.flags)

    def ioas_map_file(self, argument: memory.IoasMapFile) -> None:
        os.fstat(argument.fd)
        self.mapped[argument.iova] = (argument.length, argument.flags)

    def ioas_unmap(self, argument: memory.IoasUnmap) -> None:
        if argument.length == memory.EVERYTHING:
            self.mapped.clear()
        else:
            argument.length = self.mapped.pop(argument.iova, (0, 0))[0]

    def ioas_noiommu_get_pa(self, argument: memory.IoasNoiommuGetPa) -> None:
        assert argument.iova in self.mapped
        argument.out_phys = PHYSICAL + argument.iova
        argument.length = min(argument.length, self.contiguous)

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


def device() -> int:
    """A descriptor that can be mapped and read as a device's."""
    fd = os.memfd_create("device")
    os.truncate(fd, BAR_SIZE + CONFIG_SIZE)
    return fd


def iommu_info(ranges: list[tuple[int, int]], avail: int) -> bytes:
    """vfio_iommu_type1_info with both capabilities behind it, the way the kernel chains them."""
    first = ctypes.sizeof(uapi.IommuInfo)
    second = first + 16 + 16 * len(ranges)
    head = struct.pack("=IIQII", second + 12, uapi.IommuFlag.CAPS, 0x1000, first, 0)
    limits = b"".join(struct.pack("=QQ", *each) for each in ranges)
    iovas = struct.pack("=HHIII", uapi.IommuCapability.IOVA_RANGE, 1, second, len(ranges), 0)
    return head + iovas + limits + struct.pack("=HHII", uapi.IommuCapability.DMA_AVAIL, 1, 0, avail)


def open_vfio(
    address: PciAddress, bus: PciBus, via: str = "vfio-type1", options: Options | None = None
) -> VfioDevice:
    """What `uspace_drv.opening` does, on another file tree."""
    wanted = options or Options()
    return VfioDevice(address, bus, lambda function, bus: open_function(via, function, bus, wanted))

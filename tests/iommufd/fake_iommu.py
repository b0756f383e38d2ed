"""A kernel's /dev/iommu at the boundary: what `fcntl.ioctl` answers, and what was asked."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from ctypes import Structure
from typing import Any

import pytest

from uspace_drv.iommufd.uapi import memory, page_tables, queues
from uspace_drv.iommufd.uapi.requests import Request


class FakeIommu:
    """Objects get numbers from 1 on; `fails` and `missing` are faults on purpose."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.missing: int | None = None
        """Errno of opening it."""
        self.fails: dict[Request, int] = {}
        """Errno by request."""
        self.asked: list[Request] = []
        self.alive: list[int] = []
        self.destroyed: list[int] = []
        self.ranges = [(0, 0xFFFF)]
        self.hardware = (0, b"")
        """Kind and data of HW_INFO."""
        self.mapped: list[tuple[int, int, memory.MapFlag]] = []
        """IOVA, length and flags of each IOAS_MAP."""
        self.options: dict[tuple[int, int], int] = {}
        self.named = 0
        """The address space of VFIO's old interface."""
        self.page_tables: list[tuple[int, int, int, bytes]] = []
        """Flags, fault queue, kind and data of each HWPT_ALLOC."""
        self.dirty = 0
        self.tracking = False
        self.valid = 1000
        """How many invalidations there may be before one is refused."""
        self.invalidated = b""
        self.queues: dict[int, int] = {}
        """The end where the kernel writes, by the number of a fault or event queue."""
        self._open = os.open
        monkeypatch.setattr(os, "open", self.open)
        monkeypatch.setattr(fcntl, "ioctl", self.ioctl)

    def open(self, path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if path != "/dev/iommu":
            return self._open(path, flags, *rest, **options)
        if self.missing:
            raise OSError(self.missing, os.strerror(self.missing), path)
        return self._open("/dev/null", flags)

    def ioctl(self, fd: int, request: int, argument: Structure, mutate: bool) -> int:
        os.fstat(fd)  # a closed descriptor is a mistake
        assert argument.size == ctypes.sizeof(argument)
        number = Request(request)
        self.asked.append(number)
        if number in self.fails:
            raise OSError(self.fails[number], os.strerror(self.fails[number]))
        getattr(self, number.name.lower(), self.allocate)(argument)
        return 0

    def allocate(self, argument: Structure) -> None:
        """Give the next number where the structure has room for one."""
        outputs = [name for name, *_ in argument._fields_ if name.startswith("out_")]
        number = len(self.alive) + len(self.destroyed) + 1
        for name in outputs:
            setattr(argument, name, number if name.endswith("_id") else self._queue(number))
        self.alive += [number] if outputs else []

    def destroy(self, argument: memory.Destroy) -> None:
        self.alive.remove(argument.id)
        self.destroyed.append(argument.id)

    def ioas_iova_ranges(self, argument: memory.IoasIovaRanges) -> None:
        room, argument.num_iovas = argument.num_iovas, len(self.ranges)
        argument.out_iova_alignment = 4096
        if len(self.ranges) > room:
            raise OSError(errno.EMSGSIZE, "Message too long")
        kind = memory.IovaRangeEntry * len(self.ranges)
        entries = kind.from_address(argument.allowed_iovas)
        entries[:] = [memory.IovaRangeEntry(*each) for each in self.ranges]

    def get_hw_info(self, argument: Structure) -> None:
        argument.data_type, data = self.hardware
        ctypes.memmove(argument.data_uptr, data, min(len(data), argument.data_len))
        argument.data_len = len(data)

    def ioas_map(self, argument: memory.IoasMap) -> None:
        self.mapped.append((argument.iova, argument.length, memory.MapFlag(argument.flags)))
        if not argument.flags & memory.MapFlag.FIXED_IOVA:
            argument.iova = 0xC0DE_0000

    def ioas_noiommu_get_pa(self, argument: Structure) -> None:
        argument.out_phys, argument.length = 0x1234_5000, 0x2000

    def option(self, argument: memory.OptionValue) -> None:
        key = (argument.option_id, argument.object_id)
        if argument.op == memory.OptionOperation.GET:
            argument.val64 = self.options.get(key, 0)
        else:
            self.options[key] = argument.val64

    def vfio_ioas(self, argument: memory.VfioIoas) -> None:
        if argument.op != memory.VfioIoasOperation.GET:
            self.named = argument.ioas_id  # CLEAR comes with 0
        elif not self.named:
            raise OSError(errno.ENODEV, "No such device")
        argument.ioas_id = self.named

    def hwpt_alloc(self, argument: page_tables.HwptAlloc) -> None:
        data = ctypes.string_at(argument.data_uptr, argument.data_len) if argument.data_len else b""
        self.page_tables.append((argument.flags, argument.fault_id, argument.data_type, data))
        self.allocate(argument)

    def hwpt_get_dirty_bitmap(self, argument: page_tables.HwptGetDirtyBitmap) -> None:
        """Add the bits of `dirty`, in whole words of 64, and forget them unless told not to."""
        count = argument.length // argument.page_size
        data = self.dirty.to_bytes(-(-count // 64) * 8, "little")
        ctypes.memmove(argument.data, data, len(data))
        if not argument.flags & page_tables.NO_CLEAR:
            self.dirty = 0

    def hwpt_set_dirty_tracking(self, argument: page_tables.HwptSetDirtyTracking) -> None:
        self.tracking = bool(argument.flags)

    def hwpt_invalidate(self, argument: page_tables.HwptInvalidate) -> None:
        size = argument.entry_len * argument.entry_num
        self.invalidated = ctypes.string_at(argument.data_uptr, size) if size else b""
        if argument.entry_num > self.valid:
            argument.entry_num = self.valid
            raise OSError(errno.EINVAL, "Invalid argument")

    def viommu_alloc(self, argument: queues.ViommuAlloc) -> None:
        """Answer in the caller's data: each byte one more."""
        data = ctypes.string_at(argument.data_uptr, argument.data_len) if argument.data_len else b""
        ctypes.memmove(argument.data_uptr, bytes(each + 1 for each in data), len(data))
        self.allocate(argument)

    def _queue(self, number: int) -> int:
        ours, self.queues[number] = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        return ours

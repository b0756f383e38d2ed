"""A kernel's answers about the features of a device: DEVICE_FEATURE, hot reset, pictures."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from typing import Any, NoReturn

import pytest

from uspace_drv.backends.vfio.uapi import Request
from uspace_drv.backends.vfio.uapi.features import DmaLoggingRange, Feature, FeatureHeader
from uspace_drv.backends.vfio.uapi.gfx import GfxPlaneInfo, PlaneFlag
from uspace_drv.backends.vfio.uapi.hot_reset import DependentDevice, HotResetFlag, HotResetInfo
from uspace_drv.vfio_numbers import FeatureFlag, MigrationFlag, MigrationState

ALL = frozenset(Feature)
STATE = bytes(range(100))
SAVING = {MigrationState.PRE_COPY, MigrationState.STOP_COPY}
PCI_STYLE = "=IHBB"


class FakeFeatures:
    """One device with every feature; `offered`, `fails` and `refuses` take some away."""

    reset_fds: tuple[int, ...] = (71,)

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.offered = ALL
        self.fails: dict[str, int] = {}
        """Errno by name of request or feature."""
        self.set: list[tuple[Feature, bytes]] = []
        self.support = MigrationFlag.STOP_COPY | MigrationFlag.PRE_COPY
        self.state = MigrationState.RUNNING
        self.refuses: set[MigrationState] = set()
        self.saved: bytes | None = None
        self.dirty = 0
        self.ranges: list[tuple[int, int]] = []
        self.dmabufs: list[bytes] = []
        self.is_low = False
        self.affected: list[tuple[int, int, int, int]] = []
        self.reset_flags = HotResetFlag(0)
        self.hot_resets: list[tuple[int, ...]] = []
        self.resets = 0
        self.plane_flag = PlaneFlag.REGION
        self._data: int | None = None
        monkeypatch.setattr(fcntl, "ioctl", self.ioctl)

    def ioctl(self, fd: int, request: int, argument: Any = 0, mutate: bool = True) -> int:
        os.fstat(fd)
        name = Request(request).name
        self._check(name)
        answer = getattr(self, name.lower())(argument)
        return answer if isinstance(answer, int) else 0

    def device_feature(self, message: bytearray) -> int:
        header = FeatureHeader.from_buffer(message)
        assert header.argsz == len(message)
        feature, action = Feature(header.flags & 0xFFFF), FeatureFlag(header.flags & ~0xFFFF)
        if feature not in self.offered:
            refuse(errno.ENOTTY)
        if FeatureFlag.PROBE in action:
            return 0
        self._check(feature.name)
        data = memoryview(message)[8:]
        if FeatureFlag.SET in action:
            self.set.append((feature, bytes(data)))
        handler = getattr(self, feature.name.lower(), None)
        answer = handler(data, action) if handler else 0
        return answer if isinstance(answer, int) else 0

    def migration(self, data: memoryview, _: FeatureFlag) -> None:
        data[:] = struct.pack("=Q", self.support)

    def mig_data_size(self, data: memoryview, _: FeatureFlag) -> None:
        data[:] = struct.pack("=Q", len(STATE))

    def mig_device_state(self, data: memoryview, action: FeatureFlag) -> None:
        fd = -1
        if FeatureFlag.SET in action:
            fd = self._move(MigrationState(struct.unpack_from("=I", data)[0]))
        data[:] = struct.pack("=Ii", self.state, fd)

    def mig_get_precopy_info(self, info: Any) -> None:
        info.initial_bytes, info.dirty_bytes, info.flags = 40, 2, 1

    def low_power_entry(self, _data: memoryview, _: FeatureFlag) -> None:
        if self.is_low:
            refuse(errno.EINVAL)
        self.is_low = True

    low_power_entry_with_wakeup = low_power_entry

    def low_power_exit(self, _data: memoryview, _: FeatureFlag) -> None:
        self.is_low = False

    def dma_logging_start(self, data: memoryview, _: FeatureFlag) -> None:
        page_size, count, _reserved, address = struct.unpack("=QIIQ", data)
        ranges = (DmaLoggingRange * count).from_address(address)
        self.ranges = [(each.iova, each.length) for each in ranges]
        data[:8] = struct.pack("=Q", 2 * page_size)

    def dma_logging_report(self, data: memoryview, _: FeatureFlag) -> None:
        _iova, length, page_size, address = struct.unpack("=QQQQ", data)
        words = -(-(length // page_size) // 64)
        ctypes.memmove(address, self.dirty.to_bytes(8 * words, "little"), 8 * words)

    def dma_buf(self, data: memoryview, _: FeatureFlag) -> int:
        self.dmabufs.append(bytes(data))
        return os.memfd_create("dma-buf")

    def device_reset(self, _: int) -> None:
        self.resets += 1
        self.state = MigrationState.RUNNING

    def device_get_pci_hot_reset_info(self, argument: Any) -> None:
        answer = bytearray(argument)
        info = HotResetInfo.from_buffer(answer)
        info.count, info.flags = len(self.affected), self.reset_flags
        size, room = 12 + 8 * info.count, info.argsz
        rows = b"".join(struct.pack(PCI_STYLE, *each) for each in self.affected)
        if room >= size:
            answer[12:size] = rows
        ctypes.memmove((ctypes.c_char * len(answer)).from_buffer(argument), bytes(answer), room)
        if room < size:
            refuse(errno.ENOSPC)
        assert ctypes.sizeof(DependentDevice) == struct.calcsize(PCI_STYLE)

    def device_pci_hot_reset(self, argument: bytearray) -> None:
        argsz, flags, count = struct.unpack_from("=III", argument)
        assert (argsz, flags) == (len(argument), 0)
        self.hot_resets.append(struct.unpack_from(f"={count}i", argument, 12))

    def device_query_gfx_plane(self, info: GfxPlaneInfo) -> None:
        if info.flags & ~PlaneFlag.PROBE != self.plane_flag:
            refuse(errno.EINVAL)
        if not info.flags & PlaneFlag.PROBE:
            info.drm_format = int.from_bytes(b"XR24", "little")
            info.width, info.height, info.stride, info.size, info.source = (
                640,
                480,
                2560,
                1228800,
                9,
            )

    def device_get_gfx_dmabuf(self, argument: bytearray) -> int:
        self.dmabufs.append(bytes(argument))
        return os.memfd_create("picture")

    def _check(self, name: str) -> None:
        if name in self.fails:
            refuse(self.fails[name])

    def _move(self, wanted: MigrationState) -> int:
        """Go there, and open the data where a session begins, as a file that holds it."""
        if wanted in self.refuses:
            refuse(errno.EINVAL)
        was, self.state = self.state, wanted
        if was is MigrationState.RESUMING and self._data is not None:
            self.saved = os.pread(self._data, 1000, 0)
        if wanted is MigrationState.STOP_COPY and was is MigrationState.PRE_COPY:
            assert self._data is not None
            os.pwrite(self._data, STATE[40:], 40)
            return -1
        if wanted in SAVING:
            self._data = os.memfd_create("state")
            os.pwrite(self._data, STATE[:40] if wanted is MigrationState.PRE_COPY else STATE, 0)
            return os.open(f"/proc/self/fd/{self._data}", os.O_RDONLY)
        if wanted is MigrationState.RESUMING:
            self._data = os.memfd_create("state")
            return os.open(f"/proc/self/fd/{self._data}", os.O_WRONLY)
        self.close()
        return -1

    def close(self) -> None:
        if self._data is not None:
            os.close(self._data)
            self._data = None


def refuse(number: int) -> NoReturn:
    raise OSError(number, os.strerror(number))

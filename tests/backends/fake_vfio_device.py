"""The device half of a kernel's VFIO: regions with capabilities, interrupts, doorbells."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from uspace_drv.backends.vfio import VfioDevice, uapi
from uspace_drv.backends.vfio.opening import Handover
from uspace_drv.backends.vfio.uapi import Request
from uspace_drv.backends.vfio.uapi.ioeventfd import IoEventFd
from uspace_drv.port import DmaSpace
from uspace_drv.vfio_numbers import (
    DeviceFlag,
    IrqAction,
    IrqFlag,
    IrqIndex,
    Region,
    RegionCapability,
    RegionFlag,
)

PAGE = 4096
READ_WRITE = RegionFlag.READ | RegionFlag.WRITE
MAPPED = READ_WRITE | RegionFlag.MMAP
STRIDE = 1 << 20
"""Where regions lie in the device's file: one after the other."""


@dataclass
class FakeRegion:
    """A region and its chain: (id, body) each, placed one after the other."""

    size: int
    flags: RegionFlag = MAPPED
    chain: Sequence[tuple[int, bytes]] = ()


def sparse(*areas: tuple[int, int]) -> tuple[int, bytes]:
    body = struct.pack("=II", len(areas), 0) + b"".join(struct.pack("=QQ", *area) for area in areas)
    return RegionCapability.SPARSE_MMAP, body


def typed(kind: int, subtype: int) -> tuple[int, bytes]:
    return RegionCapability.TYPE, struct.pack("=II", kind, subtype)


class FakeKernel:
    """Answers what an open device is asked; `fails` are errnos by request, on purpose."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.regions: dict[int, FakeRegion] = {
            0: FakeRegion(2 * PAGE),
            Region.CONFIG: FakeRegion(256, READ_WRITE),
        }
        self.region_count = 9
        self.irq_count = 5
        self.mangle: Callable[[bytearray], None] = lambda reply: None
        """What is done to the bytes of a region's description."""
        self.irqs = {
            IrqIndex.INTX: (1, 7),
            IrqIndex.MSI: (4, IrqFlag.EVENTFD | IrqFlag.NORESIZE),
            IrqIndex.MSIX: (8, IrqFlag.EVENTFD),
            IrqIndex.ERR: (1, IrqFlag.EVENTFD),
            IrqIndex.REQ: (1, IrqFlag.EVENTFD),
        }
        self.fails: dict[Request, int] = {}
        self.sets: list[tuple[IrqIndex, IrqAction, int, int]] = []
        """Of each SET_IRQS: index, flags, start, count."""
        self.signalled: dict[tuple[IrqIndex, int], int] = {}
        """The eventfd of each vector that is on."""
        self.unmasking: list[int] = []
        self.doorbells: dict[tuple[int, int], tuple[int, int]] = {}
        """By place and value: flags and eventfd."""
        self.file = os.memfd_create("device")
        os.ftruncate(self.file, 16 * STRIDE)
        monkeypatch.setattr(fcntl, "ioctl", self.ioctl)

    def close(self) -> None:
        os.close(self.file)

    def ioctl(self, fd: int, request: int, argument: Any = 0, mutate: bool = True) -> int:
        os.fstat(fd)
        if request in self.fails:
            number = self.fails[Request(request)]
            raise OSError(number, os.strerror(number))
        answer = getattr(self, Request(request).name.lower())(argument)
        return answer if isinstance(answer, int) else 0

    def device_get_info(self, info: uapi.DeviceInfo) -> None:
        info.flags = DeviceFlag.PCI | DeviceFlag.RESET
        info.num_regions, info.num_irqs = self.region_count, self.irq_count

    def device_get_region_info(self, argument: uapi.RegionInfo | bytearray) -> None:
        view = memoryview(argument).cast("B")
        number = struct.unpack_from("=I", view, 8)[0]
        if number == Region.VGA:
            raise OSError(22, "Invalid argument")
        region = self.regions.get(number, FakeRegion(0, RegionFlag(0)))
        chain, place = bytearray(), 32
        for index, (kind, body) in enumerate(region.chain):
            following = place + 8 + len(body) if index + 1 < len(region.chain) else 0
            chain += struct.pack("=HHI", kind, 1, following) + body
            place += 8 + len(body)
        fits = len(view) >= 32 + len(chain)
        flags = region.flags | (RegionFlag.CAPS if chain else 0)
        first = 32 if chain and fits else 0
        reply = bytearray(
            struct.pack("=IIIIQQ", place, flags, number, first, region.size, number * STRIDE)
        )
        reply += chain if fits else b""
        if fits and chain:
            self.mangle(reply)
        view[: len(reply)] = reply

    def device_get_irq_info(self, info: uapi.IrqInfo) -> None:
        if IrqIndex(info.index) not in self.irqs:
            raise OSError(22, "Invalid argument")
        info.count, info.flags = self.irqs[IrqIndex(info.index)]

    def device_set_irqs(self, argument: bytearray) -> None:
        header = uapi.IrqSetHeader.from_buffer(argument)
        index, flags, data = IrqIndex(header.index), IrqAction(header.flags), bytes(argument[20:])
        self.sets.append((index, flags, header.start, header.count))
        vectors = [(index, header.start + number) for number in range(header.count)]
        if flags == IrqAction.DATA_NONE | IrqAction.TRIGGER and not vectors:
            self.signalled = {each: fd for each, fd in self.signalled.items() if each[0] != index}
        elif flags == IrqAction.DATA_EVENTFD | IrqAction.TRIGGER:
            for vector, fd in zip(vectors, struct.unpack(f"={header.count}i", data), strict=True):
                self.signalled[vector] = fd
        elif flags == IrqAction.DATA_EVENTFD | IrqAction.UNMASK:
            self.unmasking.append(struct.unpack("=i", data)[0])
        elif flags & IrqAction.TRIGGER:
            wanted = data if flags & IrqAction.DATA_BOOL else bytes([1] * header.count)
            for vector, fires in zip(vectors, wanted, strict=True):
                if fires:
                    os.eventfd_write(self.signalled[vector], 1)

    def device_reset(self, _: int) -> None:
        self.signalled = {each: fd for each, fd in self.signalled.items() if each[0] > 2}

    def device_ioeventfd(self, argument: IoEventFd) -> None:
        place = (argument.offset, argument.data)
        if argument.fd >= 0:
            self.doorbells[place] = (argument.flags, argument.fd)
        else:
            del self.doorbells[place]


class FakeOpening:
    """Fills `Opening` with the fake's file."""

    via = "vfio-fake"
    reset_fds: Sequence[int] = ()

    def __init__(self, kernel: FakeKernel) -> None:
        self._kernel = kernel
        self.is_closed = False

    @property
    def dma(self) -> DmaSpace:
        raise NotImplementedError

    def open_device(self) -> int:
        return os.dup(self._kernel.file)

    def handover(self) -> Handover:
        raise NotImplementedError

    def close(self) -> None:
        self.is_closed = True


def open_fake(kernel: FakeKernel) -> VfioDevice:
    return VfioDevice.from_opening("0000:00:04.0", FakeOpening(kernel))

"""A client that sends whatever it is told to, and a model that has everything a server serves."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from uspace_drv import IrqKind, Register, RegisterBlock, field, ro, rw, wo
from uspace_drv.errors import DeviceGone
from uspace_drv.models import Area, Bar, DeviceModel, PciIdentity, on_write
from uspace_drv.native import Channel, Message
from uspace_drv.vfio_numbers import DmaFlag, IrqAction
from uspace_drv.vfiouser.numbers import Command, Flag
from uspace_drv.vfiouser.version import (
    Capabilities,
    TwinSocket,
    Version,
    pack_version,
    unpack_version,
)
from uspace_drv.vfiouser.wire import DmaMap, DmaUnmap, IrqSet, RegionAccess, pack

LIMIT = 2 << 20
PATIENCE = 10.0
PAGE = 4096
BOTH = DmaFlag.READ | DmaFlag.WRITE
ERROR = Flag.REPLY | Flag.ERROR


class Count(Register):
    """A length."""

    bytes = field(15, 0, "how many")


class CopyRegisters(RegisterBlock, size=0x100):
    """Copies memory to memory, at once or in the background, and keeps what was rung."""

    scratch = rw(0x00)
    wide = rw(0x08, width=64)
    source = rw(0x10, width=64)
    destination = rw(0x18, width=64)
    count = rw(0x20, Count)
    start = wo(0x24, "1 copies now, 2 in the background, 3 fails as no model should")
    rung = ro(0x28, "the last value of the bell")
    rings = ro(0x2C, "how often a bell rang")
    bell = wo(0x30, "any value")
    gong = wo(0x34, "always 5")


class Copier(DeviceModel):
    """BAR 0 registers, BAR 2 all memory, BAR 4 registers with a page of memory."""

    identity = PciIdentity(0x1234, 0x0001)
    bars = {
        0: Bar(CopyRegisters, size=0x1000),
        2: Bar(size=0x4000, memory=(Area(0, 0x4000),)),
        4: Bar(size=0x4000, memory=(Area(0x1000, 0x1000), Area(0x3000, 0x1000))),
    }
    irqs = {IrqKind.INTX: 1, IrqKind.MSI: 4, IrqKind.MSIX: 8}
    doorbells = {CopyRegisters.bell: None, CopyRegisters.gong: 5}

    def copy(self) -> None:
        data = self.read_memory(CopyRegisters.source, self.get(CopyRegisters.count).bytes)
        self.write_memory(CopyRegisters.destination, data)
        self.interrupts.send()

    @on_write(CopyRegisters.start)
    def begin(self, how: int) -> None:
        if how == 3:
            raise KeyError("on purpose")
        self.after(0.001 if how == 2 else 0.0, self.copy)

    @on_write(CopyRegisters.bell)
    def ring(self, value: int) -> None:
        self.set(CopyRegisters.rung, value)
        self.set(CopyRegisters.rings, self.get(CopyRegisters.rings) + 1)

    @on_write(CopyRegisters.gong)
    def strike(self, value: int) -> None:
        self.ring(value)


class RawClient:
    """One connection; `command` returns the reply, or `TimeoutError`.

    With `memory` it answers DMA_READ and DMA_WRITE of the server by it, whose byte 0 is IOVA 0.
    """

    def __init__(self, path: Path, memory: bytearray | None = None) -> None:
        end = socket.socket(socket.AF_UNIX)
        end.settimeout(PATIENCE)
        end.connect(os.fspath(path))
        end.settimeout(None)
        self.channel = Channel("client", end.detach(), LIMIT, 253)
        self.twin: Channel | None = None
        self.memory = memory
        self.is_qemu = False
        self._id = 0

    def greet(
        self, minor: int = 2, *, twin: bool = False, version: Version | None = None
    ) -> Version:
        said = version or Version(
            0,
            minor,
            Capabilities(max_msg_fds=16, twin_socket=TwinSocket(twin), write_multiple=True),
        )
        self.is_qemu = said.is_qemu
        reply = self.command(Command.VERSION, pack_version(said))
        answered = unpack_version(reply.payload)
        if reply.fds:
            self.twin = Channel("twin", reply.fds[0], LIMIT, 0)
        return answered

    def send(
        self, command: int, payload: bytes = b"", fds: Sequence[int] = (), flags: int = 0
    ) -> int:
        self._id += 1
        self.channel.send(self._id, command, flags, 0, payload, fds)
        return self._id

    def command(self, command: int, payload: bytes = b"", fds: Sequence[int] = ()) -> Message:
        number = self.send(command, payload, fds)
        while (reply := self.channel.receive(PATIENCE)) is not None:
            if reply.flags & Flag.REPLY:
                assert (reply.id, reply.command) == (number, command)
                return reply
            self.answer(self.channel, reply)
        raise TimeoutError(f"no reply to command {command}")

    def answer(self, channel: Channel, request: Message) -> None:
        assert self.memory is not None
        address, count = struct.unpack_from("<QI" if self.is_qemu else "<QQ", request.payload)
        size = 12 if self.is_qemu else 16
        head = request.payload[:size]
        if request.command == Command.DMA_READ:
            head += self.memory[address : address + count]
        else:
            self.memory[address : address + count] = request.payload[size : size + count]
        channel.send(request.id, request.command, Flag.REPLY, 0, head.ljust(16, b"\0"))

    def answer_twin(self, requests: int) -> None:
        assert self.twin is not None
        for _ in range(requests):
            request = self.twin.receive(PATIENCE)
            assert request is not None
            self.answer(self.twin, request)

    def read(self, offset: int, width: int = 4, region: int = 0) -> int:
        reply = self.command(Command.REGION_READ, pack(RegionAccess(offset, region, width)))
        assert not reply.error, reply
        return int.from_bytes(reply.payload[16:], "little")

    def write(self, offset: int, value: int, width: int = 4, region: int = 0) -> Message:
        data = value.to_bytes(width, "little")
        return self.command(Command.REGION_WRITE, pack(RegionAccess(offset, region, width), data))

    def map(
        self, address: int, size: int, fd: int | None = None, offset: int = 0, flags: int = BOTH
    ) -> Message:
        body = pack(DmaMap(32, flags, offset, address, size))
        return self.command(Command.DMA_MAP, body, () if fd is None else (fd,))

    def unmap(self, address: int, size: int, flags: int = 0) -> Message:
        return self.command(Command.DMA_UNMAP, pack(DmaUnmap(24, flags, address, size)))

    def set_irqs(
        self,
        flags: int,
        index: int,
        start: int = 0,
        count: int = 1,
        fds: Sequence[int] = (),
        data: bytes = b"",
    ) -> Message:
        body = pack(IrqSet(20 + len(data), IrqAction(flags), index, start, count), data)
        return self.command(Command.DEVICE_SET_IRQS, body, fds)

    def be_bus_master(self) -> None:
        assert not self.write(4, 0x0006, 2, region=7).error

    def is_dropped(self) -> bool:
        """Whether the server hangs up; what it says before is passed over."""
        with suppress(DeviceGone):
            while (said := self.channel.receive(PATIENCE)) is not None:
                for fd in said.fds:
                    os.close(fd)
            return False
        return True

    def copy(self, source: int, destination: int, count: int, how: int = 1) -> Message:
        self.write(0x10, source, 8)
        self.write(0x18, destination, 8)
        self.write(0x20, count)
        return self.write(0x24, how)

    def copy_posted(self, source: int, destination: int, count: int) -> None:
        """As `copy`, and whatever comes then is left to the caller."""
        self.write(0x10, source, 8)
        self.write(0x18, destination, 8)
        self.write(0x20, count)
        start = pack(RegionAccess(0x24, 0, 4), b"\1\0\0\0")
        self.send(Command.REGION_WRITE, start, flags=Flag.NO_REPLY)

    def close(self) -> None:
        self.channel.close()
        if self.twin is not None:
            self.twin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

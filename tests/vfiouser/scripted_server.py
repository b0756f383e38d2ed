"""A vfio-user server of a few lines, in a thread, whose every answer a test can replace.

Its device has 256 bytes of registers in BAR 0 that keep what is written, by message; tests add
what they need.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from uspace_drv.errors import UspaceError
from uspace_drv.native import Channel, Message
from uspace_drv.vfio_numbers import IrqAction, IrqFlag, Region, RegionFlag
from uspace_drv.vfiouser import wire
from uspace_drv.vfiouser.numbers import Flag
from uspace_drv.vfiouser.regions import RegionInfo, pack_region_info, unpack_region_request
from uspace_drv.vfiouser.version import Capabilities, Version, pack_version

LIMIT = (1 << 20) + 4096
READ_WRITE = RegionFlag.READ | RegionFlag.WRITE


@dataclass
class Reply:
    """What a handler answers with; `raw` is sent as it is, without a header of ours."""

    payload: bytes = b""
    fds: Sequence[int] = ()
    error: int | None = None
    id: int | None = None
    command: int | None = None
    flags: int = 0
    raw: bytes | None = None


Handler = Callable[[Message], Reply | None]


@dataclass
class Device:
    """What the server tells of its device."""

    capabilities: Capabilities = field(default_factory=lambda: Capabilities(max_msg_fds=16))
    flags: int = 3
    region_count: int = 9
    irq_count: int = 5
    regions: dict[int, RegionInfo] = field(default_factory=dict)
    region_fds: dict[int, int] = field(default_factory=dict)
    irqs: dict[int, tuple[int, int]] = field(default_factory=dict)


def small_device() -> Device:
    """BAR 0 by message, INTx and four MSI."""
    device = Device()
    device.regions = {
        0: RegionInfo(0, READ_WRITE, 256, 0),
        Region.CONFIG: RegionInfo(Region.CONFIG, READ_WRITE, 256, 0),
    }
    device.irqs = {0: (1, IrqFlag.EVENTFD | IrqFlag.MASKABLE | IrqFlag.AUTOMASKED), 1: (4, 1)}
    return device


class ScriptedServer:
    """Serves one client after the other.

    `handlers` come before its own answers, and `mangle` comes after all of them.
    """

    def __init__(self, path: Path, device: Device | None = None) -> None:
        self.path = path
        self.device = device or small_device()
        self.handlers: dict[int, Handler] = {}
        self.mangle: Callable[[Reply], Reply | None] = lambda reply: reply
        self.log: list[Message] = []
        self.events: dict[tuple[int, int], int] = {}
        self.memory: dict[int, bytearray] = {}
        self.channel: Channel | None = None
        self.twin: Channel | None = None
        self.served = threading.Event()
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="scripted server")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        self._listening.shutdown(socket.SHUT_RDWR)
        self.hang_up()
        self._thread.join(10)
        self._listening.close()

    def hang_up(self) -> None:
        """End the connection, as a server does that dies."""
        if self.channel is not None:
            self.channel.close()

    def commands(self) -> list[int]:
        """What was asked, without the questions at the start."""
        asked = [message.command for message in self.log]
        return [command for command in asked if command not in {1, 4, 5, 7}]

    def signal(self, index: int, start: int = 0) -> None:
        """Raise an interrupt."""
        os.eventfd_write(self.events[index, start], 1)

    def ask(self, channel: Channel, command: int, payload: bytes) -> Message:
        """Send a request to the client; from a handler, or on the twin socket."""
        reply = channel.exchange(0xABC, command, payload, (), 5.0)
        assert reply is not None
        assert (reply.id, reply.command) == (0xABC, command)
        return reply

    def _run(self) -> None:
        while not self._closing:
            try:
                end, _ = self._listening.accept()
            except OSError:
                return
            self.channel = Channel("scripted server", end.detach(), LIMIT, 16)
            try:
                self._serve(self.channel)
            except UspaceError:
                pass
            finally:
                self._let_go()

    def _let_go(self) -> None:
        assert self.channel is not None
        self.channel.close()
        if self.twin is not None:
            self.twin.close()
        for event in self.events.values():
            os.close(event)
        self.events.clear()
        self.served.set()

    def _serve(self, channel: Channel) -> None:
        while True:
            message = channel.receive(1.0)
            if message is not None:
                self.log.append(message)
                handler = self.handlers.get(message.command, self._answer)
                self._reply(channel, message, handler(message))

    def _reply(self, channel: Channel, message: Message, reply: Reply | None) -> None:
        reply = reply and self.mangle(reply)
        if reply is None or message.flags & Flag.NO_REPLY:
            return
        if reply.raw is not None:
            os.write(channel.fileno(), reply.raw)
            return
        flags = Flag.REPLY | (Flag.ERROR if reply.error is not None else Flag(0)) | reply.flags
        channel.send(
            message.id if reply.id is None else reply.id,
            message.command if reply.command is None else reply.command,
            flags,
            reply.error or 0,
            reply.payload,
            reply.fds,
        )

    def _answer(self, message: Message) -> Reply:
        answer: Any = getattr(self, f"_answer_{message.command}", None)
        found: Reply = answer(message) if answer else Reply(error=95)
        return found

    def _answer_1(self, message: Message) -> Reply:
        return Reply(pack_version(Version(0, 1, self.device.capabilities)))

    def _answer_2(self, message: Message) -> Reply:
        for fd in message.fds:
            os.close(fd)
        return Reply()

    def _answer_3(self, message: Message) -> Reply:
        return Reply(message.payload)

    def _answer_4(self, message: Message) -> Reply:
        device = self.device
        return Reply(
            wire.pack(wire.DeviceInfo(16, device.flags, device.region_count, device.irq_count))
        )

    def _answer_5(self, message: Message) -> Reply:
        index, argsz = unpack_region_request(message.payload)
        info = self.device.regions.get(index, RegionInfo(index, 0, 0, 0))
        fd = self.device.region_fds.get(index)
        return Reply(pack_region_info(info, argsz), () if fd is None else (fd,))

    def _answer_7(self, message: Message) -> Reply:
        asked = wire.unpack(wire.IrqInfo, message.payload)
        count, flags = self.device.irqs.get(asked.index, (0, 0))
        return Reply(wire.pack(wire.IrqInfo(16, flags, asked.index, count)))

    def _answer_8(self, message: Message) -> Reply:
        body, _ = wire.split_irq_set(message.payload)
        if body.flags & IrqAction.DATA_EVENTFD:
            for start, fd in enumerate(message.fds, body.start):
                self._forget(body.index, start)
                self.events[body.index, start] = fd
            if not message.fds:
                self._forget(body.index, body.start)
        elif body.flags & IrqAction.TRIGGER and body.count == 0:
            for index, start in list(self.events):
                self._forget(index, start)
        return Reply()

    def _forget(self, index: int, start: int) -> None:
        if (index, start) in self.events:
            os.close(self.events.pop((index, start)))

    def _store(self, region: int) -> bytearray:
        size = self.device.regions[region].size
        return self.memory.setdefault(region, bytearray(size))

    def _answer_9(self, message: Message) -> Reply:
        access = wire.unpack(wire.RegionAccess, message.payload)
        data = self._store(access.region)[access.offset : access.offset + access.count]
        return Reply(message.payload + data)

    def _answer_10(self, message: Message) -> Reply:
        access, data = wire.split_counted(wire.RegionAccess, message.payload)
        self._store(access.region)[access.offset : access.offset + access.count] = data
        return Reply(wire.pack(access))

    def _answer_13(self, message: Message) -> Reply:
        self.memory.clear()
        return Reply()

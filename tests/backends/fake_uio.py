"""UIO devices in a machine made of files: a node that can be mapped, what sysfs says of it."""

from __future__ import annotations

import mmap
import os
import socket
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.unit.pci.fake_sysfs import FakeMachine


@dataclass(frozen=True)
class FakeMap:
    """One entry of maps/."""

    name: str
    size: int = mmap.PAGESIZE
    offset: int = 0
    address: int = 0xD000_0000


def add_uio(
    machine: FakeMachine,
    number: int,
    name: str,
    maps: list[FakeMap],
    *,
    device: str = "USPC0001:00",
    driver: str = "uio_pdrv_genirq",
) -> None:
    """A platform device with its UIO node, a file in which map N begins at page N."""
    behind = f"/sys/devices/platform/{device}"
    folder = f"{behind}/uio/uio{number}"
    machine.file(f"{folder}/name", f"{name}\n")
    machine.file(f"{folder}/version", "devicetree\n")
    machine.file(f"{folder}/event", "5\n")
    for index, each in enumerate(maps):
        for attribute, text in {
            "name": each.name,
            "addr": f"{each.address:#018x}",
            "size": f"{each.size:#018x}",
            "offset": f"{each.offset:#x}",
        }.items():
            machine.file(f"{folder}/maps/map{index}/{attribute}", f"{text}\n")
    machine.file(f"{behind}/uevent")
    machine.file(f"/sys/bus/platform/drivers/{driver}/bind")
    machine.symlink(f"{behind}/driver", f"/sys/bus/platform/drivers/{driver}")
    # As in sysfs, where a link always ends in the name of what it points to.
    machine.path(f"{folder}/device").symlink_to(f"../../../{device}")
    machine.symlink(f"/sys/class/uio/uio{number}", folder)
    machine.file(f"/dev/uio{number}")
    os.truncate(machine.path(f"/dev/uio{number}"), (len(maps) + 1) * mmap.PAGESIZE)


class FakeNode:
    """A node's interrupts by a pair of sockets: counts go one way, irqcontrol the other."""

    def __init__(self) -> None:
        self._kernel, self._user = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._kernel.setblocking(False)
        self._user.setblocking(False)

    @property
    def fd(self) -> int:
        return self._user.fileno()

    def fire(self, count: int) -> None:
        """What a read of the node will give: interrupts since boot."""
        self._kernel.send(struct.pack("=I", count))

    def controls(self) -> list[int]:
        """The values that were written since the last call."""
        seen: list[int] = []
        while True:
            try:
                seen += struct.unpack("=i", self._kernel.recv(4))
            except BlockingIOError:
                return seen

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._kernel.close()
        self._user.close()

"""Doorbells of the served model that ring without a message: eventfds, and memory for values.

QEMU docs/interop/vfio-user.rst, DEVICE_GET_REGION_IO_FDS. A doorbell that takes any value is of
libvfio-user's shadow kind (docs/ioregionfd.md there): the value is stored to memory first.
"""

from __future__ import annotations

import mmap
import os
import select
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from uspace_drv.eventfd import SharedEventFd
from uspace_drv.models import DeviceModel
from uspace_drv.models.bars import sealed_file
from uspace_drv.native import Window
from uspace_drv.registers import Declaration
from uspace_drv.vfio_numbers import REGION_COUNT
from uspace_drv.vfiouser.numbers import IoFdType
from uspace_drv.vfiouser.regions import IoFd, pack_io_fds, unpack_io_fds_request
from uspace_drv.vfiouser.server.refusal import invalid
from uspace_drv.vfiouser.server.regions import Reply

SLOT = 8
"""Bytes of shared memory for each value."""

DATAMATCH = 1
"""KVM_IOEVENTFD_FLAG_DATAMATCH of Linux, linux/kvm.h: only this value rings."""


@dataclass(frozen=True)
class Doorbell:
    """A register that rings `event`; `value` is the only one written, None for any."""

    bar: int
    register: Declaration[Any, Any]
    value: int | None
    place: int
    event: SharedEventFd

    @property
    def width(self) -> int:
        """Bytes."""
        return self.register.width // 8

    def describe(self, fd_index: int, memory_index: int) -> IoFd:
        """What the client has to know."""
        where = (self.register.offset, self.width, fd_index)
        if self.value is None:
            return IoFd(*where, IoFdType.IOEVENTFD_SHADOW, 0, memory_index, self.place)
        return IoFd(*where, IoFdType.IOEVENTFD, DATAMATCH, 0, self.value)


class Doorbells:
    """Those of one model for one client, which takes `most_fds` descriptors in a message.

    They are made when the client asks for them, and `hear` is told then.
    """

    def __init__(
        self, model: DeviceModel, most_fds: int, hear: Callable[[Doorbells], None]
    ) -> None:
        self._model = model
        self._most_fds = most_fds
        self._hear = hear
        self._by_descriptor: dict[int, Doorbell] = {}
        self._poll: select.epoll | None = None
        self._memory_fd = -1
        self._memory: Window | None = None

    def fileno(self) -> int:
        """Readable while one has rung."""
        return -1 if self._poll is None else self._poll.fileno()

    def describe(self, payload: bytes) -> bytes | Reply:
        """GET_REGION_IO_FDS: as many doorbells of a region as the client takes descriptors."""
        index, argsz = unpack_io_fds_request(payload)
        if index >= REGION_COUNT:
            raise invalid(f"there is no region {index}")
        if self._poll is None and self._model.doorbells:
            self._open()
            self._hear(self)
        found = [each for each in self._by_descriptor.values() if each.bar == index]
        found = found[: max(0, self._most_fds - 1)]
        if not found:
            return pack_io_fds(index, [], argsz)
        io_fds = [each.describe(number, len(found)) for number, each in enumerate(found)]
        descriptors = (*(each.event.fileno() for each in found), self._memory_fd)
        return Reply(pack_io_fds(index, io_fds, argsz), descriptors)

    def ring(self) -> None:
        """Write to the model what the client has rung since the last call."""
        if self._poll is None:
            return
        for descriptor, _ in self._poll.poll(0):
            doorbell = self._by_descriptor[descriptor]
            if doorbell.event.take():
                offset, width = doorbell.register.offset, doorbell.width
                self._model.write_bar(doorbell.bar, offset, width, self._value_of(doorbell))

    def close(self) -> None:
        """Give everything back. Twice is fine."""
        if self._poll is not None:
            self._poll.close()
            self._poll = None
        for each in self._by_descriptor.values():
            each.event.close()
        self._by_descriptor.clear()
        if self._memory is not None:
            self._memory.close()
            self._memory = None
            os.close(self._memory_fd)

    def _open(self) -> None:
        self._poll = select.epoll()
        size = -(-SLOT * len(self._model.doorbells) // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory_fd = sealed_file(f"{self._model.name} doorbells", size)
        self._memory = Window.map(f"{self._model.name} doorbells", self._memory_fd, 0, size)
        for number, (bar, register, value) in enumerate(self._declared()):
            event = SharedEventFd()
            doorbell = Doorbell(bar, register, value, number * SLOT, event)
            self._by_descriptor[event.fileno()] = doorbell
            self._poll.register(event, select.EPOLLIN)

    def _declared(self) -> Iterator[tuple[int, Declaration[Any, Any], int | None]]:
        for bar, view in self._model.bar_list.items():
            for register in view.bar.registers.registers() if view.bar.registers else ():
                if register in self._model.doorbells:
                    yield bar, register, self._model.doorbells[register]

    def _value_of(self, doorbell: Doorbell) -> int:
        if doorbell.value is not None or self._memory is None:
            return doorbell.value or 0
        read = getattr(self._memory, f"read{doorbell.register.width}")
        return int(read(doorbell.place))

"""Memory that a device in another process reaches: shared with its server, or by its requests.

QEMU docs/interop/vfio-user.rst, VFIO_USER_DMA_MAP to VFIO_USER_DMA_WRITE. What `memory()` gives is
a memfd, which the server maps: the device's access is then a plain copy. Other memory stays here,
and the server asks for each piece of it.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from uspace_drv.errors import DeviceGone, PeerError, UnsupportedError
from uspace_drv.models.iommu import Iommu
from uspace_drv.port import BareDmaSpace, Direction, Iova, IovaRange
from uspace_drv.vfio_numbers import DmaFlag
from uspace_drv.vfiouser import wire
from uspace_drv.vfiouser.client import Session
from uspace_drv.vfiouser.listener import Listener
from uspace_drv.vfiouser.numbers import Command
from uspace_drv.vfiouser.version import OURS

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
"""The server could otherwise cut the file off under our arrays."""


@dataclass(frozen=True)
class _File:
    """A memfd, and where it is mapped in this process."""

    fd: int
    address: int
    size: int

    def holds(self, address: int, size: int) -> bool:
        return self.address <= address and address + size <= self.address + self.size


class SharedMemory(BareDmaSpace):
    """Fills the port's `DmaSpace`. From its first use on, a thread answers the server's requests.

    The checks are those of a model's IOMMU: what is not mapped, or not in this direction, is
    refused.
    """

    def __init__(self, session: Session) -> None:
        self.name = session.name
        self._session = session
        self._iommu = Iommu(session.name, lambda: True)
        self._files: dict[int, _File] = {}
        self.page_size = mmap.PAGESIZE
        self.entry_limit: int | None = session.capabilities.max_dma_maps
        session.answer = self._answer
        self._listener = Listener(session)

    @property
    def ranges(self) -> Sequence[IovaRange] | None:
        """Those of a PC's IOMMU, so that a driver finds here what it finds there."""
        return self._iommu.ranges

    def memory(self, size: int, reach: int) -> mmap.mmap:
        """New memory in a file of its own, which no server can cut off."""
        fd = os.memfd_create("uspace_drv DMA", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, size)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            memory = mmap.mmap(fd, size)
        except BaseException:
            os.close(fd)
            raise
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self._files[address] = _File(fd, address, size)
        # The memory goes with its last array; only then may the address mean something else.
        weakref.finalize(memory, _forget, self._files, address).atexit = False
        return memory

    def map(self, address: int, size: int, iova: Iova | None, direction: Direction) -> Iova:
        """Show memory to the server; no descriptor goes with what is not in a memfd."""
        self._session.check_alive()
        self._iommu.map(address, size, iova, direction)
        where = Iova(iova or 0)
        try:
            self._send_map(address, size, where, direction)
        except BaseException:
            self._iommu.unmap(where, size)
            raise
        return where

    def unmap(self, iova: Iova, size: int) -> None:
        """Take it away: the server lets go of it before it replies."""
        body = wire.DmaUnmap(wire.size_of(wire.DmaUnmap), 0, iova, size)
        try:
            # A server that is gone reaches nothing any more.
            with suppress(DeviceGone):
                reply = self._session.request_body(Command.DMA_UNMAP, body)
                if (reply.address, reply.size) != (iova, size):
                    raise PeerError(
                        f"{self._session.name}: unmapped {reply.size:#x} bytes at "
                        f"{reply.address:#x}, expected {size:#x} at {iova:#x}"
                    )
        finally:
            self._iommu.unmap(iova, size)

    def unmap_all(self) -> None:
        """Take everything away, one by one: older servers have no word for all of it."""
        for mapping in self._iommu.mappings:
            self.unmap(mapping.iova, mapping.size)

    def close(self) -> None:
        """End the thread. Twice is fine."""
        self._listener.close()

    def _send_map(self, address: int, size: int, iova: Iova, direction: Direction) -> None:
        flags = DmaFlag(0)
        if Direction.TO_DEVICE in direction:
            flags |= DmaFlag.READ
        if Direction.FROM_DEVICE in direction:
            flags |= DmaFlag.WRITE
        file = self._file(address, size)
        offset = address - file.address if file else 0
        body = wire.DmaMap(wire.size_of(wire.DmaMap), flags, offset, iova, size)
        self._session.request(Command.DMA_MAP, wire.pack(body), (file.fd,) if file else ())

    def _file(self, address: int, size: int) -> _File | None:
        """The memfd that holds all of this memory, if the server takes descriptors."""
        if not self._session.capabilities.max_msg_fds:
            return None
        start = self._files.get(address)
        files = (start,) if start else tuple(self._files.values())
        return next((file for file in files if file.holds(address, size)), None)

    def _answer(self, command: int, payload: bytes) -> bytes:
        """Do what the server asks with memory that it was shown."""
        if command == Command.DMA_READ:
            wanted = wire.unpack(wire.DmaAccess, payload)
            if wanted.count > OURS.max_data_xfer_size:
                raise PeerError(f"DMA_READ of {wanted.count:#x} bytes")
            return payload + self._iommu.read(wanted.address, wanted.count, "DMA_READ")
        if command == Command.DMA_WRITE:
            wanted, data = wire.split_counted(wire.DmaAccess, payload)
            self._iommu.write(wanted.address, data, "DMA_WRITE")
            return wire.pack(wanted)
        raise UnsupportedError(f"{self._session.name}: the server sent command {command}")


def _forget(files: dict[int, _File], address: int) -> None:
    os.close(files.pop(address).fd)

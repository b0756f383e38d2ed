"""The client's memory as the served model sees it: what was mapped, by descriptor or by message.

QEMU docs/interop/vfio-user.rst, DMA_MAP and DMA_UNMAP. The model reaches it through its own IOMMU,
which knows every mapping and names the register that carried a wrong address.
"""

from __future__ import annotations

import errno
import os
import stat
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Protocol

from uspace_drv.errors import HostError
from uspace_drv.models import DeviceModel
from uspace_drv.models.iommu import Memory
from uspace_drv.native import Window
from uspace_drv.port import Direction
from uspace_drv.vfio_numbers import DmaFlag
from uspace_drv.vfiouser.numbers import PAGE, Command, UnmapFlag
from uspace_drv.vfiouser.server.refusal import Refusal, invalid, unsupported
from uspace_drv.vfiouser.wire import (
    DmaAccess,
    DmaMap,
    DmaUnmap,
    check_dma_written,
    pack,
    pack_dma_write,
    unpack,
    unpack_dma_read,
)

ADDRESS_END = 1 << 64
DIRECTIONS = {
    DmaFlag.READ: Direction.TO_DEVICE,
    DmaFlag.WRITE: Direction.FROM_DEVICE,
    DmaFlag.READ | DmaFlag.WRITE: Direction.BOTH,
}
MOST_FILES = 4096
"""Files of one client. Each is a mapping of this process, which Linux allows some 65,000 of."""

KNOWN_FLAGS = 0xF
"""Readable and writable; libvfio-user adds two bits that say what the descriptor says."""


class ClientMemory(Memory, Protocol):
    """One mapping of the client."""

    def close(self) -> None:
        """The client has taken it back."""


class SharedFile:
    """A file of the client, mapped once for all mappings that lie in it."""

    def __init__(self, name: str, descriptor: int, size: int, *, writable: bool) -> None:
        self._window = Window.map(name, descriptor, 0, size, writable=writable)
        self._bytes = self._window.memory()
        self.users = 0

    @property
    def address(self) -> int:
        """Where it lies in this process; 0 once the client has cut it off."""
        return self._window.address

    def read(self, offset: int, size: int) -> bytes:
        """Copy out; `DeviceGone` if the client has cut the file off."""
        self._check()
        data = bytes(self._bytes[offset : offset + size])
        self._check()
        return data

    def write(self, offset: int, data: bytes) -> None:
        """Copy in; `DeviceGone` if the client has cut the file off."""
        self._check()
        self._bytes[offset : offset + len(data)] = data
        self._check()

    def close(self) -> None:
        """Unmap it."""
        self._bytes.release()
        self._window.close()

    def _check(self) -> None:
        """`DeviceGone` if the client has cut it off: what lies there now is memory of our own."""
        self._window.read8(0)


class FileMemory:
    """A mapping that came with a descriptor: plain memory."""

    def __init__(self, file: SharedFile, start: int, release: Callable[[], None]) -> None:
        self._file = file
        self._start = start
        self.close = release

    @property
    def address(self) -> int:
        """Where it lies in this process; 0 once the client has cut its file off."""
        base = self._file.address
        return base + self._start if base else 0

    def read(self, offset: int, size: int) -> bytes:
        """Copy out."""
        return self._file.read(self._start + offset, size)

    def write(self, offset: int, data: bytes) -> None:
        """Copy in."""
        self._file.write(self._start + offset, data)


class MessageMemory:
    """A mapping without a descriptor: every access asks the client.

    `limit` is how many bytes it takes at once.
    """

    address = 0

    def __init__(
        self,
        iova: int,
        request: Callable[[Command, bytes], bytes],
        limit: int,
        *,
        is_qemu: bool,
    ) -> None:
        self._iova = iova
        self._request = request
        self._limit = limit
        self._is_qemu = is_qemu

    def read(self, offset: int, size: int) -> bytes:
        """Copy out, piece by piece."""
        pieces = []
        for start in range(offset, offset + size, self._limit):
            wanted = DmaAccess(self._iova + start, min(self._limit, offset + size - start))
            reply = self._request(Command.DMA_READ, pack(wanted))
            pieces.append(unpack_dma_read(reply, wanted, from_qemu=self._is_qemu))
        return b"".join(pieces)

    def write(self, offset: int, data: bytes) -> None:
        """Copy in, piece by piece."""
        for start in range(0, len(data), self._limit):
            piece = data[start : start + self._limit]
            where = self._iova + offset + start
            body = pack_dma_write(where, piece, to_qemu=self._is_qemu)
            reply = self._request(Command.DMA_WRITE, body)
            check_dma_written(reply, DmaAccess(where, len(piece)))

    def close(self) -> None:
        """Nothing was taken."""


class GuestMemory:
    """Everything that one client has mapped. `request` sends it a command and returns the reply."""

    def __init__(
        self,
        model: DeviceModel,
        request: Callable[[Command, bytes], bytes],
        *,
        most_maps: int,
        largest_transfer: int,
        is_qemu: bool,
    ) -> None:
        self._model = model
        self._request = request
        self._most_maps = most_maps
        self._largest_transfer = largest_transfer
        self._is_qemu = is_qemu
        self._maps: list[tuple[int, int, ClientMemory]] = []  # IOVA and size, ascending
        self._files: dict[tuple[int, ...], SharedFile] = {}

    def map(self, payload: bytes, descriptors: Sequence[int]) -> bytes:
        """DMA_MAP: show one range to the model."""
        wanted = unpack(DmaMap, payload)
        flags = DmaFlag(wanted.flags & (DmaFlag.READ | DmaFlag.WRITE))
        self._check(wanted)
        if len(self._maps) >= self._most_maps:
            raise Refusal(errno.ENOSPC, f"{len(self._maps)} DMA maps exist, no more are possible")
        memory = self._memory(wanted, descriptors)
        try:
            self._model.memory.attach(
                wanted.address, wanted.size, memory, DIRECTIONS.get(flags, Direction(0))
            )
        except BaseException:
            memory.close()
            raise
        place = self._place(wanted.address)
        self._maps.insert(place, (wanted.address, wanted.size, memory))
        return b""

    def unmap(self, payload: bytes) -> bytes:
        """DMA_UNMAP: take everything inside of a range back.

        A client with an IOMMU of its own unmaps ranges that hold several mappings, or none.
        """
        wanted = unpack(DmaUnmap, payload)
        if wanted.flags & UnmapFlag.GET_DIRTY_BITMAP:
            raise unsupported("DMA_UNMAP with a dirty bitmap; DMA logging reports it")
        first, end = wanted.address, wanted.address + wanted.size
        if wanted.flags & UnmapFlag.ALL:
            first, end = 0, ADDRESS_END
        if first >= end or end > ADDRESS_END or wanted.flags & ~int(UnmapFlag.ALL):
            raise invalid(f"{wanted}: expected a range within 64 bits")
        for start, size, _ in (*self._covering(first), *self._covering(end)):
            raise invalid(f"{wanted} cuts the mapping of {size:#x} bytes at {start:#x}")
        self._drop(first, end)
        return payload

    def close(self) -> None:
        """The client is gone: nothing of it stays."""
        self._drop(0, ADDRESS_END)

    def _check(self, wanted: DmaMap) -> None:
        address, size = wanted.address, wanted.size
        if wanted.flags & ~KNOWN_FLAGS:
            raise invalid(f"{wanted}: flags that are not known")
        if size == 0 or address + size > ADDRESS_END or (address | size | wanted.offset) % PAGE:
            raise invalid(f"{wanted}: expected whole pages of {PAGE:#x} bytes within 64 bits")
        place = self._place(address)
        follows = place < len(self._maps) and self._maps[place][0] < address + size
        if follows or next(self._covering(address), None):
            raise Refusal(errno.EEXIST, f"{wanted} overlaps what is mapped already")

    def _place(self, address: int) -> int:
        return bisect_left(self._maps, address, key=lambda one: one[0])

    def _covering(self, address: int) -> Iterator[tuple[int, int, ClientMemory]]:
        """The mapping that begins before `address` and reaches past it."""
        place = self._place(address)
        if place and sum(self._maps[place - 1][:2]) > address:
            yield self._maps[place - 1]

    def _drop(self, first: int, end: int) -> None:
        gone = slice(self._place(first), self._place(end))
        dropped = self._maps[gone]
        del self._maps[gone]
        if not dropped:
            return
        with self._model.quiesce(), ExitStack() as way_out:  # it may be in the middle of something
            for each in dropped:  # one by one: mappings that the model has made of its own stay
                way_out.callback(self._give_back, *each)  # whatever fails with another one

    def _give_back(self, start: int, size: int, memory: ClientMemory) -> None:
        """Close it only when the model reaches it no longer."""
        self._model.memory.detach(start, size)
        memory.close()

    def _memory(self, wanted: DmaMap, descriptors: Sequence[int]) -> ClientMemory:
        if not descriptors:
            return MessageMemory(
                wanted.address, self._request, self._largest_transfer, is_qemu=self._is_qemu
            )
        if len(descriptors) > 1:
            raise invalid(f"{wanted}: came with {len(descriptors)} descriptors, expected one")
        return self._file_memory(wanted, descriptors[0])

    def _file_memory(self, wanted: DmaMap, descriptor: int) -> FileMemory:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise invalid(f"{wanted}: its descriptor is no file that can be mapped")
        if wanted.offset + wanted.size > found.st_size:
            raise invalid(f"{wanted}: its file has {found.st_size:#x} bytes only")
        writable = bool(wanted.flags & DmaFlag.WRITE)
        key = (found.st_dev, found.st_ino, found.st_size, writable)
        file = self._files.get(key)
        if file is None:
            file = self._files[key] = self._open(descriptor, found.st_size, writable)
        file.users += 1
        return FileMemory(file, wanted.offset, lambda: self._release(key))

    def _open(self, descriptor: int, size: int, writable: bool) -> SharedFile:
        if len(self._files) >= MOST_FILES:
            raise Refusal(errno.ENOSPC, f"{MOST_FILES} files are mapped, no more are possible")
        name = f"{self._model.name} client's memory"
        try:
            return SharedFile(name, descriptor, size, writable=writable)
        except HostError as error:
            raise Refusal(error.errno or errno.EINVAL, str(error)) from error

    def _release(self, key: tuple[int, ...]) -> None:
        file = self._files[key]
        file.users -= 1
        if not file.users:
            del self._files[key]
            file.close()

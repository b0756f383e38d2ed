"""A region of a device in another process: mapped where the server shares it, else by messages.

QEMU docs/interop/vfio-user.rst, VFIO_USER_DEVICE_GET_REGION_INFO, VFIO_USER_REGION_READ and
VFIO_USER_REGION_WRITE.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from uspace_drv.errors import HostError, PeerError
from uspace_drv.native import Message, Window
from uspace_drv.regions import Area, Calls, in_order, open_in_parts
from uspace_drv.vfio_numbers import RegionFlag
from uspace_drv.vfiouser import wire
from uspace_drv.vfiouser.client import Session
from uspace_drv.vfiouser.numbers import Command, IoFdType
from uspace_drv.vfiouser.refusals import close_all
from uspace_drv.vfiouser.regions import (
    IO_FDS_SIZE,
    REGION_INFO_SIZE,
    RegionInfo,
    pack_io_fds_request,
    pack_region_request,
    unpack_io_fds,
    unpack_region_info,
)

LARGEST_REPLY = 16384
"""Bytes of a description of a region: some thousand areas."""

LARGEST_REGION = 1 << 62

_READ, _WRITE = Command.REGION_READ, Command.REGION_WRITE
_pack_access = wire.REGION_ACCESS.pack


@dataclass(frozen=True)
class OpenIoFd:
    """Writes to `size` bytes at `offset` of a region: a descriptor that stands for them.

    `flags` and `extra` (the value that is waited for) are those of KVM_IOEVENTFD.
    """

    offset: int
    size: int
    type: IoFdType
    flags: int
    extra: int
    fd: int


class RemoteRegion:
    """One region, described when made. It keeps the descriptor of what the server shares."""

    def __init__(self, session: Session, number: int) -> None:
        self._session = session
        self._number = number
        self._fds: tuple[int, ...] = ()
        try:
            with session.judging():
                self._info = self._describe()
                self.areas = self._find_areas()
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """Bytes, 0 where it is not implemented."""
        return self._info.size

    def open(self, name: str, *, posted: bool) -> Window:
        """Open a window on all of it; `posted`: writes by message do not wait for a reply."""
        whole = (Area(0, self.size),)
        if self.areas == whole:
            window = self._map(name, *whole)
        else:
            window = self.by_messages(name, posted=posted)
        window.link = self._session
        return window

    def by_messages(self, name: str, *, posted: bool) -> Window:
        """Open a window that sends messages, except where memory is shared."""
        read = _reader(self._session, self._number)
        write = (_poster if posted else _writer)(self._session, self._number)
        return open_in_parts(name, self.size, self.areas, self._map, Calls(read, write))

    def io_fds(self) -> list[OpenIoFd]:
        """Ask for the descriptors that stand for writes; the caller closes them."""
        payload, fds = self._ask(Command.DEVICE_GET_REGION_IO_FDS, pack_io_fds_request, IO_FDS_SIZE)
        taken: list[OpenIoFd] = []
        try:
            with self._session.judging():
                for found in unpack_io_fds(payload, len(fds), self.size):
                    kind = _io_fd_type(found.type)
                    fd = os.dup(fds[found.fd_index])  # several may share one
                    taken.append(
                        OpenIoFd(found.offset, found.size, kind, found.flags, found.extra, fd)
                    )
        except BaseException:
            close_all(one.fd for one in taken)
            raise
        finally:
            close_all(fds)
        return taken

    def close(self) -> None:
        """Close the descriptor; windows stay. Twice is fine."""
        fds, self._fds = self._fds, ()
        close_all(fds)

    def _describe(self) -> RegionInfo:
        payload, self._fds = self._ask(
            Command.DEVICE_GET_REGION_INFO, pack_region_request, REGION_INFO_SIZE
        )
        info = unpack_region_info(payload)
        if info.index != self._number:
            raise PeerError(f"asked for region {self._number}, the reply is about {info.index}")
        if info.size > LARGEST_REGION:
            raise PeerError(f"region {self._number}: {info.size:#x} bytes")
        return info

    def _ask(
        self, command: Command, pack: Callable[[int, int], bytes], least: int
    ) -> tuple[bytes, tuple[int, ...]]:
        """Ask, and once more if the reply needs more room; descriptors come with each reply."""
        fds: tuple[int, ...] = ()

        def ask(argsz: int) -> bytes:
            nonlocal fds
            close_all(fds)
            fds = ()
            reply = self._session.exchange(command, pack(self._number, argsz))
            fds = reply.fds
            return reply.payload

        try:
            return wire.ask_twice(ask, least, LARGEST_REPLY), fds
        except BaseException:
            close_all(fds)
            raise

    def _find_areas(self) -> tuple[Area, ...]:
        """What may be mapped, ascending, once it is seen to make sense."""
        info = self._info
        if not info.flags & RegionFlag.MMAP or not info.size:
            return ()
        if not self._fds:
            raise PeerError(f"region {self._number} may be mapped, and no descriptor came with it")
        areas = in_order(info.areas or [Area(0, info.size)], f"region {self._number}")
        places = [info.offset, *(number for area in areas for number in area)]
        if any(place % mmap.PAGESIZE for place in places):
            # A whole BAR smaller than a page: messages do as well.
            if info.areas or info.offset % mmap.PAGESIZE:
                raise PeerError(f"region {self._number}: areas that do not consist of whole pages")
            return ()
        self._check_file(areas[-1].offset + areas[-1].size)
        return areas

    def _check_file(self, end: int) -> None:
        """See that it is all there; what is cut off later raises `DeviceGone` at an access."""
        status = os.fstat(self._fds[0])
        if stat.S_ISREG(status.st_mode) and status.st_size < self._info.offset + end:
            raise PeerError(
                f"region {self._number}: the file behind it has {status.st_size:#x} bytes, "
                f"expected {self._info.offset + end:#x}"
            )

    def _map(self, name: str, area: Area) -> Window:
        writable = bool(self._info.flags & RegionFlag.WRITE)
        place = self._info.offset + area.offset
        try:
            return Window.map(name, self._fds[0], place, area.size, writable=writable)
        except HostError as error:
            error.add_note("the descriptor is the server's: it cannot be mapped as it says")
            raise


def _reader(session: Session, region: int) -> Callable[[int, int], int]:
    exchange = session.exchange  # each name looked up here is one less for every access

    def read(offset: int, width: int) -> int:
        head = _pack_access(offset, region, width)
        reply = exchange(_READ, head)
        payload = reply.payload
        if payload[:16] != head or len(payload) != 16 + width or reply.fds:
            raise _nonsense(session, reply, region, f"read of {width} bytes at {offset:#x}")
        return int.from_bytes(payload[16:], "little")

    return read


def _writer(session: Session, region: int) -> Callable[[int, int, int], None]:
    exchange = session.exchange

    def write(offset: int, width: int, value: int) -> None:
        head = _pack_access(offset, region, width)
        reply = exchange(_WRITE, head + value.to_bytes(width, "little"))
        if reply.payload != head or reply.fds:
            raise _nonsense(session, reply, region, f"write of {width} bytes at {offset:#x}")

    return write


def _poster(session: Session, region: int) -> Callable[[int, int, int], None]:
    post = session.post

    def write(offset: int, width: int, value: int) -> None:
        post(_WRITE, _pack_access(offset, region, width) + value.to_bytes(width, "little"))

    return write


def _nonsense(session: Session, reply: Message, region: int, asked: str) -> PeerError:
    close_all(reply.fds)
    came = reply.payload[:32].hex(" ") or "empty"
    return PeerError(
        f"{session.name}: {asked}, region {region}: the reply is {came} "
        f"with {len(reply.fds)} descriptors"
    )


def _io_fd_type(number: int) -> IoFdType:
    try:
        return IoFdType(number)
    except ValueError as error:
        known = ", ".join(str(int(kind)) for kind in IoFdType)
        raise PeerError(f"IoFds: type {number}, expected one of {known}") from error

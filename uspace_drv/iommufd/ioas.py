"""An address space as devices see it: which memory stands at which IOVA.

Linux include/uapi/linux/iommufd.h, IOMMU_IOAS_ALLOC to IOMMU_IOAS_NOIOMMU_GET_PA.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Sequence

from uspace_drv.errors import HostError
from uspace_drv.iommufd.objects import Object, OpenFile
from uspace_drv.iommufd.uapi import memory
from uspace_drv.iommufd.uapi.memory import MapFlag, Option, OptionOperation
from uspace_drv.iommufd.uapi.requests import Request
from uspace_drv.port import Direction, IovaRange

_USUAL_RANGES = 16
"""Room for the first try; a machine has two or three."""


class Ioas(Object):
    """Mappings that every device attached to it shares. Sizes and addresses are in bytes.

    The caller keeps the memory in place until it is unmapped; the kernel pins it.
    """

    @classmethod
    def alloc(cls, file: OpenFile) -> Ioas:
        """Make a new, empty one."""
        answer = memory.IoasAlloc()
        file.call(Request.IOAS_ALLOC, answer)
        return cls(file, answer.out_ioas_id)

    def ranges(self) -> Sequence[IovaRange]:
        """What may be mapped, ascending; every device that is attached may narrow it."""
        return self._ranges()[0]

    @property
    def alignment(self) -> int:
        """In bytes: every IOVA and size handed to `map` is a multiple of it."""
        return self._ranges()[1]

    def allow(self, ranges: Sequence[IovaRange]) -> None:
        """Let the kernel choose IOVAs in these only; replaces what was allowed before.

        A device that could not reach all of them cannot be attached any more.
        """
        entries = (memory.IovaRangeEntry * len(ranges))(
            *(memory.IovaRangeEntry(each.start, each.end) for each in ranges)
        )
        self._call(
            Request.IOAS_ALLOW_IOVAS,
            memory.IoasAllowIovas(
                ioas_id=self.id, num_iovas=len(ranges), allowed_iovas=ctypes.addressof(entries)
            ),
        )

    def map(self, address: int, size: int, iova: int | None, direction: Direction) -> int:
        """Show memory at a virtual `address` of this process to the devices.

        Returns the IOVA, which the kernel chooses where `iova` is None.
        """
        argument = memory.IoasMap(
            flags=_flags(iova, direction),
            ioas_id=self.id,
            user_va=address,
            length=size,
            iova=iova or 0,
        )
        self._call(Request.IOAS_MAP, argument)
        return int(argument.iova)

    def map_file(
        self, fd: int, offset: int, size: int, iova: int | None, direction: Direction
    ) -> int:
        """Show a part of a memfd, or of a dma-buf that the kernel knows. Returns the IOVA.

        It survives the address space of this process: see `Iommufd.change_process`.
        """
        argument = memory.IoasMapFile(
            flags=_flags(iova, direction),
            ioas_id=self.id,
            fd=fd,
            start=offset,
            length=size,
            iova=iova or 0,
        )
        self._call(Request.IOAS_MAP_FILE, argument)
        return int(argument.iova)

    def copy(
        self, source: Ioas, source_iova: int, size: int, iova: int | None, direction: Direction
    ) -> int:
        """Map here what another address space maps there; it is pinned once. Returns the IOVA."""
        argument = memory.IoasCopy(
            flags=_flags(iova, direction),
            dst_ioas_id=self.id,
            src_ioas_id=source.id,
            length=size,
            dst_iova=iova or 0,
            src_iova=source_iova,
        )
        self._call(Request.IOAS_COPY, argument)
        return int(argument.dst_iova)

    def unmap(self, iova: int, size: int) -> int:
        """Take whole mappings in a range away from the devices. Returns the bytes unmapped."""
        argument = memory.IoasUnmap(ioas_id=self.id, iova=iova, length=size)
        self._call(Request.IOAS_UNMAP, argument)
        return int(argument.length)

    def unmap_all(self) -> int:
        """Take everything away. Returns the bytes unmapped, 0 if nothing was mapped."""
        try:
            return self.unmap(0, memory.EVERYTHING)
        except HostError as error:
            if error.errno == errno.ENOENT:  # how some kernels say that it was empty
                return 0
            raise

    def physical(self, iova: int, size: int) -> tuple[int, int]:
        """Where a mapping lies in physical memory, for devices without an IOMMU.

        Returns the address and how many of `size` bytes follow it without a gap.
        """
        argument = memory.IoasNoiommuGetPa(ioas_id=self.id, iova=iova, length=size)
        self._call(Request.IOAS_NOIOMMU_GET_PA, argument)
        return int(argument.out_phys), int(argument.length)

    @property
    def huge_pages(self) -> bool:
        """Whether pages that lie side by side are mapped as one large page."""
        return bool(self._option(OptionOperation.GET))

    @huge_pages.setter
    def huge_pages(self, allowed: bool) -> None:
        self._option(OptionOperation.SET, int(allowed))

    def _option(self, operation: OptionOperation, value: int = 0) -> int:
        argument = memory.OptionValue(
            option_id=Option.HUGE_PAGES, op=operation, object_id=self.id, val64=value
        )
        self._call(Request.OPTION, argument)
        return int(argument.val64)

    def _ranges(self) -> tuple[Sequence[IovaRange], int]:
        """Ask with room for some; the kernel says how many there are, and then for all."""
        room = _USUAL_RANGES
        while True:
            entries = (memory.IovaRangeEntry * room)()
            argument = memory.IoasIovaRanges(
                ioas_id=self.id, num_iovas=room, allowed_iovas=ctypes.addressof(entries)
            )
            try:
                self._call(Request.IOAS_IOVA_RANGES, argument)
            except HostError as error:
                if error.errno != errno.EMSGSIZE or argument.num_iovas <= room:
                    raise
                room = argument.num_iovas
                continue
            found = [IovaRange(each.start, each.last) for each in entries[: argument.num_iovas]]
            return found, int(argument.out_iova_alignment)

    def _call(self, request: Request, argument: ctypes.Structure) -> None:
        self._file.call(request, argument)


def _flags(iova: int | None, direction: Direction) -> MapFlag:
    """What the device may do, and who chooses the IOVA."""
    flags = MapFlag(0) if iova is None else MapFlag.FIXED_IOVA
    if Direction.TO_DEVICE in direction:
        flags |= MapFlag.READABLE
    if Direction.FROM_DEVICE in direction:
        flags |= MapFlag.WRITEABLE
    return flags

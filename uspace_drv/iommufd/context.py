"""One open /dev/iommu: where address spaces and page tables for devices are made.

Linux Documentation/userspace-api/iommufd.rst.
"""

from __future__ import annotations

import errno
import os

from uspace_drv.errors import HostError
from uspace_drv.iommufd.fault_queue import FaultQueue
from uspace_drv.iommufd.hardware import Hardware, read_hardware
from uspace_drv.iommufd.ioas import Ioas
from uspace_drv.iommufd.objects import OpenFile
from uspace_drv.iommufd.page_table import Hwpt, Nesting
from uspace_drv.iommufd.uapi import memory
from uspace_drv.iommufd.uapi.memory import Option, OptionOperation, VfioIoasOperation
from uspace_drv.iommufd.uapi.page_tables import HwInfoType, HwptFlag
from uspace_drv.iommufd.uapi.queues import ViommuType
from uspace_drv.iommufd.uapi.requests import FIRST_KERNEL, Request
from uspace_drv.iommufd.virtual import Viommu

NODE = "/dev/iommu"


class Iommufd:
    """Owns the descriptor. `name` is the device's address, for errors.

    Given an `fd` that another process opened, it takes that over; what was made there is found
    again by number with `adopt_ioas`. Device numbers are those that VFIO_DEVICE_BIND_IOMMUFD
    gives.
    """

    def __init__(self, name: str, fd: int | None = None) -> None:
        self._file = OpenFile(name, _open(name) if fd is None else fd)

    @property
    def fd(self) -> int:
        """The descriptor, -1 when closed."""
        return self._file.fd

    def alloc_ioas(self) -> Ioas:
        """Make an empty address space; its `close()` unmaps all of it."""
        return Ioas.alloc(self._file)

    def adopt_ioas(self, number: int) -> Ioas:
        """Take one over that was made through the same open file elsewhere."""
        return Ioas(self._file, number)

    def alloc_fault_queue(self) -> FaultQueue:
        """Make a queue for page faults of devices, to hand to `alloc_hwpt`."""
        return FaultQueue.alloc(self._file)

    def alloc_hwpt(
        self,
        device: int,
        parent: Ioas | Hwpt | Viommu,
        flags: HwptFlag = HwptFlag.NONE,
        *,
        nesting: Nesting | None = None,
        faults: FaultQueue | None = None,
    ) -> Hwpt:
        """Make a page table for the IOMMU behind `device`.

        The kernel fills it with the mappings of an address space. On a nesting parent, or on a
        virtual IOMMU, user space keeps the first stage itself and `nesting` says where.
        """
        return Hwpt.alloc(self._file, device, parent, flags=flags, nesting=nesting, faults=faults)

    def alloc_viommu(
        self, device: int, parent: Hwpt, kind: ViommuType | int, data: bytes = b""
    ) -> Viommu:
        """Make a virtual IOMMU on a nesting parent; `data` is the vendor's structure, if any."""
        return Viommu.alloc(self._file, device, parent, kind, data)

    def hardware(self, device: int, kind: HwInfoType | int | None = None) -> Hardware:
        """What the IOMMU behind `device` can do; of one `kind` where it has several faces."""
        return read_hardware(self._file, device, kind)

    @property
    def charges_process(self) -> bool:
        """Whether pinned memory counts against the process (as VFIO does), not against the user.

        It can be set only before anything is made, with CAP_SYS_RESOURCE.
        """
        return bool(self._rlimit_mode(OptionOperation.GET))

    @charges_process.setter
    def charges_process(self, process: bool) -> None:
        self._rlimit_mode(OptionOperation.SET, int(process))

    @property
    def vfio_ioas(self) -> int | None:
        """The number of the address space that VFIO's container calls on this file use, if any.

        Set it to the `id` of one, or to None.
        """
        argument = memory.VfioIoas(op=VfioIoasOperation.GET)
        try:
            self._file.call(Request.VFIO_IOAS, argument)
        except HostError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
        return int(argument.ioas_id)

    @vfio_ioas.setter
    def vfio_ioas(self, number: int | None) -> None:
        operation = VfioIoasOperation.CLEAR if number is None else VfioIoasOperation.SET
        self._file.call(Request.VFIO_IOAS, memory.VfioIoas(op=operation, ioas_id=number or 0))

    def change_process(self) -> None:
        """Charge all mappings to this process, which got the descriptor from the one before.

        All of them must be of files (`Ioas.map_file`), and both share the file's memory.
        """
        self._file.call(Request.IOAS_CHANGE_PROCESS, memory.IoasChangeProcess())

    def close(self) -> None:
        """Close it; with its last holder the kernel destroys all that is left. Twice is fine."""
        self._file.close()

    def _rlimit_mode(self, operation: OptionOperation, value: int = 0) -> int:
        argument = memory.OptionValue(option_id=Option.RLIMIT_MODE, op=operation, val64=value)
        self._file.call(Request.OPTION, argument)
        return int(argument.val64)


def _open(name: str) -> int:
    try:
        return os.open(NODE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {errno.EACCES, errno.EPERM}:
            cure = f"run: sudo chmod 666 {NODE}"
        else:
            cure = f"it needs {FIRST_KERNEL}; run: sudo modprobe iommufd"
        raise HostError(
            f"{name}: cannot open {NODE}: {error.strerror}; {cure}", cause=error
        ) from error

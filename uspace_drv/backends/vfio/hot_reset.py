"""Hot reset: the bus or slot of a PCI function is reset, with every function that is on it.

Linux include/uapi/linux/vfio.h, "VFIO_DEVICE_PCI_HOT_RESET"; PCIe 6.0 spec section 6.6.1.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from uspace_drv.backends.vfio.call import call
from uspace_drv.backends.vfio.uapi import Request
from uspace_drv.backends.vfio.uapi.hot_reset import (
    DEVID_NOT_OWNED,
    DependentDevice,
    HotResetFlag,
    HotResetHeader,
    HotResetInfo,
)
from uspace_drv.errors import BusyError, DeviceGone, HostError, UnsupportedError
from uspace_drv.pci.address import PciAddress


class OwnsGroups(Protocol):
    """What proves to the kernel that functions are ours: the part of an opening that matters."""

    @property
    def reset_fds(self) -> Sequence[int]:
        """Descriptors of groups; none where the device was opened by its own file."""


@dataclass(frozen=True)
class Affected:
    """One function that the reset takes along.

    `group` is None where the device was opened by its own file (cdev), and `owned` is None where
    only the groups that are handed in can tell.
    """

    address: PciAddress
    group: int | None
    owned: bool | None


class HotReset:
    """The hot reset of one device. `opening` is how it was opened, `address` its own."""

    def __init__(self, fd: int, address: str, opening: OwnsGroups) -> None:
        self._fd = fd
        self._address = address
        self._opening = opening

    def affected(self) -> tuple[Affected, ...]:
        """Return every function that the reset would take along, this one too.

        `UnsupportedError` for a device that has no bus or slot to reset: one on the root bus, or
        none of PCI.
        """
        first = HotResetInfo(ctypes.sizeof(HotResetInfo))
        self._ask(first, tolerate=errno.ENOSPC)
        size = ctypes.sizeof(HotResetInfo) + first.count * ctypes.sizeof(DependentDevice)
        answer = bytearray(size)
        HotResetInfo.from_buffer(answer).argsz = size
        self._ask(answer)
        info = HotResetInfo.from_buffer(answer)
        devices = (DependentDevice * info.count).from_buffer(answer, ctypes.sizeof(HotResetInfo))
        return tuple(_affected(each, HotResetFlag(info.flags)) for each in devices)

    def reset(self, *others: HotReset) -> tuple[Affected, ...]:
        """Reset them all, and return them. `others` are of devices that you opened there as well.

        `BusyError` names the functions that are somebody else's, and nothing is reset. Each of
        the devices has lost its state then; interrupts have to be armed again.
        """
        affected = self.affected()
        groups = self._owned_groups(affected, others)
        if strangers := [each for each in affected if not _is_ours(each, groups)]:
            names = ", ".join(str(each.address) for each in strangers)
            raise BusyError(
                f"{self._address}: a hot reset takes along {names}, which this process has not "
                "opened; bind them to vfio-pci (uspace bind), open them here the same way, and "
                "hand them in"
            )
        fds = [fd for each in (self, *others) for fd in each._opening.reset_fds]
        size = ctypes.sizeof(HotResetHeader) + 4 * len(fds)
        header = bytes(HotResetHeader(size, 0, len(fds)))
        try:
            argument = header + struct.pack(f"={len(fds)}i", *fds)
            call(self._address, self._fd, Request.DEVICE_PCI_HOT_RESET, argument)
        except HostError as error:
            raise self._explain(error, affected) from error
        return affected

    def _owned_groups(
        self, affected: Sequence[Affected], others: Sequence[HotReset]
    ) -> frozenset[int | None]:
        """Return the numbers of the groups whose descriptors will be handed in."""
        ours = {each._address for each in (self, *others)}
        return frozenset(each.group for each in affected if str(each.address) in ours)

    def _ask(self, argument: HotResetInfo | bytearray, tolerate: int = 0) -> None:
        try:
            call(self._address, self._fd, Request.DEVICE_GET_PCI_HOT_RESET_INFO, argument)
        except HostError as error:
            if error.errno == errno.ENOTTY:
                raise self._unsupported("is no PCI function") from error
            if error.errno != tolerate:
                raise
        except DeviceGone as error:
            if getattr(error.__cause__, "errno", None) != errno.ENODEV:
                raise
            raise self._unsupported("has neither a bus nor a slot that can be reset") from error

    def _unsupported(self, why: str) -> UnsupportedError:
        return UnsupportedError(
            f"{self._address}: no hot reset: it {why}; a function behind a bridge or a root port "
            "has one, others may have reset()"
        )

    def _explain(self, error: HostError, affected: Sequence[Affected]) -> HostError | BusyError:
        names = ", ".join(str(each.address) for each in affected)
        if error.errno == errno.EBUSY:
            return BusyError(f"{self._address}: one of {names} is in use right now; try again")
        if error.errno != errno.EINVAL:
            return error
        return HostError(
            f"{self._address}: no hot reset of {names}: each of them has to be bound to vfio-pci "
            "and opened the same way as this one; see: uspace list",
            cause=error,
        )


def _affected(device: DependentDevice, flags: HotResetFlag) -> Affected:
    address = PciAddress(device.segment, device.bus, device.devfn >> 3, device.devfn & 7)
    if HotResetFlag.DEV_ID in flags:
        return Affected(address, None, owned=device.id != DEVID_NOT_OWNED)
    return Affected(address, device.id, owned=None)


def _is_ours(each: Affected, groups: frozenset[int | None]) -> bool:
    return each.group in groups if each.owned is None else each.owned

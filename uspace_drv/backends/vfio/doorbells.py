"""Doorbells that the kernel rings: an eventfd whose signal becomes a store to the device.

Linux include/uapi/linux/vfio.h, "VFIO_DEVICE_IOEVENTFD". Whoever has the eventfd (another process,
another thread, io_uring) rings without touching the device, and without having it open.
"""

from __future__ import annotations

import ctypes
import errno

from uspace_drv.backends.vfio import uapi
from uspace_drv.backends.vfio.call import call
from uspace_drv.backends.vfio.regions import VfioRegions
from uspace_drv.backends.vfio.uapi.ioeventfd import IoEventFd, IoEventFdFlag
from uspace_drv.errors import BusyError, DeviceGone, HostError, RegisterValueError, UnsupportedError
from uspace_drv.eventfd import EventFd
from uspace_drv.teardown import Teardown

_WIDTHS = {
    1: IoEventFdFlag.WIDTH_8,
    2: IoEventFdFlag.WIDTH_16,
    4: IoEventFdFlag.WIDTH_32,
    8: IoEventFdFlag.WIDTH_64,
}


class Doorbells:
    """The doorbells of one open device. The kernel allows 1000 at once for a device."""

    def __init__(self, fd: int, name: str, regions: VfioRegions) -> None:
        self._fd = fd
        self._name = name
        self._regions = regions
        self._doorbells: dict[tuple[int, int, int], Doorbell] = {}

    def open(self, bar: int, offset: int, value: int, width: int = 4) -> Doorbell:
        """Make a new one: its signal stores `value`, of `width` bytes, at `offset` of a BAR.

        Signals that come close together may be one store. Raises `RegisterValueError` for a place
        or a value that does not fit, `BusyError` where that place and value have a doorbell,
        `UnsupportedError` on a kernel without any (Linux before 4.17, 8 bytes on a 32-bit one).
        """
        self._check(bar, offset, value, width)
        place = (bar, offset, value)
        if place in self._doorbells:
            raise BusyError(f"{self._name} bar {bar}: {offset:#x} has a doorbell for {value:#x}")
        doorbell = Doorbell(self, place, width)
        try:
            self.switch(place, width, doorbell.fileno())
        except BaseException:
            doorbell.event.close()
            raise
        self._doorbells[place] = doorbell
        return doorbell

    def switch(self, place: tuple[int, int, int], width: int, fd: int) -> None:
        """Let the kernel ring for an eventfd, or for nobody if `fd` is -1."""
        bar, offset, value = place
        argument = IoEventFd(
            ctypes.sizeof(IoEventFd),
            _WIDTHS[width],
            self._regions.info(bar).offset + offset,
            value,
            fd,
        )
        try:
            call(self._name, self._fd, uapi.Request.DEVICE_IOEVENTFD, argument)
        except HostError as error:
            raise self._explain(error, bar) from error

    def forget(self, place: tuple[int, int, int]) -> None:
        """Drop one that is closed."""
        del self._doorbells[place]

    def close(self) -> None:
        """Close all of them. Twice is fine."""
        way_out = Teardown()
        for doorbell in self._doorbells.values():
            way_out.push("close a doorbell", doorbell.close)
        way_out.run()

    def _check(self, bar: int, offset: int, value: int, width: int) -> None:
        where = f"{self._name} bar {bar}"
        if width not in _WIDTHS:
            raise RegisterValueError(f"{where}: a store of {width} bytes; there are 1, 2, 4 and 8")
        size = self._regions.info(bar).size if 0 <= bar <= 5 else 0
        if offset % width or not 0 <= offset <= size - width:
            raise RegisterValueError(
                f"{where}: offset {offset:#x} for {width} bytes; expected a multiple of that, "
                f"inside of {size:#x} bytes"
            )
        if not 0 <= value < 1 << 8 * width:
            raise RegisterValueError(f"{where}: value {value:#x} does not fit {8 * width} bits")

    def _explain(self, error: HostError, bar: int) -> HostError | UnsupportedError:
        if error.errno in {errno.ENOTTY, errno.EINVAL}:
            return UnsupportedError(
                f"{self._name} bar {bar}: no doorbells here (VFIO_DEVICE_IOEVENTFD): they need "
                "Linux 4.17 or newer, and a place that is not in the MSI-X table"
            )
        if error.errno == errno.ENOSPC:
            error.add_note("the kernel allows 1000 doorbells at once for a device; close some")
        return error


class Doorbell:
    """One doorbell; `fileno()` is what to hand to others, `ring()` what they do with it."""

    def __init__(self, doorbells: Doorbells, place: tuple[int, int, int], width: int) -> None:
        self.event = EventFd()
        self.fileno = self.event.fileno
        self.ring = self.event.signal
        self._doorbells = doorbells
        self._place = place
        self._width = width

    def close(self) -> None:
        """Ring for nobody any more, then close the eventfd. Twice is fine."""
        if self.event.fileno() < 0:
            return
        self._doorbells.forget(self._place)
        try:
            self._doorbells.switch(self._place, self._width, -1)
        except DeviceGone:
            return  # nobody is left to ring for
        finally:
            self.event.close()

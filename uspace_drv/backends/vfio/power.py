"""A device that nobody needs for a while: let the kernel put it into a low power state.

Linux include/uapi/linux/vfio.h, "VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY" and what follows it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from uspace_drv.backends.vfio.feature_call import FeatureCall
from uspace_drv.backends.vfio.uapi.features import Feature, LowPowerWakeup
from uspace_drv.errors import BusyError, HostError
from uspace_drv.eventfd import EventFd


class Power:
    """Low power of one function, by the kernel's runtime power management.

    Close the windows of BARs first: the kernel takes their pages away, and an access in the
    meantime raises `DeviceGone`, for good in that window. Configuration space, and a BAR that is
    read and written by the kernel (I/O ports), wake the device for each access. DMA and interrupts
    have to be quiet before.

    Each method raises `UnsupportedError` before Linux 6.1 and for a device that is no PCI function.
    """

    def __init__(self, features: FeatureCall) -> None:
        self._features = features

    def enter(self) -> None:
        """Allow low power until `exit()`; `BusyError` where it is allowed already.

        When, and how deep, is the kernel's choice: the function, the ports above it and the
        platform have to agree. After an access that woke the device it may sleep again.
        """
        try:
            self._features.apply(Feature.LOW_POWER_ENTRY)
        except HostError as error:
            raise self._explain(error) from error

    def enter_until_woken(self) -> EventFd:
        """Allow low power once, and return what becomes readable when the device has woken.

        It wakes by an event of its own (PME), or by an access through the kernel; it does not sleep
        again without being asked to, and BARs may be mapped again. Where the device never slept it
        stays silent, and `exit()` is what ends it. The caller closes the eventfd.
        """
        woken = EventFd()
        try:
            self._features.set(
                Feature.LOW_POWER_ENTRY_WITH_WAKEUP, LowPowerWakeup(woken.fileno(), 0)
            )
        except BaseException as error:
            woken.close()
            if isinstance(error, HostError):
                raise self._explain(error) from error
            raise
        return woken

    def exit(self) -> None:
        """Wake it and forbid low power; nothing happens where it was not allowed."""
        self._features.apply(Feature.LOW_POWER_EXIT)

    @contextmanager
    def low(self) -> Iterator[None]:
        """Allow low power for the length of a `with` block."""
        self.enter()
        try:
            yield
        finally:
            self.exit()

    def _explain(self, error: HostError) -> HostError | BusyError:
        if error.errno != errno.EINVAL:
            return error
        where = self._features.address
        return BusyError(
            f"{where}: low power is allowed already; call exit() before entering again"
        )

"""What an attachment does when the host speaks: waits fail after a bus error; it leaves when asked.

The errors are PCI Express's own (PCIe 6.0, section 6.2); the request is that of Linux
include/uapi/linux/vfio.h, VFIO_PCI_REQ_IRQ_INDEX.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from uspace_drv.driver import Driver
from uspace_drv.errors import DeviceError, DeviceGone
from uspace_drv.port import Notice

log = logging.getLogger(__name__)

BUS_ERROR = (
    "the bus reported an error of this device that cannot be corrected; what it did since is not "
    "to be trusted: reset it (Attachment.reset), or leave it"
)
GIVEN_BACK = (
    "the host asked for the device back (it is being unbound or unplugged), and it was left; "
    "leave the with block, or call close()"
)


class Heed:
    """Called for each notice, in a thread of the backend. `leave` takes the way out."""

    def __init__(self, driver: Driver, leave: Callable[[], None]) -> None:
        self._driver = driver
        self._leave = leave
        self._failure: BaseException | None = None

    def __call__(self, notice: Notice) -> None:
        """Fail the waits; where the host wants the device, leave it in good order."""
        where = self._driver.device.address
        if notice is Notice.ERROR:
            log.error("%s: %s", where, BUS_ERROR)
            self._driver._fail(DeviceError, BUS_ERROR)
            return
        log.warning("%s: the host asks for the device back: leaving it", where)
        self._driver._fail(DeviceGone, GIVEN_BACK)
        try:
            self._leave()
        except BaseException as failure:  # noqa: BLE001 - raised in the thread that has the device
            self._failure = failure

    def raise_failure(self, error: BaseException | None = None) -> None:
        """Raise once what failed when the device was left, or note it on `error`."""
        failure, self._failure = self._failure, None
        if failure is None:
            return
        if error is None:
            raise failure
        if error is not failure:
            error.add_note(f"when it was left: {type(failure).__name__}: {failure}")

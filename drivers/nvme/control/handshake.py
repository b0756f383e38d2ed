"""Enabling, disabling and shutting down a controller (NVM Express Base Specification 1.4).

Sections 3.1.5 (CC), 3.1.6 (CSTS), 7.6.1 (initialization) and 7.6.2 (shutdown).
"""

from __future__ import annotations

from contextlib import suppress

from uspace_drivers.nvme.spec.registers import (
    AdminQueueAttributes,
    CommandSet,
    Configuration,
    ControllerStatus,
    NvmeRegisters,
    Shutdown,
    ShutdownStatus,
)
from uspace_drv import Deadline, DeviceError, DeviceGone, DeviceTimeout, UnsupportedError

PAGE = 4096
"""Bytes of the smallest memory page that a controller may have."""

LOOK_AT_FATAL = 0.1
"""Seconds after which a wait looks whether the controller has given up meanwhile."""

ADMIN_ONLY = 1 << CommandSet.ADMIN_ONLY
NVM = 1 << CommandSet.NVM


class Handshake:
    """Talks to CC and CSTS; `name` is the device's address, for errors.

    Raises `UnsupportedError` for a controller that this driver cannot speak to, and `DeviceGone`
    where its registers read all ones. `host_page` is the size of this machine's pages in bytes.
    """

    def __init__(self, registers: NvmeRegisters, name: str, host_page: int) -> None:
        self._registers = registers
        self._name = name
        self.capabilities = registers.cap.read()
        if self.capabilities.raw == (1 << 64) - 1:
            raise DeviceGone(f"{name}: CAP reads all ones: the device is gone or powered down")
        self.timeout = max(1, self.capabilities.to) * 0.5
        """Seconds that CSTS.RDY may take to follow CC.EN (CAP.TO)."""
        self.page_size = PAGE << self.capabilities.mpsmin
        self._check(host_page)

    def check_well(self) -> None:
        """Raise `DeviceGone` for all ones and `DeviceError` for CSTS.CFS; else it is well."""
        status = self._status()
        if status.cfs:
            raise DeviceError(f"{self._name}: the controller reports that it failed: {status}")

    @property
    def is_ready(self) -> bool:
        """Whether it takes commands; False, too, where it is fatal."""
        status = self._status()
        return status.rdy and not status.cfs

    def disable(self) -> None:
        """Reset the controller: CC.EN from 1 to 0, and wait until CSTS.RDY has followed.

        Raises `DeviceTimeout` where that takes longer than CAP.TO says.
        """
        status, configuration = self._status(), self._registers.cc.read()
        if configuration.en and not status.rdy and not status.cfs:
            with suppress(DeviceTimeout):  # it should not be disabled half-way, but it is stuck
                self._wait_ready(True, "before it is disabled")
        self._registers.cc.write(configuration.replace(en=False, shn=Shutdown.NONE))
        self._wait_ready(False, "after CC.EN=0")

    def enable(self, submission: int, completion: int, entries: int) -> None:
        """Give it the admin queues, of `entries` each, at these IOVAs, and wait for CSTS.RDY.

        The controller is disabled. Raises `DeviceTimeout` after CAP.TO, and `DeviceError` as soon
        as it says that it failed.
        """
        registers = self._registers
        registers.aqa.write(AdminQueueAttributes(acqs=entries - 1, asqs=entries - 1))
        registers.asq.write(submission)
        registers.acq.write(completion)
        settings = Configuration(
            iocqes=4, iosqes=6, mps=self.capabilities.mpsmin, css=self._command_set
        )
        registers.cc.write(settings)  # all but EN may only change while it is disabled
        registers.cc.write(settings.replace(en=True))
        self._wait_ready(True, "after CC.EN=1")

    def shut_down(self, timeout: float) -> None:
        """Tell it that it will lose power, and wait until it has put everything away.

        Raises `DeviceTimeout` after `timeout` seconds.
        """
        registers = self._registers
        registers.cc.write(registers.cc.read().replace(shn=Shutdown.NORMAL))
        registers.csts.wait(shst=ShutdownStatus.COMPLETE, timeout=timeout)

    def _wait_ready(self, wanted: bool, when: str) -> None:
        deadline = Deadline(self.timeout)
        while True:
            try:
                self._registers.csts.wait(
                    rdy=wanted, timeout=min(LOOK_AT_FATAL, deadline.remaining())
                )
            except DeviceTimeout:
                status = self._status()
            else:
                return
            if status.cfs and wanted:
                raise DeviceError(f"{self._name}: the controller failed {when}: {status}")
            if deadline.passed and status.rdy is not wanted:
                raise DeviceTimeout(
                    f"{self._name}: csts.rdy={wanted:d} not seen within {self.timeout:.1f} s "
                    f"(CAP.TO) {when}; last read {status}"
                )

    def _status(self) -> ControllerStatus:
        status = self._registers.csts.read()
        if status.raw == 0xFFFF_FFFF:
            raise DeviceGone(f"{self._name}: CSTS reads all ones: the device is gone")
        return status

    @property
    def _command_set(self) -> CommandSet:
        return CommandSet.NVM if self.capabilities.css & NVM else CommandSet.ALL

    def _check(self, host_page: int) -> None:
        found = self.capabilities
        if not found.css & (NVM | 1 << CommandSet.ALL):
            raise UnsupportedError(
                f"{self._name}: the controller has no NVM command set (CAP.CSS={found.css:#x})"
            )
        if self.page_size > host_page:
            raise UnsupportedError(
                f"{self._name}: its smallest memory page has {self.page_size} bytes (CAP.MPSMIN), "
                f"and this machine's have {host_page}"
            )
        if found.mqes < 1:
            raise DeviceError(
                f"{self._name}: CAP.MQES={found.mqes}: queues have two entries or more"
            )

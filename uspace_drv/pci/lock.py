"""One user at a time: an advisory lock on a function's own sysfs folder (Linux flock(2)).

`uspace bind` and an attached driver take the same lock, so neither pulls the device from under the
other. The kernel gives it back when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
from types import TracebackType
from typing import Self

from uspace_drv.errors import BusyError, HostError
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.host import Host
from uspace_drv.pci.sysfs import DEVICES


class FunctionLock:
    """A held lock; `close()` or leaving the `with` gives it back."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pid = os.getpid()

    def close(self) -> None:
        """Give it back; may be called twice. In a forked child it stays the parent's."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            # A forked child has the same lock: closing alone would leave it locked.
            if os.getpid() == self._pid:
                fcntl.flock(fd, fcntl.LOCK_UN)
        finally:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def lock_function(address: PciAddress, host: Host | None = None) -> FunctionLock:
    """Take the lock, or raise `BusyError` at once with the process that has it."""
    return lock_folder(f"{DEVICES}/{address}", str(address), host or Host())


def lock_folder(folder: str, address: str, host: Host) -> FunctionLock:
    """Lock what has that folder in sysfs; `address` is how errors call it."""
    path = host.path(folder)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"{address}: cannot open {path}: {error.strerror}", cause=error) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = _owner(fd, host)
        os.close(fd)
        raise BusyError(f"{address}: {owner} has it; close that driver first") from error
    return FunctionLock(fd)


def _owner(fd: int, host: Host) -> str:
    """Who holds a lock on that file, as /proc/locks says it: '1: FLOCK ADVISORY WRITE pid ...'."""
    status = os.fstat(fd)
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in (host.read("/proc/locks") or "").splitlines():
        words = line.split()
        if len(words) > 5 and words[1] == "FLOCK" and words[5] == device:
            name = host.read(f"/proc/{words[4]}/comm") or "gone"
            return f"process {words[4]} ({name})"
    return "another process"

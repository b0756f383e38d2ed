"""What to do about a file of the kernel that cannot be opened (Linux open(2), "Errors")."""

from __future__ import annotations

import errno
import os

from uspace_drv.errors import HostError


def refused(path: str, address: str, error: OSError) -> HostError:
    """Return the error of a file that cannot be opened or mapped, with the cure.

    `path` is the file as the user knows it, `address` the device's.
    """
    cure = ""
    if error.errno in {errno.EACCES, errno.EPERM} and os.geteuid() == 0:
        cure = "; root is refused where the kernel is locked down (secure boot): see dmesg"
    elif error.errno in {errno.EACCES, errno.EPERM}:
        cure = "; run it as root, or let root hand the device to you: uspace bind --user NAME"
    return HostError(f"{address}: cannot open {path}: {error.strerror}{cure}", cause=error)

"""The host's small text files (/sys, /proc): read, list, follow and write them, one call each.

A missing or vanishing file reads as None, because functions come and go while we look. `root` moves
the whole tree, so tests build one of their own. Linux Documentation/filesystems/sysfs.rst.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from uspace_drv.errors import HostError

_VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO, errno.EIO)


class Host:
    """The file tree of a machine below `root`; paths handed in are absolute, as on the host."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def path(self, path: str) -> Path:
        """Where that path of the host is on this machine."""
        return self.root / path.lstrip("/")

    def read(self, path: str) -> str | None:
        """Return the text without the white space around it; None where there is no such file."""
        try:
            return self.path(path).read_text(encoding="utf-8", errors="replace").strip()
        except OSError as error:
            if error.errno in _VANISHED:
                return None
            raise _unusable("read", path, error) from error

    def read_int(self, path: str) -> int | None:
        """Return the number in it, decimal or with 0x; None where there is none."""
        text = self.read(path)
        try:
            return None if text is None else int(text, 0)
        except ValueError:
            return None

    def names(self, path: str) -> list[str]:
        """Return the sorted names in a folder, none where there is no such folder."""
        try:
            return sorted(entry.name for entry in self.path(path).iterdir())
        except OSError as error:
            if error.errno in _VANISHED:
                return []
            raise _unusable("list", path, error) from error

    def link(self, path: str) -> str | None:
        """Return the last name of what a symbolic link points to."""
        try:
            return self.path(path).readlink().name
        except OSError:
            return None  # not a link, or gone

    def resolve(self, path: str) -> str:
        """Return the host path with every symbolic link followed."""
        real = self.path(path).resolve()
        root = self.root.resolve()
        return "/" + str(real.relative_to(root)) if real.is_relative_to(root) else str(real)

    def exists(self, path: str) -> bool:
        """Whether there is such a file, folder or node."""
        return self.path(path).exists()

    def may_write(self, path: str) -> bool:
        """Whether this process has the right to write it."""
        return os.access(self.path(path), os.W_OK)

    def write(self, path: str, text: str) -> None:
        """Write the text in one go, as sysfs wants it; `HostError` names the cure."""
        try:
            fd = os.open(self.path(path), os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, text.encode())
            finally:
                os.close(fd)
        except OSError as error:
            raise _unusable(f"write {text.strip()!r} to", path, error) from error

    def is_open_elsewhere(self, node: str) -> bool:
        """Whether a device node that opens only once (a VFIO group) is open already."""
        try:
            os.close(os.open(self.path(node), os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            return error.errno == errno.EBUSY
        return False


def _unusable(verb: str, path: str, error: OSError) -> HostError:
    cure = ""
    if error.errno in (errno.EACCES, errno.EPERM):
        cure = "; it takes root: run it with sudo"
    elif error.errno == errno.EROFS:
        cure = "; the file system is read-only here (a container?): run it on the host"
    return HostError(f"cannot {verb} {path}: {error.strerror}{cure}", cause=error)

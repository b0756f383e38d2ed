"""Looks at a machine as whoever runs us: what may not be read is as if it were not there.

proc(5) and Linux Documentation/filesystems/sysfs.rst; a doctor that needs root to say that one is
not root would be of no use.
"""

from __future__ import annotations

import gzip
import os
import zlib

from uspace_drv.errors import HostError
from uspace_drv.pci.host import Host

_MOST = 4 << 20  # bytes; a kernel's options are a tenth of that


class Observer(Host):
    """A `Host` that never fails and never writes; `root` puts another file tree under it."""

    def read(self, path: str) -> str | None:
        """Return the text; None where there is no such file, or it is not for this user."""
        try:
            return super().read(path)
        except HostError:
            return None

    def names(self, path: str) -> list[str]:
        """Return the sorted names in a folder; none where it may not be listed."""
        try:
            return super().names(path)
        except HostError:
            return []

    def exists(self, path: str) -> bool:
        """Whether it is there, as far as this user may know."""
        try:
            return super().exists(path)
        except OSError:
            return False  # in a folder that is closed to this user

    def words(self, path: str) -> list[str]:
        """Return the words of a file, none where there is no such file."""
        return (self.read(path) or "").split()

    def data(self, path: str, size: int = _MOST) -> bytes | None:
        """Return the first bytes of a file."""
        try:
            return self.read_bytes(path, 0, size)
        except HostError:
            return None

    def unpacked(self, path: str) -> str | None:
        """Return the text of a file that gzip has packed."""
        packed = self.data(path)
        try:
            return None if packed is None else gzip.decompress(packed).decode("utf-8", "replace")
        except (OSError, EOFError, zlib.error):
            return None

    def may_use(self, path: str) -> bool:
        """Whether this user may read and write it."""
        return os.access(self.path(path), os.R_OK | os.W_OK)

    def program(self, name: str) -> str | None:
        """Return the path of a program, as a shell would find it."""
        folders = (os.environ.get("PATH") or os.defpath).split(os.pathsep)
        found = (f"{folder}/{name}" for folder in folders if folder.startswith("/"))
        return next((path for path in found if self.exists(path)), None)

"""The host's small files (/sys, /proc, /dev, /etc): read, list, follow and change them.

A missing or vanishing file reads as None, because functions come and go while we look. `root` moves
the whole tree, so tests build one of their own. Whatever changes the machine goes through here, one
call each, so that a rehearsal can print it and a test can stop after any of it. Linux
Documentation/filesystems/sysfs.rst.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from uspace_drv.errors import HostError

DRAFT = ".new"
"""What the name of a file ends with until all of it is on disk; a kill may leave it."""

_PIECE = 1 << 16
_VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO, errno.EIO)


class Host:
    """The file tree of a machine below `root`; paths handed in are absolute, as on the host."""

    is_rehearsal = False
    """Whether changes are only noted, so that nothing will come of them."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def path(self, path: str) -> Path:
        """Where that path of the host is on this machine."""
        return self.root / path.lstrip("/")

    def read(self, path: str) -> str | None:
        """Return the text without the white space around it; None where there is no such file."""
        try:
            return _content(self.path(path)).decode("utf-8", "replace").strip()
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

    def owner(self, path: str) -> int | None:
        """Return the user id that a file or node belongs to; None where there is none."""
        try:
            return self.path(path).stat().st_uid
        except OSError:
            return None

    def read_bytes(self, path: str, offset: int, size: int) -> bytes:
        """Read a binary file (configuration space) at an offset."""
        try:
            with self.path(path).open("rb", buffering=0) as file:
                return os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise _unusable("read", path, error) from error

    # what changes the machine

    def write(self, path: str, text: str) -> None:
        """Write the text in one go, as sysfs wants it; `HostError` names the cure."""
        self._write_at(path, text.encode(), None, f"write {text.strip()!r} to")

    def write_bytes(self, path: str, offset: int, data: bytes) -> None:
        """Write into a binary file (configuration space) at an offset."""
        self._write_at(path, data, offset, f"write {data.hex()} at {offset:#x} of")

    def write_file(self, path: str, text: str) -> None:
        """Put a file on disk: either all of it or what was there before, folders included."""
        target, draft = self._with_draft(path)
        try:
            target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            with draft.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(target)
            _sync_folder(target.parent)
        except OSError as error:
            raise _unusable("write", path, error) from error

    def remove_file(self, path: str) -> None:
        """Remove it; without one nothing happens."""
        target, draft = self._with_draft(path)
        try:
            draft.unlink(missing_ok=True)  # of a `write_file` that was killed
            target.unlink()
            _sync_folder(target.parent)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise _unusable("remove", path, error) from error

    def set_owner(self, path: str, user: int) -> None:
        """Give a node or an attribute to a user; its group and mode stay. Follows no link."""
        try:
            os.chown(self.path(path), user, -1, follow_symlinks=False)
        except OSError as error:
            raise _unusable(f"give user {user}", path, error) from error

    def _with_draft(self, path: str) -> tuple[Path, Path]:
        target = self.path(path)
        return target, target.with_name(target.name + DRAFT)

    def _write_at(self, path: str, data: bytes, offset: int | None, verb: str) -> None:
        try:
            fd = os.open(self.path(path), os.O_WRONLY | os.O_CLOEXEC)
            try:
                done = os.write(fd, data) if offset is None else os.pwrite(fd, data, offset)
            finally:
                os.close(fd)
        except OSError as error:
            raise _unusable(verb, path, error) from error
        if done != len(data):
            raise HostError(f"cannot {verb} {path}: took {done} bytes of {len(data)}")

    def opener(self, node: str) -> str | None:
        """Say which process has a device node open, 'process 4711 (qemu)'; None where none has.

        Other users' processes are seen by root alone. Where it opens only once (a VFIO group) the
        kernel says that somebody has it, even through a descriptor that was passed on.
        """
        for process in filter(str.isdecimal, self.names("/proc")):
            if node in self._open_files(process):
                return f"process {process} ({self.read(f'/proc/{process}/comm') or 'gone'})"
        try:
            os.close(os.open(self.path(node), os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            return "another process" if error.errno == errno.EBUSY else None
        return None

    def _open_files(self, process: str) -> set[str]:
        folder = self.path(f"/proc/{process}/fd")
        try:
            return {str(entry.readlink()) for entry in folder.iterdir()}
        except OSError:
            return set()  # not ours to look into, or it ended


def _sync_folder(folder: Path) -> None:
    """A new or removed name is on disk only when its folder is."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _content(path: Path) -> bytes:
    """Four system calls, half of what a file object takes: one attach reads twenty such files."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return b"".join(iter(lambda: os.read(fd, _PIECE), b""))
    finally:
        os.close(fd)


def _unusable(verb: str, path: str, error: OSError) -> HostError:
    cure = ""
    if error.errno in (errno.EACCES, errno.EPERM):
        cure = "; it takes root: run it with sudo"
    elif error.errno == errno.EROFS:
        cure = "; the file system is read-only here (a container?): run it on the host"
    return HostError(f"cannot {verb} {path}: {error.strerror}{cure}", cause=error)

"""What was bound before we changed it, on disk before anything changes, one file per function.

The folder is on /run (file-hierarchy(7)): it survives the process and not the machine, like the
bindings that it describes.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

from uspace_drv.errors import HostError
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.host import Host

FOLDER = "/run/uspace_drv"


@dataclass(frozen=True)
class Entry:
    """What to go back to (driver and override, None for none), and what we bound instead."""

    driver: str | None
    driver_override: str | None
    bound: str


class Journal:
    """Reads, writes and removes entries; `HostError` where the folder or an entry is no good."""

    def __init__(self, host: Host) -> None:
        self._folder = host.path(FOLDER)

    def read(self, address: PciAddress) -> Entry | None:
        """Return the entry, or None where there is none."""
        path = self._folder / f"{address}.json"
        try:
            return Entry(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise HostError(f"cannot read {path}: {error.strerror}", cause=error) from error
        except (ValueError, TypeError) as error:
            raise HostError(
                f"{path} does not say what was bound before ({error}); remove it, and "
                f"uspace restore {address} lets the kernel choose the driver"
            ) from error

    def write(self, address: PciAddress, entry: Entry) -> None:
        """Put the entry on disk: either all of it or what was there before."""
        path = self._folder / f"{address}.json"
        draft = path.with_suffix(".new")
        try:
            self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            with draft.open("w", encoding="utf-8") as file:
                json.dump(asdict(entry), file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            self._sync_folder()
        except OSError as error:
            raise HostError(
                f"cannot write {path}: {error.strerror}; it takes root: run it with sudo",
                cause=error,
            ) from error

    def remove(self, address: PciAddress) -> None:
        """Forget the entry; without one nothing happens."""
        path = self._folder / f"{address}.json"
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise HostError(f"cannot remove {path}: {error.strerror}", cause=error) from error

    def _sync_folder(self) -> None:
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

"""What was there before we changed it, on disk before anything changes: one file per function.

The folder is in /var/lib (file-hierarchy(7)), so an entry outlives the machine's restart. Bindings
do not, udev rules do: each entry names the boot that it was written in (random(4), boot_id).
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from uspace_drv.errors import BusyError, HostError, NoDevice
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.host import DRAFT, Host

FOLDER = "/var/lib/uspace_drv"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_SUFFIX = ".json"
_TURN_TIMEOUT = 10.0  # seconds
_POLL = 0.01  # seconds
_NAMES = (str, type(None))
_KINDS: Mapping[str, tuple[type, ...]] = {
    "driver": _NAMES,
    "driver_override": _NAMES,
    "bound": _NAMES,
    "bus_master": (bool,),
    "ids": (str,),
    "boot_id": (str,),
    "user": (int, type(None)),
    "owners": (dict,),
    "persist": (bool,),
    "vfs": (int, type(None)),
    "vfs_autoprobe": (bool,),
}


@dataclass(frozen=True)
class Entry:
    """What to go back to, and what we made instead.

    Before: `driver` and `driver_override` (None for none), `bus_master` (the bit of the command
    register), `owners` (user id of each node that was handed over), `vfs` and `vfs_autoprobe`
    (virtual functions; `vfs` None where we did not touch them). Made: `bound` (None where the
    driver was left alone), `user` (to whom nodes went), `persist` (a udev rule).
    """

    driver: str | None
    driver_override: str | None
    bound: str | None
    bus_master: bool = False
    ids: str = ""
    boot_id: str = ""
    user: int | None = None
    owners: Mapping[str, int] = field(default_factory=dict)
    persist: bool = False
    vfs: int | None = None
    vfs_autoprobe: bool = True


class Journal:
    """Reads, writes and removes entries; `HostError` where the folder or an entry is no good."""

    def __init__(self, host: Host) -> None:
        self._host = host

    @property
    def boot_id(self) -> str:
        """The boot that is going on."""
        return self._host.read(_BOOT_ID) or ""

    def is_stale(self, entry: Entry) -> bool:
        """Whether the machine was started again since: bindings and node owners are gone."""
        return entry.boot_id != self.boot_id

    def addresses(self) -> list[PciAddress]:
        """Return the functions that there are entries for, or drafts that a kill left, in order.

        With a draft alone nothing has been changed yet, and `read` returns None.
        """
        found = set()
        for name in self._host.names(FOLDER):
            try:
                found.add(PciAddress.parse(name.removesuffix(DRAFT).removesuffix(_SUFFIX)))
            except NoDevice:
                continue  # nothing of ours
        return sorted(found)

    def entries(self) -> dict[PciAddress, Entry]:
        """Return all entries that make sense; `read` says what is wrong with another one."""
        found = {}
        for address in self.addresses():
            with suppress(HostError):
                entry = self.read(address)
                if entry is not None:
                    found[address] = entry
        return found

    def read(self, address: PciAddress) -> Entry | None:
        """Return the entry, or None where there is none."""
        path = _path(address)
        text = self._host.read(path)
        if text is None:
            return None
        try:
            return Entry(**_checked(json.loads(text)))
        except (ValueError, TypeError) as error:
            raise HostError(
                f"{self._host.path(path)} does not say what was bound before ({error}); remove it, "
                f"and uspace restore {address} lets the kernel choose the driver"
            ) from error

    def write(self, address: PciAddress, entry: Entry) -> None:
        """Put the entry on disk: either all of it or what was there before."""
        self._host.write_file(_path(address), json.dumps(asdict(entry)) + "\n")

    def remove(self, address: PciAddress) -> None:
        """Forget the entry; without one nothing happens."""
        self._host.remove_file(_path(address))

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Keep other processes from what entries share (nodes), for a moment.

        `BusyError` where another one keeps it for 10 s.
        """
        folder = self._host.path(FOLDER)
        if self._host.is_rehearsal or not folder.exists():
            yield
            return
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _lock(fd, FOLDER)
            yield
        finally:
            os.close(fd)


def _path(address: PciAddress) -> str:
    return f"{FOLDER}/{address}{_SUFFIX}"


def _checked(found: Any) -> dict[str, Any]:
    """Return what a file held, if it is an entry: an old or a foreign one is better not obeyed."""
    if not isinstance(found, dict):
        raise TypeError(f"it holds a {type(found).__name__}")
    for name, value in found.items():
        if not isinstance(value, _KINDS.get(name, ())):
            raise TypeError(f"{name} is {value!r}")
    return found


def _lock(fd: int, folder: str) -> None:
    deadline = time.monotonic() + _TURN_TIMEOUT
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if time.monotonic() >= deadline:
                raise BusyError(
                    f"{folder}: another uspace has been at work there for {_TURN_TIMEOUT:.0f} s"
                ) from error
            time.sleep(_POLL)
        else:
            return

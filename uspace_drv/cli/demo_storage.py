"""The second half of `uspace demo`: a disk, and how fast Python is with it.

It drives the plugin `nvme` (NVM Express Base Specification 1.4) on its model, which lies in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from uspace_drv.cli.units import with_unit
from uspace_drv.device import Device

ADDRESS = "virtual:nvme?size=64M"
SIZE = 4 << 20
DEPTH = 64
SECONDS = 0.5  # of each measurement: enough to show what it is about


class _Disk(Protocol):
    """What the steps need of a namespace."""

    block_size: int

    def read(self, lba: int, count: int) -> Any: ...
    def write(self, lba: int, data: bytes) -> None: ...
    def flush(self) -> None: ...


class _Nvme(Protocol):
    """What the steps need of the plugin's driver, which this package does not import."""

    device: Device
    namespaces: Mapping[int, _Disk]

    def require(self, condition: bool, message: str) -> None: ...
    def identify(self) -> Any: ...
    def list(self) -> Any: ...
    def smart(self) -> Any: ...
    def bench(self, *, depth: int, seconds: float) -> Any: ...


def _identify(nvme: _Nvme) -> str:
    found, first = nvme.identify(), nvme.list()[0]
    size = with_unit(first.size, "B")
    return f"{found.model}, NVMe {found.version}, {size} in blocks of {first.format}"


def _write_and_read(nvme: _Nvme) -> str:
    disk = nvme.namespaces[1]
    content = hashlib.shake_128(b"uspace demo").digest(SIZE)
    disk.write(0, content)
    disk.flush()
    seen = bytes(disk.read(0, SIZE // disk.block_size))
    nvme.require(seen == content, "other bytes came back than were written")
    return f"{with_unit(SIZE, 'B')} written, flushed, read back, all as they were"


def _measure(depth: int) -> Callable[[_Nvme], str]:
    def measure(nvme: _Nvme) -> str:
        found = nvme.bench(depth=depth, seconds=SECONDS)
        rate = with_unit(int(found.iops), "/s")
        return f"4 KiB reads: {rate}, half of them within {with_unit(found.p50, 's')}"

    return measure


def _health(nvme: _Nvme) -> str:
    found = nvme.smart()
    nvme.require(not found.critical_warnings, f"it warns: {found.critical_warnings}")
    return f"all is well; the controller has counted {found.read_commands:,} reads"


STEPS: dict[str, Callable[[Any], str]] = {
    "identification": _identify,
    "write and read": _write_and_read,
    "one at a time": _measure(1),
    f"{DEPTH} at a time": _measure(DEPTH),
    "health": _health,
}

"""Kernel modules for the guest: those asked for and what they need, in the order to load them.

Dependencies are read from each module's `.modinfo` section (Linux include/linux/moduleinfo, the
field "depends"), so that no `depmod` has to run on the host.
"""

from __future__ import annotations

import lzma
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from uspace_drv.errors import HostError

from .programs import find_program

BOOT_MODULES = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay")
"""What the guest's init needs before there is a file system."""

DRIVER_MODULES = ("vfio-pci", "vfio_iommu_type1", "uio_pci_generic")
"""The kernel's user-space driver interfaces."""

_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


def load_modules(folder: Path, names: Iterable[str]) -> dict[str, bytes]:
    """Return the name and content of each module that `names` need, in the order to load them.

    `folder` is one kernel's `lib/modules/<release>`; modules built into it are left out. Raises
    `HostError` for a module that the kernel does not have.
    """
    files = {_plain(path.name.split(".")[0]): path for path in folder.rglob("*.ko*")}
    built_in = {_plain(Path(line).stem) for line in _lines(folder / "modules.builtin")}
    loaded: dict[str, bytes] = {}

    def visit(name: str) -> None:
        if name in loaded or name in built_in:
            return
        if name not in files:
            raise HostError(f"{folder}: this kernel has no module {name}, and it is not built in")
        content = _read(files[name])
        for needed in _dependencies(content):
            visit(needed)
        loaded[name] = content

    for name in names:
        visit(_plain(name))
    return loaded


def _plain(name: str) -> str:
    """Return the kernel's own spelling; file names and `depends` use both '-' and '_'."""
    return name.replace("-", "_")


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _read(path: Path) -> bytes:
    """Return the module itself, unpacked if the suite ships it compressed."""
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".zst":
        command = [str(find_program("zstd")), "-dcq", str(path)]
        return subprocess.run(command, capture_output=True, check=True).stdout
    return path.read_bytes()


def _dependencies(module: bytes) -> list[str]:
    found = _DEPENDS.search(module)
    return [_plain(name.decode()) for name in found[1].split(b",") if name] if found else []

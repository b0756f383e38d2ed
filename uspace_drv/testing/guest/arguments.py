"""QEMU's words for the parts of a guest: memory, ports, shared folders, devices behind sockets.

Follows QEMU's manual, chapters "Invocation" and "9pfs" (QEMU docs/system).
"""

from __future__ import annotations

import json
from pathlib import Path

from .qemu import VFIO_USER_DEVICE


def memory_words(size: str, *, shared: bool) -> list[str]:
    """Return the machine and its memory, `size` as for -m; `shared` with other programs or not."""
    machine = "q35,kernel-irqchip=off"
    if not shared:
        return ["-M", machine, "-m", size]
    backend = f"memory-backend-memfd,id=memory,size={size},share=on"
    return ["-M", f"{machine},memory-backend=memory", "-m", size, "-object", backend]


def vfio_user_device(path: Path, slot: int) -> str:
    """Return what follows -device, as JSON: a socket's address is no plain word."""
    socket = {"type": "unix", "path": str(path.resolve())}
    return json.dumps({"driver": VFIO_USER_DEVICE, "socket": socket, "addr": f"{slot:x}"})


def monitor_words(path: Path | None) -> list[str]:
    """Return the socket at `path` that takes orders while the guest runs, if there is to be one."""
    return ["-qmp", f"unix:{_value(path)},server=on,wait=off"] if path else []


def acpi_words(path: Path) -> list[str]:
    """Return one more ACPI table for the guest, a file that begins with the table's header."""
    return ["-acpitable", f"file={_value(path)}"]


def port_words(name: str, path: str) -> list[str]:
    """Return the virtio-serial port `name`, which writes to the host's file `path`."""
    return [
        "-chardev", f"file,id={name},path={path}",
        "-device", f"virtserialport,bus=ports.0,chardev={name},name={name}",
    ]  # fmt: skip


def tree_words(tag: str, path: Path, slot: int, readonly: str) -> list[str]:
    """Return the host's folder `path`, to be mounted by its `tag`, as a function in `slot`."""
    options = f"security_model=none,multidevs=remap,readonly={readonly}"
    return [
        "-fsdev", f"local,id={tag},path={_value(path)},{options}",
        "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag},addr={slot:#x}",
    ]  # fmt: skip


def _value(path: Path) -> str:
    return str(path).replace(",", ",,")  # QEMU's way to write a comma within a value

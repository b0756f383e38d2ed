"""The C side as Python sees it: exact bus access, waiting, barriers, messages, plugins' header.

The extension is built from the C files in this folder; its types are in `_native.pyi`.
"""

from __future__ import annotations

from pathlib import Path

from uspace_drv.native._native import (
    Channel,
    DmaMapping,
    DmaTable,
    IovaTable,
    Message,
    TurnLock,
    Window,
    faults,
    full_barrier,
    read_barrier,
    wait_readable,
    write_barrier,
)

__all__ = [
    "Channel",
    "DmaMapping",
    "DmaTable",
    "IovaTable",
    "Message",
    "TurnLock",
    "Window",
    "faults",
    "full_barrier",
    "get_include",
    "read_barrier",
    "wait_readable",
    "write_barrier",
]


def get_include() -> str:
    """Folder of `uspace_drv.h`, for the include path of a plugin's C file."""
    return str(Path(__file__).parent / "include")

"""The guest's first file system: busybox, modules, an init and the command, as one archive.

The format is "newc" of Linux Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import shlex
import struct
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from uspace_drv.errors import HostError

from .programs import apt_line, find_program

_DIRECTORY, _EXECUTABLE = 0o040755, 0o100755
_PROGRAM_INTERPRETER = 3  # PT_INTERP, elf(5)


def build(modules: Mapping[str, bytes], shares: Mapping[str, Path], command: str) -> bytes:
    """Return the archive that loads `modules`, mounts `shares` (tag, folder), runs `command`."""
    entries: list[tuple[str, int, bytes]] = [
        ("bin", _DIRECTORY, b""),
        ("bin/busybox", _EXECUTABLE, _busybox()),
        ("init", _EXECUTABLE, files(__package__).joinpath("init").read_bytes()),
        ("modules", _DIRECTORY, b""),
        ("modules/order", _EXECUTABLE, _lines(f"{name}.ko" for name in modules)),
        ("job", _DIRECTORY, b""),
        ("job/shares", _EXECUTABLE, _lines(f"{tag} {path}" for tag, path in shares.items())),
        ("job/command", _EXECUTABLE, command.encode()),
    ]
    entries += [(f"modules/{name}.ko", _EXECUTABLE, code) for name, code in modules.items()]
    return archive(entries)


def command_script(argv: Sequence[str], environment: Mapping[str, str], directory: Path) -> str:
    """Return the shell script that runs `argv` in `directory` with just this environment."""
    # exec env -i: nothing of init's own environment reaches the command.
    words = ["exec", "env", "-i", *(f"{key}={value}" for key, value in environment.items()), *argv]
    return f"cd {shlex.quote(str(directory))} || exit 126\n{shlex.join(words)}\n"


def archive(entries: Iterable[tuple[str, int, bytes]]) -> bytes:
    """Return a "newc" cpio archive of (name, mode, content) entries, folders first."""
    members = [_member(*entry, number) for number, entry in enumerate(entries, start=1)]
    return b"".join([*members, _member("TRAILER!!!", 0, b"", 0)])


def _member(name: str, mode: int, content: bytes, number: int) -> bytes:
    links, owner, group, time, device = 1, 0, 0, 0, (0, 0, 0, 0)
    raw_name = name.encode() + b"\0"
    fields = (number, mode, owner, group, links, time, len(content), *device, len(raw_name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + raw_name) + _padded(content)


def _padded(part: bytes) -> bytes:
    return part + bytes(-len(part) % 4)


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _busybox() -> bytes:
    path = find_program("busybox")
    program = path.read_bytes()
    if not is_static(program):
        raise HostError(
            f"{path}: linked dynamically, but the guest needs one that runs alone;"
            f" run: {apt_line('install busybox-static')}"
        )
    return program


def is_static(program: bytes) -> bool:
    """Say whether a 64-bit little-endian ELF program asks for no interpreter (elf(5))."""
    (table,) = struct.unpack_from("<Q", program, 0x20)
    size, count = struct.unpack_from("<HH", program, 0x36)
    kinds = (struct.unpack_from("<I", program, table + index * size)[0] for index in range(count))
    return _PROGRAM_INTERPRETER not in kinds

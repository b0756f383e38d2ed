"""The QEMU that a guest runs in: this machine's own, or a newer one beside it, not installed.

Follows ld.so(8) for a program that runs with its own C library.
"""

from __future__ import annotations

from pathlib import Path

from uspace_drv.errors import HostError

from .cache import cache_folder, fetch
from .debian import BACKPORTS, SUITE, private_apt
from .programs import PACKAGES, find_program, run_program

VFIO_USER_DEVICE = "vfio-user-pci"
"""QEMU's name for a device that a program behind a socket plays; it came with QEMU 10.1."""

_PROGRAM = "qemu-system-x86_64"


def qemu_command(*, newest: bool = False) -> list[str]:
    """Return the words that start QEMU; with `newest` one that has `VFIO_USER_DEVICE`, igb and ufs.

    If the installed QEMU is older than that, Debian's newer one is taken from the cache; the first
    time it is downloaded (about 50 MB). Raises `HostError` if there is none, or apt fails.
    """
    if newest and not _installed_has_vfio_user():
        return _start_beside(_cached() or fetch(_download))
    return [str(find_program(_PROGRAM))]


def qemu_version(command: list[str]) -> str:
    """Return the version of the QEMU that `command` starts, such as "QEMU 11.1.3"."""
    program, *words = command
    said = run_program(program, *words, "--version")
    return f"QEMU {said.split()[3]}"


def _installed_has_vfio_user() -> bool:
    try:
        return f'"{VFIO_USER_DEVICE}"' in run_program(_PROGRAM, "-device", "help")
    except HostError:
        return False  # it is not installed, or cannot run


def _cached() -> Path | None:
    return max(
        cache_folder().glob("qemu-*"), key=lambda folder: folder.stat().st_mtime, default=None
    )


def _start_beside(root: Path) -> list[str]:
    libraries = root / "usr/lib/x86_64-linux-gnu"
    # It would also try the installed QEMU's modules, which abort it: it shall find its own first.
    return [
        str(find_program("env")), f"QEMU_MODULE_DIR={libraries / 'qemu'}",
        str(root / "usr/lib64/ld-linux-x86-64.so.2"), "--library-path", str(libraries),
        str(root / "usr/bin" / _PROGRAM),
        "-L", str(root / "usr/share/qemu"), "-L", str(root / "usr/share/seabios"),
    ]  # fmt: skip


def _download(folder: Path) -> str:
    """Put QEMU's packages and all that they need into `folder`; return a name with its version."""
    package = PACKAGES[_PROGRAM]
    try:
        options = private_apt(folder, [SUITE, BACKPORTS], f"a QEMU with {VFIO_USER_DEVICE}")
        run_program(
            "apt-get", *options, "-y", "-t", BACKPORTS, "--no-install-recommends",
            "--download-only", "install", package,
        )  # fmt: skip
    except HostError as failure:
        raise HostError(f"{failure}; or install QEMU 10.1 or newer") from failure
    (archive,) = folder.glob(f"cache/archives/{package}_*.deb")
    version = run_program("dpkg-deb", "--field", archive, "Version").strip()
    return f"qemu-{version.rpartition(':')[2]}"

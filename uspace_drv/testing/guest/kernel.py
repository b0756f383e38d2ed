"""The kernel that a guest boots: Debian's own package, fetched but not installed, or a given one.

Follows the Linux/x86 boot protocol (Linux Documentation/arch/x86/boot.rst), section "The
real-mode kernel header", to find the ELF kernel inside a compressed image.
"""

from __future__ import annotations

import lzma
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from uspace_drv.errors import HostError

from .cache import cache_folder, fetch
from .programs import apt_line, run_program

META_PACKAGE = "linux-image-amd64"
"""The package that depends on the kernel of the suite that apt is set up for."""

_PARTS = re.compile(r"linux-(image|modules|binary)-\d")
_XZ_MAGIC = b"\xfd7zXZ\0"
_ELF_MAGIC = b"\x7fELF"


@dataclass(frozen=True)
class Kernel:
    """A kernel image (bzImage or ELF) and the folder of its modules, None if all is built in."""

    image: Path
    modules: Path | None = None
    name: str = "given kernel"

    def __post_init__(self) -> None:
        for path in filter(None, (self.image, self.modules)):
            if not path.exists():
                raise HostError(f"{path}: no such kernel image or module folder")


def debian_kernel() -> Kernel:
    """Return Debian's kernel of this machine's suite; the first call downloads about 70 MB.

    Raises `HostError` if apt knows no such kernel or cannot fetch it.
    """
    packages = _kernel_packages()
    version = _candidate(packages[0])
    folder = cache_folder() / f"kernel-{version.replace(':', '_')}"
    if not folder.exists():
        fetch(lambda scratch: _download(packages, scratch, folder.name), _unpack_images)
    image = next(folder.glob("boot/vmlinux-*"), None) or next(folder.glob("boot/vmlinuz-*"))
    modules = next(folder.glob("lib/modules/*"), None) or next(folder.glob("usr/lib/modules/*"))
    return Kernel(image, modules, f"Debian {version}")


def _kernel_packages() -> list[str]:
    """Return the packages that hold image and modules, the image first."""
    listing = run_program("apt-cache", "depends", "--recurse", "--important", META_PACKAGE)
    packages = sorted(set(filter(_PARTS.match, listing.splitlines())))
    if not packages:
        raise HostError(
            f"apt knows no kernel behind the package {META_PACKAGE}; run: {apt_line('update')},"
            " or give a kernel (--kernel)"
        )
    return sorted(packages, key=lambda name: "linux-image-" not in name)


def _candidate(package: str) -> str:
    """Return the version that apt would install."""
    shown = run_program("apt-cache", "show", "--no-all-versions", package)
    return next(line[9:] for line in shown.splitlines() if line.startswith("Version: "))


def _download(packages: list[str], folder: Path, name: str) -> str:
    # The folder is private to this user: apt's own unprivileged user cannot write there.
    words = ("-q", "-o", "APT::Sandbox::User=root", "download")
    try:
        run_program("apt-get", *words, *packages, directory=folder)
    except HostError as failure:
        line = apt_line("update")
        raise HostError(f"{failure}; if the package lists are old, run: {line}") from failure
    return name


def _unpack_images(whole: Path) -> None:
    for image in list(whole.glob("boot/vmlinuz-*")):
        elf = extract_elf(image.read_bytes())
        if elf is not None:
            image.with_name(image.name.replace("vmlinuz", "vmlinux")).write_bytes(elf)


def extract_elf(image: bytes) -> bytes | None:
    """Return the ELF kernel inside a bzImage; None unless it is packed with xz, as Debian's is.

    QEMU boots it directly (PVH), which saves the seconds that an emulated CPU needs to unpack it.
    """
    if image[0x202:0x206] != b"HdrS":
        return None
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    if not payload.startswith(_XZ_MAGIC):
        return None
    elf = lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(payload)
    return elf if elf.startswith(_ELF_MAGIC) else None

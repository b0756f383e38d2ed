"""The host's programs that a guest needs, and the line that installs one (Debian package names)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from uspace_drv.errors import HostError

PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "dpkg-deb": "dpkg",
    "apt-get": "apt",
    "apt-cache": "apt",
    "env": "coreutils",
    "setpriv": "util-linux",
    "zstd": "zstd",
    "make": "make",
    "gcc": "gcc",
    "ld": "binutils",
    "strip": "binutils",
    "flex": "flex",
    "bison": "bison",
    "bc": "bc",
    "tar": "tar",
    "xz": "xz-utils",
}
"""Program and the Debian package that has it."""


def apt_line(words: str) -> str:
    """Return the line that lets apt-get do `words`, as this user would type it."""
    return f"{'' if os.geteuid() == 0 else 'sudo '}apt-get {words}"


def find_program(name: str) -> Path:
    """Return the path of one of `PACKAGES`, or raise `HostError` with the package that has it."""
    found = shutil.which(name)
    if found is None:
        package = PACKAGES[name]
        raise HostError(
            f"{name}: not found on this machine, the guest needs it (package {package});"
            f" run: {apt_line(f'install {package}')}"
        )
    return Path(found)


def run_program(name: str, *words: str | Path, directory: Path | None = None) -> str:
    """Run one of `PACKAGES` to its end and return what it printed; `HostError` if it failed."""
    command: Sequence[str | Path] = [find_program(name), *words]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["(nothing)"]
        raise HostError(
            f"{name} {' '.join(map(str, words))}: exit code {done.returncode}, it said: {said[-1]}"
        )
    return done.stdout

"""What a guest needs and the machine does not have: Debian packages, unpacked but not installed.

They stay in the user's cache (XDG Base Directory Specification, section "Environment variables").
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from uspace_drv.errors import HostError

from .programs import run_program


def cache_folder() -> Path:
    """Return the folder that fetched things are kept in; it may not exist yet."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "uspace_drv"


def fetch(download: Callable[[Path], str], finish: Callable[[Path], None] | None = None) -> Path:
    """Let `download` put packages into a folder; return them unpacked, under the name it gives.

    `finish` may work on the unpacked tree before others see it. Another process may fetch the
    same at the same time: the first one wins.
    """
    cache = cache_folder()
    with _scratch_folder(cache) as scratch:
        whole = Path(scratch, "whole")
        folder = cache / download(Path(scratch))
        for package in Path(scratch).rglob("*.deb"):
            run_program("dpkg-deb", "-x", package, whole)
        if finish:
            finish(whole)
        try:
            whole.rename(folder)
        except OSError:
            if not folder.exists():  # else the other process was first
                raise
    return folder


def _scratch_folder(cache: Path) -> tempfile.TemporaryDirectory[str]:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix="fetch-", dir=cache)
    except OSError as error:
        raise HostError(
            f"{cache}: cannot keep there what guests need: {error.strerror};"
            " set XDG_CACHE_HOME to a folder that can be written, with 1 GB free",
            cause=error,
        ) from error

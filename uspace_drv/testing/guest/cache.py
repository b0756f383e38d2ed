"""What a guest needs and the machine does not have: Debian packages, unpacked but not installed.

They stay in the user's cache (XDG Base Directory Specification, section "Environment variables").
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

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
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=cache) as scratch:
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

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


def writable_cache() -> Path:
    """Return the cache folder, made if need be; `HostError` if nothing can be kept there."""
    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=cache).close()
    except OSError as error:
        raise HostError(
            f"{cache}: cannot keep there what guests need: {error.strerror};"
            " set XDG_CACHE_HOME to a folder that can be written, with 1 GB free",
            cause=error,
        ) from error
    return cache


def fetch(
    download: Callable[[Path], str],
    finish: Callable[[Path], None] | None = None,
    *,
    prefix: str = "fetch-",
) -> Path:
    """Let `download` put packages into a folder; return them unpacked, under the name it gives.

    `finish` may work on the unpacked tree before others see it. Another process may fetch the
    same at the same time: the first one wins. The folder it is done in, beside the result and gone
    at the end, has a name that begins with `prefix`.
    """
    cache = writable_cache()
    with tempfile.TemporaryDirectory(prefix=prefix, dir=cache) as scratch:
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

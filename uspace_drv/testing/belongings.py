"""What this process holds: descriptors, shared mappings, threads and locks, to see what is left."""

from __future__ import annotations

import gc
import os
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path


def belongings() -> Counter[str]:
    """Count everything that an attached driver may hold, by its name."""
    gc.collect()  # an error holds its frames, and they hold it
    return Counter([*_descriptors(), *_shared_mappings(), *_threads(), *_locks()])


def _descriptors() -> list[str]:
    names = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the listing's own is gone by now
            names.append(f"descriptor of {entry.readlink()}")
    return names


def _shared_mappings() -> list[str]:
    """Device memory and DMA memory are mapped shared, which little else in a process is."""
    lines = (line.split(maxsplit=5) for line in _lines("/proc/self/maps"))
    return [f"mapping of {' '.join(words[5:])}" for words in lines if words[1].endswith("s")]


def _threads() -> list[str]:
    return [f"thread {thread.name}" for thread in threading.enumerate()]


def _locks() -> list[str]:
    lines = (line.split() for line in _lines("/proc/locks"))
    return [f"lock {words[1]} {words[5]}" for words in lines if words[4] == str(os.getpid())]


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines()

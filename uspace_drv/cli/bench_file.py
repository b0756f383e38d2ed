"""The results file while it grows: refused before anything is measured, or kept somewhere."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from uspace_drv.bench.results import Results, write_results
from uspace_drv.errors import HostError

SUFFIXES = (".json", ".html", ".png", "-dark.png")
REFUGES = (Path("/dev/shm"), Path("/var/tmp"))
"""Folders on file systems of their own, where a full disk may leave room."""


class ResultsFile:
    """Writes results after each comparison; a disk that gets full ends no measurement."""

    def __init__(self, base: Path, results: Results) -> None:
        self.base = without_suffix(base)
        self._path = with_suffix(self.base, ".json")
        self._results = results
        self._failure: HostError | None = None

    def start(self) -> None:
        """Write the file, still empty; `HostError` if it is there or cannot be written."""
        require_free(self.base, SUFFIXES)
        write_results(self._results, self._path)

    def save(self) -> None:
        """Write what there is; a failure is kept until `finish`."""
        try:
            write_results(self._results, self._path)
        except HostError as failure:
            self._failure = failure
        else:
            self._failure = None

    def finish(self) -> tuple[Path | None, HostError | None]:
        """Write everything, to another folder if need be: where it is now, and what went wrong."""
        self.save()
        if self._failure is None:
            return self._path, None
        kept = self._rescue()
        if kept is None:
            return None, HostError(f"{self._failure}; no other folder takes the results, either")
        return kept, HostError(f"{self._failure}; the results are in {kept}")

    def discard(self) -> None:
        """Remove the file: there is nothing in it."""
        self._path.unlink(missing_ok=True)

    def _rescue(self) -> Path | None:
        for folder in _refuges():
            try:
                made = tempfile.mkdtemp(prefix="uspace-bench-", dir=folder)
                path = Path(made, self._path.name)
                write_results(self._results, path)
            except OSError:  # this one is full as well; the caller says what failed first
                continue
            return path
        return None


def without_suffix(name: Path) -> Path:
    """Return the name that all files of a report share, also if that of one was given."""
    for suffix in reversed(SUFFIXES):
        if name.name.endswith(suffix) and name.name != suffix:
            return name.with_name(name.name.removesuffix(suffix))
    return name


def with_suffix(base: Path, suffix: str) -> Path:
    """Return the name of one of the files; there may be dots in what they share."""
    return base.with_name(base.name + suffix)


def require_free(base: Path, suffixes: Iterable[str]) -> None:
    """Raise `HostError` if one of these files exists: nothing is ever overwritten."""
    for suffix in suffixes:
        path = with_suffix(base, suffix)
        if path.exists():
            raise HostError(f"{path}: exists already; take another name: --output NAME")


def _refuges() -> list[Path]:
    try:
        first = [Path(tempfile.gettempdir())]
    except FileNotFoundError:  # not one of the usual folders can be written
        first = []
    return [*first, *REFUGES]

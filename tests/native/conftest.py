"""A page that logs every instruction that touches it, and files to map."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Access:
    """One instruction: where it hit the page, and for a store how many bytes it changed."""

    kind: str
    offset: int
    width: int = 0


class _Event(ctypes.Structure):
    _fields_ = (
        ("store", ctypes.c_int32),
        ("offset", ctypes.c_int32),
        ("first", ctypes.c_int32),
        ("count", ctypes.c_int32),
    )


class TrapPage:
    """4096 bytes; what happens inside `counted()` is in `log` afterwards."""

    size = 4096

    def __init__(self, library: ctypes.PyDLL) -> None:
        library.trap_open.restype = ctypes.c_void_p
        library.trap_log.restype = ctypes.POINTER(_Event)
        self._library = library
        self._array = (ctypes.c_ubyte * self.size).from_address(library.trap_open())
        self.memory = memoryview(self._array).cast("B")
        self.log: list[Access] = []

    @contextmanager
    def counted(self) -> Iterator[None]:
        self._library.trap_arm()
        try:
            yield
        finally:
            count = self._library.trap_disarm()
            events = self._library.trap_log()
            self.log = [self._access(events[i]) for i in range(count)]

    @staticmethod
    def _access(event: _Event) -> Access:
        if not event.store:
            return Access("load", event.offset)
        return Access("store", event.first if event.count else event.offset, event.count)

    def close(self) -> None:
        self._library.trap_close()


def compiled(name: str, folder: Path) -> Path:
    """The C file of that name beside this one, as a library."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip(f"{name}.c has to be compiled and there is no cc; run: apt install gcc")
    library = folder / f"{name}.so"
    source = Path(__file__).with_name(f"{name}.c")
    warnings = ["-std=c11", "-Wall", "-Wextra", "-Werror"]
    command = [compiler, *warnings, "-O1", "-shared", "-fPIC", str(source), "-o", str(library)]
    subprocess.run(command, check=True)
    return library


@pytest.fixture(scope="session")
def trap_library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.PyDLL:
    if platform.machine() != "x86_64":
        pytest.skip(f"the access counter single-steps x86-64 code, not {platform.machine()}")
    return ctypes.PyDLL(str(compiled("trap", tmp_path_factory.mktemp("trap"))))


@pytest.fixture
def trap_page(trap_library: ctypes.PyDLL) -> Iterator[TrapPage]:
    page = TrapPage(trap_library)
    yield page
    page.close()


@pytest.fixture
def two_pages(tmp_path: Path) -> Path:
    """A file of two pages whose every byte is its own offset, modulo 251."""
    path = tmp_path / "region"
    path.write_bytes(bytes(i % 251 for i in range(8192)))
    return path

"""Types of the C extension and what each call promises, which editors cannot read from C."""

# ruff: noqa: PYI021 - the docstrings are for those editors

from collections.abc import Callable
from typing import final

@final
class Window:
    """A bounded range of device registers; each access is exactly one load or store."""

    @classmethod
    def map(cls, name: str, fd: int, offset: int, size: int, /, *, writable: bool = True) -> Window:
        """Map `size` bytes of the file from `offset` (a multiple of the page size), shared."""

    @classmethod
    def over_buffer(cls, name: str, buffer: memoryview | bytearray, /) -> Window:
        """Access memory that somebody else mapped; it is kept alive until the window closes."""

    @classmethod
    def over_file(cls, name: str, fd: int, offset: int, size: int, /) -> Window:
        """Access a region that cannot be mapped: one pread or pwrite each. The fd is borrowed."""

    @classmethod
    def over_calls(
        cls,
        name: str,
        size: int,
        read: Callable[[int, int], int],
        write: Callable[[int, int, int], None],
        /,
    ) -> Window:
        """Access a model: `read(offset, width)`, `write(offset, width, value)`; width in bytes."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    def read8(self, offset: int, /) -> int: ...
    def read16(self, offset: int, /) -> int: ...
    def read32(self, offset: int, /) -> int: ...
    def read64(self, offset: int, /) -> int: ...
    def write8(self, offset: int, value: int, /) -> None: ...
    def write16(self, offset: int, value: int, /) -> None: ...
    def write32(self, offset: int, value: int, /) -> None: ...
    def write64(self, offset: int, value: int, /) -> None: ...
    def memory(self) -> memoryview:
        """View the window as bytes: only where it is memory and not registers."""

    def close(self) -> None:
        """Give the device's pages back at once. Views that live on see zeros. Twice is fine."""

def wait_readable(fd: int, wake_fd: int, timeout: float, spin: float, /) -> bool:
    """Wait until `fd` or `wake_fd` is readable: poll for `spin` seconds, then sleep.

    False when `timeout` seconds passed first. The GIL is released; signals are handled.
    """

def write_barrier() -> None:
    """Order every store before this call ahead of every store after it, write-combined too."""

def read_barrier() -> None:
    """Order every load before this call ahead of every load after it."""

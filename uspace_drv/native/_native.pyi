"""Types of the C extension and what each call promises, which editors cannot read from C."""

# ruff: noqa: PYI021 - the docstrings are for those editors

from collections.abc import Callable
from typing import final

@final
class Window:
    """A bounded range of device registers; each access is exactly one load or store.

    Offsets are in bytes and aligned to the width. Raises `RegisterValueError` for an offset or a
    value that does not fit, `ClosedError` once closed and in a forked child of the process that
    mapped it, `DeviceGone` after a bus error, `UnsupportedError` for a write where it is read-only.
    """

    @classmethod
    def map(cls, name: str, fd: int, offset: int, size: int, /, *, writable: bool = True) -> Window:
        """Map `size` bytes of the file from `offset` (a multiple of the page size), shared.

        Raises `HostError` where the kernel refuses. The descriptor may be closed afterwards.
        """

    @classmethod
    def over_buffer(cls, name: str, buffer: memoryview | bytearray, /) -> Window:
        """Access memory that somebody else mapped; it is kept alive until the window closes.

        It must start at a multiple of 8 bytes.
        """

    @classmethod
    def over_file(cls, name: str, fd: int, offset: int, size: int, /) -> Window:
        """Access a region that cannot be mapped: one pread or pwrite each. The fd is borrowed.

        An access raises `DeviceGone` where the kernel moves fewer bytes or says EIO, ENODEV or
        ENXIO, and `HostError` for other errors of the kernel.
        """

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
        """View the window as bytes: only where it is memory and not registers.

        Raises `UnsupportedError` where nothing is mapped. Once the device is gone it reads as all
        ones, which raises nothing: ask the window.
        """

    def close(self) -> None:
        """Give the device's pages back at once. Views that live on see zeros. Twice is fine."""

def wait_readable(fd: int, wake_fd: int, timeout: float, spin: float, /) -> bool:
    """Wait until `fd` or `wake_fd` is readable: poll for `spin` seconds, then sleep.

    False when `timeout` seconds passed first. The GIL is released; signals are handled. A hang-up
    counts as readable. `wake_fd` may be -1. Raises `ValueError` for times that are not finite and
    0 or more, and `HostError` for a descriptor that is not open.
    """

def write_barrier() -> None:
    """Order every store before this call ahead of every store after it, write-combined too."""

def read_barrier() -> None:
    """Order every load before this call ahead of every load after it."""

"""Types of the C extension and what each call promises, which editors cannot read from C."""

# ruff: noqa: PYI021 - the docstrings are for those editors

from collections.abc import Callable, Sequence
from typing import Self, final

@final
class Window:
    """A bounded range of device registers; each access is exactly one load or store.

    Offsets are in bytes and aligned to the width. Raises `RegisterValueError` for an offset or a
    value that does not fit, `ClosedError` once closed and in a forked child of the process that
    opened it, `DeviceGone` after a bus error, `UnsupportedError` for a write where it is read-only.
    """

    @classmethod
    def map(cls, name: str, fd: int, offset: int, size: int, /, *, writable: bool = True) -> Window:
        """Map `size` bytes of the file from `offset` (a multiple of the page size), shared.

        Raises `HostError` where the kernel refuses. The descriptor may be closed afterwards.
        Bus errors are noticed by a handler of SIGBUS. One that is installed later, as by
        `faulthandler.enable()`, hides it, and a bus error ends the process, until the next window
        over memory is made.
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
        parts: tuple[tuple[int, Window], ...] = (),
        /,
    ) -> Window:
        """Access a model: `read(offset, width)`, `write(offset, width, value)`; width in bytes.

        `parts` are mapped windows that show through, each with its offset: ascending, apart, at
        multiples of 8, sizes too, else `RegisterValueError`. They close with this one.
        """

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def closed(self) -> bool: ...

    link: object
    """What `Readable.wait` asks whether the device is there (a `registers.Link`), or None."""

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

@final
class Message(tuple[int, int, int, int, bytes, tuple[int, ...]]):
    """One message as it came: the header's fields, the payload without the header, descriptors."""

    __match_args__ = ("id", "command", "flags", "error", "payload", "fds")
    @property
    def id(self) -> int: ...
    @property
    def command(self) -> int: ...
    @property
    def flags(self) -> int: ...
    @property
    def error(self) -> int: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def fds(self) -> tuple[int, ...]:
        """Close-on-exec; whoever received the message closes them."""

@final
class Channel:
    """One end of a vfio-user connection over a stream socket: whole messages, with descriptors.

    Any thread may send, one at a time may receive. Raises `DeviceGone` when the peer closed the
    connection, `PeerError` when it broke the protocol, `ClosedError` when this end was closed,
    before or during the call, `HostError` for other errors of the kernel.
    """

    def __new__(
        cls, name: str, fd: int, max_payload: int, max_fds: int, /, *, send_timeout: float = 5.0
    ) -> Self:
        """Take a connected socket over, descriptor and all; it stays the caller's on an error.

        `name` opens every error. A message from the peer may have `max_payload` bytes behind its
        header and `max_fds` descriptors (at most 253). Raises `ValueError`, and `HostError` for a
        descriptor that is no socket.
        """

    @property
    def name(self) -> str: ...
    @property
    def closed(self) -> bool: ...
    @property
    def pending(self) -> bool:
        """Whether `receive()` has something to say without reading: poll does not see that."""

    @property
    def partial(self) -> bool:
        """Whether a message has begun to come and has not ended; False while a thread receives."""

    def send(
        self,
        id: int,  # noqa: A002
        command: int,
        flags: int,
        error: int,
        payload: bytes | bytearray | memoryview,
        fds: Sequence[int] = (),
        /,
    ) -> None:
        """Send one message whole. The descriptors stay the caller's.

        A peer that has not read it within `send_timeout` seconds raises `PeerError`; if a part of
        it went out, nothing more can be sent. `BusyError` when another thread sends for as long.
        """

    def receive(self, timeout: float, spin: float = 0.0, /) -> Message | None:
        """Return the next message; None after `timeout` seconds, or when the wake fd is readable.

        Reads without sleeping for the first `spin` seconds. What is buffered comes before the
        wake fd. After `PeerError`, or `HostError` for descriptors that did not fit in this process,
        nothing more can be received. `BusyError` when another thread receives.
        """

    def exchange(
        self,
        id: int,  # noqa: A002
        command: int,
        payload: bytes | bytearray | memoryview,
        fds: Sequence[int],
        timeout: float,
        spin: float = 0.0,
        /,
    ) -> Message | None:
        """Send a command, then receive the next message, whatever it is: look at its id."""

    def set_limits(self, max_payload: int, max_fds: int, /) -> None:
        """Say what a message of the peer may hold from now on."""

    def set_wake(self, fd: int, /) -> None:
        """Let `receive()` end when `fd` is readable; -1 for none. The fd is borrowed.

        A sleep then costs one system call more.
        """

    def fileno(self) -> int:
        """The socket, for poll; -1 when closed."""

    def close(self) -> None:
        """End the connection, in every thread that uses it; twice is fine.

        Descriptors that came and that nobody took are closed.
        """

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

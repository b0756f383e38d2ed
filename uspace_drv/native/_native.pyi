"""Types of the C extension and what each call promises, which editors cannot read from C."""

# ruff: noqa: PYI021 - the docstrings are for those editors

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic, Self, TypeVar, final

from numpy.typing import NDArray

from uspace_drv.port import Direction, DmaSpace, Iova

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
    def address(self) -> int:
        """Where it is mapped in this process, for C; 0 where nothing is, once closed, or gone."""

    @property
    def closed(self) -> bool: ...

    link: object
    """What `Readable.wait` asks whether the device is there (a `registers.Link`), or None.

    A closed window asks it too, so that an access raises `DeviceGone` if that is why it was closed.
    """

    def read8(self, offset: int, /) -> int: ...
    def read16(self, offset: int, /) -> int: ...
    def read32(self, offset: int, /) -> int: ...
    def read64(self, offset: int, /) -> int: ...
    def write8(self, offset: int, value: int, /) -> None: ...
    def write16(self, offset: int, value: int, /) -> None: ...
    def write32(self, offset: int, value: int, /) -> None: ...
    def write64(self, offset: int, value: int, /) -> None: ...
    def memory(self, offset: int = 0, size: int | None = None) -> memoryview:
        """View the window as bytes: only where it is memory and not registers.

        `size` bytes from `offset` on, all that follows if not told. Raises `UnsupportedError`
        where any of that is not mapped, or not by one mapped part; `RegisterValueError` for more
        than there is. Once the device is gone it reads as all ones, which raises nothing: ask the
        window.
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

class IovaTable:
    """Which IOVAs are taken, inside of usable ones: pairs of first and last address, ascending."""

    def __init__(self, usable: Sequence[tuple[int, int]], /) -> None: ...
    def take(self, size: int, address: int = 0, /) -> int | None:
        """The start of a free place, or None; it goes on where the last search ended.

        For memory at `address` that may hold whole huge pages (1 GiB, 2 MiB) the place lies as far
        into one as the address, if there is room. Raises `ValueError` for a size of 0.
        """

    def give_back(self, iova: int, size: int, /) -> None:
        """Free what `take()` returned; `ValueError` for anything else."""

    @property
    def count(self) -> int:
        """How many places are taken."""

class DmaMapping:
    """One piece of memory that a device reaches; only a `DmaTable` makes one."""

    @property
    def array(self) -> NDArray[Any]:
        """The memory; while the device reaches it, the mapping keeps it alive.

        `UnsupportedError` for memory of a file that this process cannot map.
        """

    @property
    def iova(self) -> Iova:
        """The address of the first byte for the device; `ClosedError` once it has none."""

    @property
    def last_iova(self) -> int:
        """The same, closed or not: for messages."""

    @property
    def size(self) -> int:
        """Bytes, without what fills the last page."""

    @property
    def page_size(self) -> int:
        """Bytes of one page of the memory: more than usual for huge pages."""

    @property
    def direction(self) -> Direction:
        """What the device may do."""

    @property
    def closed(self) -> bool:
        """Whether the device has lost its access."""

    def close(self) -> None:
        """Take the memory away from the device, at once. Twice is fine."""

_M = TypeVar("_M", bound=DmaMapping)

class DmaTable(Generic[_M]):
    """All that a device has mapped. One thread at a time maps or unmaps, others wait.

    It calls the Python side where something is odd: `_check(array, direction)` answers with
    address and size of an array that is not as usual, and numpy's array type; `_refuse_more()`,
    `_refuse_closed()` and `_let_go(mapping)` raise.
    """

    def __init__(
        self,
        space: DmaSpace,
        iovas: IovaTable | None,
        mapping_type: type[_M],
        directions: tuple[Direction, Direction, Direction],
        page: int,
        reach: int,
        limit: int,
        calls: tuple[int, int, int],
        /,
    ) -> None:
        """`reach` is the last IOVA of the device; `limit` -1 for none; `calls` as `DmaCalls`."""

    def map(self, array: NDArray[Any], direction: Direction = ...) -> _M:
        """Map an existing array, without a copy, until the buffer is closed; both ways if not told.

        It must be C-contiguous and own whole pages, because the device is shown whole pages: the
        array of a closed buffer does, and so does one over an `mmap`. Raises `RegisterValueError`
        for another one, `HostError` where the kernel refuses, `ClosedError` after `close()`.
        """

    def _map_checked(
        self,
        array: NDArray[Any] | None,
        direction: Direction,
        address: int,
        size: int,
        shown: int,
        page_size: int,
        through: Callable[[int, int, Iova | None, Direction], Iova] | None,
        /,
    ) -> _M:
        """Map memory that was found good: `shown` bytes of it, in pages of `page_size`.

        `through` replaces the space's `map`; `address` is then how far into a file they begin.
        """

    def close(self) -> None:
        """Unmap everything, in as few calls as the space has. Twice is fine."""

    @property
    def buffers(self) -> tuple[_M, ...]:
        """What the device reaches now, oldest first."""

    @property
    def _closed(self) -> bool: ...

class TurnLock:
    """A reentrant lock of one path, which runs long and can be interrupted, and of all others.

    `with` takes it for the others: a path that has it is interrupted. What a handler of a signal
    raises leaves it either taken, inside of the `with`, or not taken at all.
    """

    path: object
    """Whom to interrupt: what has a method `interrupt`; None: nobody."""

    @property
    def lock(self) -> AbstractContextManager[bool, None]:
        """The lock itself: the path takes it without interrupting itself."""

    @property
    def asking(self) -> int:
        """How many are about to take it: a path that has just got it stands back for them."""

    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...

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

def full_barrier() -> None:
    """Order every load and store before this call ahead of every load and store after it."""

def faults() -> memoryview:
    """32 bits that count the pages of guarded memory that went away in this process.

    In the machine's byte order, as C reads it. The thread that meets such a page finds it counted
    right after its access: what it has copied may be all ones.
    """

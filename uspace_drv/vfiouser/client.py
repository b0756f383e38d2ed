"""The client's session with a vfio-user server: requests and their replies, and the server's own.

QEMU docs/interop/vfio-user.rst. One request is under way at a time; whoever makes it receives its
reply in its own thread, and answers what the server asks meanwhile. The server is not trusted: a
reply that makes no sense raises `PeerError`, one that does not come `DeviceTimeout`, and a
connection that ends `DeviceGone`.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import TypeVar

from uspace_drv.deadline import Deadline
from uspace_drv.errors import (
    DeviceError,
    DeviceGone,
    DeviceTimeout,
    PeerError,
    UnsupportedError,
    UspaceError,
)
from uspace_drv.native import Channel, Message
from uspace_drv.vfiouser import wire
from uspace_drv.vfiouser.connection import connect
from uspace_drv.vfiouser.numbers import PAGE, Command, Flag
from uspace_drv.vfiouser.refusals import close_all, error_of, refusal
from uspace_drv.vfiouser.version import (
    LARGEST_PAYLOAD,
    OURS,
    Capabilities,
    Version,
    pack_version,
    unpack_version,
)

Body = TypeVar("Body")

TIMEOUT = 5.0
"""Seconds that the server gets to answer a request."""

POSTED_LIMIT = 128
"""Writes that are sent before one of them waits for its reply.

So that they never fill the socket: a server that waits for us to answer would then wait for ever.
"""

POSTED_NUMBER = 0
"""Of every request that gets no reply: it says nothing."""

AT_ONCE = 64
"""Requests of the server that are answered before somebody else gets the turn."""

LEAST_TRANSFER = 8
"""Bytes: the widest register."""

# Plain numbers: an enum's operators cost as much as a system call.
_TYPE_MASK = 0xF
_REPLY = int(Flag.REPLY)
_ERROR = int(Flag.ERROR)
_NO_REPLY = int(Flag.NO_REPLY)


def _refuse(command: int, payload: bytes) -> bytes:
    raise UnsupportedError(f"a request {command} of the server, which nobody expects")


class Session:
    """One connection, negotiated when made. `name` opens every error.

    `spin` is for how many seconds a request keeps the processor busy before it sleeps. `answer`
    answers the server's requests: it gets command and payload, and returns the reply's payload.
    """

    timeout_note = (
        "the device is another process: what went wrong in it, as an access to memory that is not "
        "mapped, is in its output; a register write does not wait for it"
    )

    def __init__(self, name: str, path: str, *, spin: float = 0.0) -> None:
        self.name = name
        self.answer: Callable[[int, bytes], bytes] = _refuse
        self.twin: Channel | None = None
        self._tell_listener: Callable[[], None] | None = None
        self._spin = spin
        self._turn = RLock()  # re-entered by a signal handler, which then gets `BusyError`
        self._number = 0
        self._posted = 0
        self._abandoned: set[int] = set()  # requests whose reply may still come
        self._failure: UspaceError | None = None
        self._channel = connect(name, path, LARGEST_PAYLOAD, OURS.max_msg_fds, TIMEOUT)
        self._exchange = self._channel.exchange  # looked up once, for the sake of each access
        try:
            self.capabilities = self._negotiate()
        except BaseException:
            self.close()
            raise

    def request(self, command: Command, payload: bytes = b"", fds: Sequence[int] = ()) -> bytes:
        """Send a request, return the payload of its reply, which has no descriptors."""
        reply = self.exchange(command, payload, fds)
        if reply.fds:
            close_all(reply.fds)
            raise PeerError(
                f"{self.name}: {len(reply.fds)} descriptors with the reply to {command.name}, "
                "expected none"
            )
        return reply.payload

    def request_body(self, command: Command, body: Body, data: bytes = b"") -> Body:
        """Send a request whose reply is a body of the same kind, and nothing else."""
        payload = self.request(command, wire.pack(body, data))
        with self.judging():
            return wire.unpack(type(body), payload)

    def exchange(self, command: Command, payload: bytes, fds: Sequence[int] = ()) -> Message:
        """Send a request, return its reply; descriptors in it are the caller's to close."""
        with self._turn:
            number = self._number = self._number + 1 & 0xFFFF
            if number in self._abandoned:
                number = self._next_number()
            self._posted = 0
            try:
                reply = self._exchange(number, command, payload, fds, TIMEOUT, self._spin)
                if reply is None or reply.id != number or reply.flags != _REPLY:
                    reply = self._await(number, command, reply)
            except BaseException:
                self._abandoned.add(number)
                raise
            if self._tell_listener is not None and self._channel.pending:
                self._tell_listener()  # no poll of the socket would
        if reply.flags & _ERROR or reply.command != command:
            close_all(reply.fds)
            raise refusal(self.name, command, reply)
        return reply

    def post(self, command: Command, payload: bytes) -> None:
        """Send a request that needs no reply. The server handles it before any later one."""
        with self._turn:
            self._posted += 1
            if self._posted < POSTED_LIMIT:
                self._channel.send(POSTED_NUMBER, command, _NO_REPLY, 0, payload)
            else:
                self.exchange(command, payload)

    def set_listener(self, tell: Callable[[], None] | None) -> None:
        """Call `tell` when requests of the server came along with a reply; None: nobody listens."""
        with self._turn:
            self._tell_listener = tell

    def attend(self) -> bool:
        """Answer some of what the server has asked, without waiting; whether there may be more."""
        with self._turn:
            for _ in range(AT_ONCE):
                message = self._channel.receive(0.0)
                if message is None:
                    return False
                self._take(message)
        return True

    def answer_on(self, channel: Channel, request: Message) -> None:
        """Answer one request of the server."""
        close_all(request.fds)
        try:
            if request.fds:
                raise PeerError("a request of the server with descriptors")
            payload, error = self.answer(request.command, request.payload), 0
        except (DeviceError, UnsupportedError) as failure:
            payload, error = b"", error_of(failure)
        if not request.flags & _NO_REPLY:
            flags = _REPLY | _ERROR if error else _REPLY
            channel.send(request.id, request.command, flags, error, payload)

    def check_alive(self) -> None:
        """Raise `DeviceGone` if the server hung up, or what went wrong in another thread."""
        if self._failure is not None:
            raise self._failure
        if self._channel.closed:
            return  # by us: whoever asks says so in his own words
        hang_up = select.poll()
        hang_up.register(self._channel.fileno(), select.POLLRDHUP)
        if hang_up.poll(0):
            raise DeviceGone(f"{self.name}: the server closed the connection")

    def check_present(self) -> None:
        """Nothing more than `check_alive` can be asked without the server's help."""
        self.check_alive()

    def fail(self, failure: UspaceError) -> None:
        """Note what went wrong where no caller could be told."""
        self._failure = failure

    def fileno(self) -> int:
        """The socket, -1 when closed."""
        return self._channel.fileno()

    def close(self) -> None:
        """End the connection. Twice is fine."""
        if self.twin is not None:
            self.twin.close()
        self._channel.close()

    @contextmanager
    def judging(self) -> Iterator[None]:
        """Say whose message it was that made no sense."""
        try:
            yield
        except PeerError as error:
            raise PeerError(f"{self.name}: {error}") from error

    def _next_number(self) -> int:
        self._number = self._number + 1 & 0xFFFF
        while self._number in self._abandoned:
            self._number = self._number + 1 & 0xFFFF
        return self._number

    def _await(self, number: int, command: Command, message: Message | None) -> Message:
        """Take what comes until it is the reply, however much else comes."""
        deadline = Deadline(TIMEOUT if message else 0.0)
        while message is not None:
            if message.id == number and message.flags & _TYPE_MASK == _REPLY:
                return message
            self._take(message)
            if deadline.passed:
                break
            message = self._channel.receive(deadline.remaining(), self._spin)
        self.check_alive()
        raise DeviceTimeout(f"{self.name}: no reply to {command.name} within {TIMEOUT:.3f} s")

    def _take(self, message: Message) -> None:
        """Handle a message that is not the reply that somebody waits for."""
        if message.flags & _TYPE_MASK != _REPLY:
            self.answer_on(self._channel, message)
            return
        close_all(message.fds)
        if message.id not in self._abandoned:
            raise PeerError(f"{self.name}: a reply to request {message.id}, which was never made")
        self._abandoned.discard(message.id)

    def _negotiate(self) -> Capabilities:
        """Propose our version; the server answers with one that it speaks too."""
        try:
            reply = self.exchange(Command.VERSION, pack_version(Version()))
        except DeviceTimeout as error:
            error.add_note("a server has one client at a time: another one may have it")
            raise
        fds = list(reply.fds)
        try:
            with self.judging():
                version = unpack_version(reply.payload)
                _check_version(version)
                self.twin = self._take_twin(version.capabilities, fds)
        finally:
            close_all(fds)
        return version.capabilities

    def _take_twin(self, capabilities: Capabilities, fds: list[int]) -> Channel | None:
        """Take the socket for the server's requests out of `fds`, if there is one."""
        twin = capabilities.twin_socket
        if not twin.supported:
            return None
        if twin.fd_index is None or twin.fd_index >= len(fds):
            raise PeerError(
                f"VERSION: twin_socket is descriptor {twin.fd_index}, and {len(fds)} came"
            )
        channel = Channel(f"{self.name} (twin socket)", fds[twin.fd_index], LARGEST_PAYLOAD, 0)
        del fds[twin.fd_index]
        return channel


def _check_version(version: Version) -> None:
    ours = Version()
    if version.major != ours.major or version.minor > ours.minor:
        raise PeerError(
            f"VERSION: the server answers {version.major}.{version.minor}, "
            f"expected {ours.major}.0 to {ours.major}.{ours.minor}"
        )
    transfer = version.capabilities.max_data_xfer_size
    if transfer < LEAST_TRANSFER:
        raise PeerError(
            f"VERSION: max_data_xfer_size is {transfer}, expected {LEAST_TRANSFER} or more"
        )
    sizes = version.capabilities.pgsizes
    if not sizes & PAGE:
        raise PeerError(f"VERSION: pgsizes is {sizes:#x}, expected {PAGE:#x} to be among them")

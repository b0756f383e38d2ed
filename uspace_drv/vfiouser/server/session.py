"""One client of a served model: it is greeted, its commands are answered, and it leaves.

QEMU docs/interop/vfio-user.rst. Commands are handled one after the other, in their order. What does
not fit the device is refused and the session goes on; what breaks the protocol is told once, and
the connection ends.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from dataclasses import replace

from uspace_drv.deadline import Deadline
from uspace_drv.errors import (
    BusyError,
    ClosedError,
    DeviceError,
    DeviceGone,
    HostError,
    PeerError,
    UnsupportedError,
    UspaceError,
)
from uspace_drv.models import DeviceModel
from uspace_drv.native import Channel, Message
from uspace_drv.teardown import Teardown
from uspace_drv.vfio_numbers import IRQ_COUNT, REGION_COUNT, DeviceFlag
from uspace_drv.vfiouser.numbers import Command, Flag
from uspace_drv.vfiouser.refusals import close_all
from uspace_drv.vfiouser.server.conversation import PATIENCE, Conversation
from uspace_drv.vfiouser.server.doorbells import Doorbells
from uspace_drv.vfiouser.server.features import Features
from uspace_drv.vfiouser.server.guest_memory import GuestMemory
from uspace_drv.vfiouser.server.irqs import ClientIrqs
from uspace_drv.vfiouser.server.migration import Migration
from uspace_drv.vfiouser.server.refusal import Refusal
from uspace_drv.vfiouser.server.regions import RegionsOf, Reply
from uspace_drv.vfiouser.version import (
    LARGEST_PAYLOAD,
    OURS,
    TwinSocket,
    Version,
    answer,
    pack_version,
    unpack_version,
)
from uspace_drv.vfiouser.wire import DeviceInfo, pack, size_of, unpack

MOST_COMPLAINTS = 20
"""Refusals of one client that are reported: a flood of them must not fill a disk."""

NO_REPLY, REPLY, FAILED = int(Flag.NO_REPLY), int(Flag.REPLY), int(Flag.REPLY | Flag.ERROR)

ERRNOS: dict[type[UspaceError], int] = {
    PeerError: errno.EINVAL,
    BusyError: errno.EBUSY,
    UnsupportedError: errno.ENOTSUP,
}
"""What the client hears of an error; of all others, EIO."""

Complain = Callable[[UspaceError], None]


class Session:
    """The conversation with one client over `connection`, which it takes over.

    `spin` is for how many seconds it looks for the next command before it sleeps. `complain` is
    told what the client did wrong, and what went wrong in the model on its behalf.
    """

    def __init__(
        self, model: DeviceModel, connection: socket.socket, complain: Complain, spin: float
    ) -> None:
        self._model = model
        self._complain = complain
        self._complaints = 0
        self._way_out = Teardown()
        self._channel = Channel(
            f"{model.name} client",
            connection.fileno(),
            LARGEST_PAYLOAD,
            OURS.max_msg_fds,
            send_timeout=PATIENCE,
        )
        connection.detach()
        self._conversation = Conversation(self._channel, spin)
        self._way_out.push("end the conversation", self._conversation.close)
        self._handlers: dict[int, Callable[[bytes], bytes | Reply]] = {}
        self._takers: dict[int, Callable[[bytes, list[int]], bytes]] = {}
        self._doorbells: Doorbells | None = None

    def serve(self) -> None:
        """Answer the client until it leaves, breaks the protocol, or `end` is called."""
        try:
            self._greet()
            while True:
                message = self._conversation.next_command()
                if self._doorbells is not None:
                    self._ring(self._doorbells)
                if message is not None:
                    self._answer(message)
        except (DeviceGone, ClosedError):
            pass  # it left, or we were told to
        except (PeerError, HostError) as error:
            self._complain(error)
        finally:
            self._way_out.run()

    def end(self) -> None:
        """Make `serve` return, from another thread."""
        self._channel.close()

    def _answer(self, message: Message) -> None:
        number, command, flags, _, payload, descriptors = message
        try:
            handler = self._handlers.get(command)
            if handler is None or descriptors:
                reply: bytes | Reply = self._take(command, payload, descriptors)
            else:
                reply = handler(payload)
        except UspaceError as error:
            self._refuse(message, error)
            return
        except Exception as error:  # noqa: BLE001 - a model is foreign code, and the server lives on
            self._refuse(message, _failure_of(self._model, error))
            return
        if flags & NO_REPLY:
            return
        if isinstance(reply, bytes):
            self._channel.send(number, command, REPLY, 0, reply)
        else:
            self._channel.send(number, command, REPLY, 0, reply.payload, reply.descriptors)

    def _take(self, command: int, payload: bytes, descriptors: tuple[int, ...]) -> bytes:
        """Handle a command that comes with descriptors; what nobody keeps is closed."""
        left = [*descriptors]
        try:
            taker = self._takers.get(command)
            if taker is not None:
                return taker(payload, left)
            if left:
                raise PeerError(
                    f"{self._channel.name}: {len(left)} descriptors with command {command}, "
                    "expected none"
                )
            raise Refusal(errno.ENOSYS, f"{self._channel.name}: there is no command {command}")
        finally:
            close_all(left)

    def _refuse(self, message: Message, error: UspaceError) -> None:
        """Say no; a peer that broke the protocol, or that is gone, hears nothing more."""
        if not isinstance(error, PeerError):  # else it ends the session, which reports it
            self._report(error)
        if not message.flags & NO_REPLY:
            self._channel.send(message.id, message.command, FAILED, _errno_of(error), b"")
        if isinstance(error, PeerError):
            raise error

    def _greet(self) -> None:
        """VERSION: agree on what both can do, then be ready for everything else."""
        deadline = Deadline(PATIENCE)
        while (message := self._conversation.next_command()) is None:
            if deadline.passed:
                raise PeerError(f"{self._channel.name}: sent no VERSION within {PATIENCE} s")
        close_all(message.fds)
        try:
            theirs = _greeting(message)
            ours = answer(theirs)
        except PeerError as error:
            self._refuse(message, error)
        else:
            self._agree(message, theirs, ours)

    def _agree(self, message: Message, theirs: Version, ours: Version) -> None:
        requests = self._conversation
        if ours.capabilities.twin_socket.supported and theirs.capabilities.max_msg_fds:
            near, far = _socket_pair()
            with far:
                requests = self._open_twin(near)
                twin = replace(ours.capabilities, twin_socket=TwinSocket(True, 0))
                self._send_version(message, replace(ours, capabilities=twin), (far.fileno(),))
            self._conversation.is_one_way = True
        else:
            self._send_version(message, ours, ())
        self._take_up(theirs, requests)

    def _send_version(self, message: Message, ours: Version, fds: tuple[int, ...]) -> None:
        self._channel.send(message.id, message.command, REPLY, 0, pack_version(ours), fds)

    def _open_twin(self, near: socket.socket) -> Conversation:
        channel = Channel(
            f"{self._channel.name} (twin socket)",
            near.fileno(),
            LARGEST_PAYLOAD,
            0,
            send_timeout=PATIENCE,
        )
        near.detach()
        twin = Conversation(channel, takes_commands=False)
        self._way_out.push("end the twin socket", twin.close)
        return twin

    def _take_up(self, theirs: Version, requests: Conversation) -> None:
        """Make everything that this client may use, and what gives it back."""
        offered = theirs.capabilities
        memory = GuestMemory(
            self._model,
            requests.request,
            most_maps=OURS.max_dma_maps,
            largest_transfer=min(offered.max_data_xfer_size, OURS.max_data_xfer_size),
            is_qemu=theirs.is_qemu,
        )
        irqs = ClientIrqs(self._model)
        regions = RegionsOf(self._model, OURS.max_data_xfer_size, can_share=offered.max_msg_fds > 0)
        migration = Migration(self._model, OURS.max_data_xfer_size)
        features = Features(migration, self._model.memory)
        self._migration = migration
        doorbells = Doorbells(self._model, offered.max_msg_fds, self._hear)
        for what, step in (
            ("report what failed in the background", self._disown),
            ("close the doorbells", doorbells.close),
            ("unmap the client's memory", memory.close),
            ("end the log of dirty pages", features.close),
            ("switch the client's interrupts off", irqs.close),
            ("let the model run", migration.reset),
        ):
            self._way_out.push(what, step)
        self._takers = {Command.DMA_MAP: memory.map, Command.DEVICE_SET_IRQS: irqs.set}
        self._handlers = {
            Command.REGION_READ: regions.read,
            Command.REGION_WRITE: regions.write,
            Command.REGION_WRITE_MULTI: regions.write_many,
            Command.DMA_UNMAP: memory.unmap,
            Command.DEVICE_GET_INFO: self._info,
            Command.DEVICE_GET_REGION_INFO: regions.info,
            Command.DEVICE_GET_REGION_IO_FDS: doorbells.describe,
            Command.DEVICE_GET_IRQ_INFO: irqs.info,
            Command.DEVICE_RESET: self._reset,
            Command.DEVICE_FEATURE: features.handle,
            Command.MIG_DATA_READ: migration.read,
            Command.MIG_DATA_WRITE: migration.write,
        }

    def _hear(self, doorbells: Doorbells) -> None:
        """From now on wake up for doorbells too."""
        self._doorbells = doorbells
        self._channel.set_wake(doorbells.fileno())

    def _ring(self, doorbells: Doorbells) -> None:
        try:
            doorbells.ring()
        except UspaceError as error:
            self._report(error)
        except Exception as error:  # noqa: BLE001 - as above
            self._report(_failure_of(self._model, error))

    def _disown(self) -> None:
        """What fails in the background is this client's, and not the next one's."""
        self._model.disown(self._report)

    def _report(self, error: UspaceError) -> None:
        self._complaints += 1
        if self._complaints <= MOST_COMPLAINTS:
            self._complain(error)

    def _info(self, payload: bytes) -> bytes:
        unpack(DeviceInfo, payload)
        flags = DeviceFlag.RESET | DeviceFlag.PCI
        return pack(DeviceInfo(size_of(DeviceInfo), flags, REGION_COUNT, IRQ_COUNT))

    def _reset(self, payload: bytes) -> bytes:
        if payload:
            raise PeerError(f"DEVICE_RESET: {len(payload)} bytes, expected none")
        self._migration.reset()
        self._model.reset()
        return b""


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    try:
        return socket.socketpair()
    except OSError as error:
        raise HostError(f"cannot make a twin socket: {error}", cause=error) from error


def _failure_of(model: DeviceModel, error: Exception) -> DeviceError:
    failure = DeviceError(f"{model.name}: the model failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


def _greeting(message: Message) -> Version:
    if message.command != Command.VERSION or message.fds or message.flags & NO_REPLY:
        raise PeerError(
            f"command {message.command} with {len(message.fds)} descriptors, "
            "expected VERSION, which wants a reply"
        )
    return unpack_version(message.payload)


def _errno_of(error: UspaceError) -> int:
    if isinstance(error, Refusal):
        return error.number
    return next((number for kind, number in ERRNOS.items() if isinstance(error, kind)), errno.EIO)

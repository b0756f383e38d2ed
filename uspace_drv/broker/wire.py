"""The one message of the broker, as a packet of JSON with descriptors beside it (unix(7)).

A client says nothing: the kernel says who it is (SO_PEERCRED). The server answers with an offer or
a refusal. A packet arrives whole or not at all, so there is nothing to assemble.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from uspace_drv.backends.vfio.opening import Handover
from uspace_drv.errors import BusyError, HostError, PeerError, UspaceError
from uspace_drv.pci.address import PciAddress

VERSION = 1
MOST_BYTES = 16384
MOST_FDS = 16
_CREDENTIALS = struct.Struct("iII")  # pid, uid, gid
_REFUSALS: dict[str, type[UspaceError]] = {"busy": BusyError, "host": HostError}


class Peer(NamedTuple):
    """Who is at the other end, as the kernel saw it when it connected."""

    process: int
    user: int


@dataclass(frozen=True)
class Offer:
    """A device and what it takes to go on with it."""

    address: str
    handover: Handover


def peer_of(connection: socket.socket) -> Peer:
    """Ask the kernel; the process is 0 where it is in another container."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    process, user, _group = _CREDENTIALS.unpack(found)
    return Peer(process, user)


def send_offer(connection: socket.socket, offer: Offer) -> None:
    """Pass the descriptors; copies of them stay here."""
    handover = offer.handover
    words = {"address": offer.address, "kind": handover.kind, "data": dict(handover.data)}
    _send(connection, words, handover.fds)


def send_refusal(connection: socket.socket, error: Exception) -> None:
    """Say why not, in the words of the error."""
    kind = "busy" if isinstance(error, BusyError) else "host"
    _send(connection, {"refused": kind, "why": str(error)[: MOST_BYTES // 8]}, ())


def receive_offer(connection: socket.socket) -> Offer:
    """Return the offer, whose descriptors are the caller's; a refusal is raised.

    `PeerError` for anything that is no answer of a broker; its descriptors are closed.
    """
    # socket.recv_fds() forgets its flags, and the descriptors would outlive an exec.
    space = socket.CMSG_SPACE(MOST_FDS * array("i").itemsize)
    packet, ancillary, flags, _ = connection.recvmsg(MOST_BYTES, space, socket.MSG_CMSG_CLOEXEC)
    fds = array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    try:
        cut = bool(flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC))
        return _parse(packet, tuple(fds), cut=cut)
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise


def _send(connection: socket.socket, words: dict[str, Any], fds: Sequence[int]) -> None:
    packet = json.dumps({"version": VERSION, **words}).encode()
    socket.send_fds(connection, [packet], list(fds), socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)


def _parse(packet: bytes, fds: tuple[int, ...], *, cut: bool) -> Offer:
    if cut:
        raise PeerError("the broker's answer is longer than an answer may be")
    if not packet:
        raise PeerError("the broker hung up without an answer")
    try:
        words = json.loads(packet)
    except (ValueError, RecursionError) as error:
        raise PeerError(f"the broker answered {packet[:40]!r}, which is no JSON") from error
    match words:
        case {"version": int(version)} if version != VERSION:
            raise PeerError(f"the broker speaks version {version}; expected {VERSION}")
        case {"version": int(), "refused": str(kind), "why": str(why)}:
            raise _REFUSALS.get(kind, HostError)(why)
        case {"version": int(), "address": str(address), "kind": str(kind), "data": dict(data)}:
            return Offer(str(PciAddress.parse(address)), Handover(kind, fds, data))
        case _:
            raise PeerError(f"the broker answered {str(words)[:80]}; expected an offer")

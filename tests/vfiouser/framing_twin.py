"""Framing once more, slow and obvious: what a channel must make of a stream and its descriptors.

A script is a list of sends; each is a byte that tells how many descriptors (modulo 6), a byte
that tells how many bytes, and these bytes.
"""

from __future__ import annotations

import socket
import struct

from tests.vfiouser.bare_peer import FDS, LIMIT, Pair, close_all
from uspace_drv.errors import PeerError

Send = tuple[bytes, int]


def read_script(script: bytes) -> list[Send]:
    """Take the sends out of a script; what is cut off at its end counts as far as it goes."""
    sends, at = [], 0
    while at + 2 < len(script):
        count, size = script[at] % 6, script[at + 1]
        data = script[at + 2 : at + 2 + size]
        at += 2 + size
        if data:
            sends.append((data, count))
    return sends


def expected(sends: list[Send]) -> tuple[list[tuple[bytes, int]], bool]:
    """Return payloads with their number of descriptors, and whether the peer then broke a rule."""
    stream = b"".join(data for data, _ in sends)
    ends = [sum(len(data) for data, _ in sends[: n + 1]) - 1 for n in range(len(sends))]
    marks = [(end, count) for end, (_, count) in zip(ends, sends, strict=True)]
    messages: list[tuple[bytes, int]] = []
    at = 0
    while True:
        rest = stream[at:]
        size = len(rest) + 1
        if len(rest) >= 16:
            size, flags = struct.unpack_from("<II", rest, 4)
            if not 16 <= size <= 16 + LIMIT or flags & 0xF > 1:
                return messages, True
        with_it = sum(count for place, count in marks if at <= place < at + size)
        if with_it > FDS or len(rest) < size:
            return messages, with_it > FDS
        messages.append((rest[16:size], with_it))
        at += size


def observed(sends: list[Send], *, drain: bool) -> tuple[list[tuple[bytes, int]], bool]:
    """Do the sends to a channel; `drain` receives after each of them, too."""
    messages: list[tuple[bytes, int]] = []
    with Pair() as pair:
        try:
            for data, count in sends:
                socket.send_fds(pair.peer, [data], [pair.peer.fileno()] * count)
                if drain:
                    _receive(pair, messages)
            _receive(pair, messages)
        except PeerError:
            return messages, True
    return messages, False


def _receive(pair: Pair, messages: list[tuple[bytes, int]]) -> None:
    while (one := pair.channel.receive(0.0)) is not None:
        messages.append((one.payload, len(one.fds)))
        close_all(one.fds)


def check(script: bytes) -> None:
    """Channel and twin agree, whether the channel reads all at once or after each send."""
    sends = read_script(script)
    wanted = expected(sends)
    assert observed(sends, drain=False) == wanted
    assert observed(sends, drain=True) == wanted

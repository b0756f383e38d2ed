"""The other end of a `Channel` in suite socket: the smallest server that there can be.

Run as a program: PROCESSOR DESCRIPTOR SPIN. Answers what wants an answer, drops the rest, and ends
with its client.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from uspace_drv.errors import DeviceGone
from uspace_drv.native import Channel
from uspace_drv.vfiouser.numbers import Flag

MOST_BYTES = 4096
SLEEP = 3600.0
"""Seconds of one sleep; the client's end wakes it."""


def main(words: list[str]) -> None:
    """Answer until the client closes the connection."""
    os.sched_setaffinity(0, {int(words[0])})
    channel = Channel("echo", int(words[1]), MOST_BYTES, 0)
    with suppress(DeviceGone):
        serve(channel, float(words[2]))
    channel.close()


def serve(channel: Channel, spin: float) -> None:
    """Answer with the same."""
    while (message := channel.receive(SLEEP, spin)) is not None:
        if not message.flags & Flag.NO_REPLY:
            channel.send(message.id, message.command, Flag.REPLY, 0, message.payload)


if __name__ == "__main__":
    main(sys.argv[1:])

"""The other process of suite irq: told to, it waits a moment, notes the time and raises.

Linux eventfd(2) and proc(5). Run as a program with nothing but the standard library, so that it
starts at once: PROCESSOR DELAY PAGE ORDERS TARGET [BASE OFFSET]. DELAY is in nanoseconds, PAGE,
ORDERS and TARGET are descriptors: memory for the time, a socket, and an eventfd or a file with the
device's registers, of which those from BASE on are mapped and the one at OFFSET is set to 1.
"""

from __future__ import annotations

import mmap
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SLEEPS_FROM = 200_000
"""Nanoseconds; a sleep is late by up to a quarter of that, so that less is spent awake."""

READY = b"r"


def main(words: list[str]) -> None:
    """Serve one bell until the other end of the socket closes."""
    processor, delay, page, orders_fd, target, *place = map(int, words)
    os.sched_setaffinity(0, {processor})
    with socket.socket(fileno=orders_fd) as orders, numbers(page, "q") as stamp:
        if not place:
            serve(orders, stamp, delay, lambda: os.eventfd_write(target, 1))
            return
        base, offset = place
        with numbers(target, "I", base) as registers:
            # One store of four bytes: an element of a memoryview is written at once.
            serve(orders, stamp, delay, lambda: registers.__setitem__(offset // 4, 1))


@contextmanager
def numbers(fd: int, code: str, base: int = 0) -> Iterator[memoryview[int]]:
    """Map a page of a file as an array of such numbers."""
    with (
        mmap.mmap(fd, mmap.PAGESIZE, offset=base) as page,
        memoryview(page) as octets,
        octets.cast(code) as array,  # type: ignore[call-overload]
    ):
        yield array


def serve(
    orders: socket.socket, stamp: memoryview[int], delay: int, ring: Callable[[], None]
) -> None:
    """Raise once for each byte that comes."""
    orders.sendall(READY)
    while orders.recv(1):
        pause(delay)
        stamp[0] = time.monotonic_ns()
        ring()


def pause(delay: int) -> None:
    """Let so many nanoseconds pass."""
    if delay >= SLEEPS_FROM:
        time.sleep(delay / 1e9)
        return
    end = time.monotonic_ns() + delay
    while time.monotonic_ns() < end:
        pass


if __name__ == "__main__":
    main(sys.argv[1:])

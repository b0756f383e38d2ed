"""The thread that listens to the host through VFIO: how it ends."""

from __future__ import annotations

import threading

import pytest

from tests.unit.specimens import WAIT
from uspace_drv.backends.vfio.notices import Notices
from uspace_drv.eventfd import EventFd
from uspace_drv.port import Notice

pytestmark = pytest.mark.usefixtures("nothing_left")


class Armed(Notices):
    """Notices that the test signals in place of the kernel."""

    def __init__(self) -> None:
        self._name = "bell"
        self.available = [Notice.REQUEST]
        self.events: list[EventFd] = []

    def arm(self, notice: Notice, event: EventFd | None) -> None:
        if event is not None:
            self.events.append(event)


def test_it_ends_though_others_have_the_numbers_of_its_descriptors() -> None:
    """Who is told may stop listening, and open other things before the thread looks again."""
    notices = Armed()
    later: list[EventFd] = []

    def tell(_: Notice) -> None:
        stop()
        later.extend(EventFd() for _ in range(8))

    stop = notices.watch(tell)
    (thread,) = (each for each in threading.enumerate() if each.name == "bell notices")
    notices.events[0].signal()
    thread.join(WAIT)
    hangs = thread.is_alive()
    for event in later:
        event.signal()
    thread.join(WAIT)
    for event in later:
        event.close()
    assert not hangs

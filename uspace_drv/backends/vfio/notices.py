"""What the host says about a VFIO device: its error and its request interrupt, heard by a thread.

Linux include/uapi/linux/vfio.h, VFIO_PCI_ERR_IRQ_INDEX and VFIO_PCI_REQ_IRQ_INDEX. The kernel
signals an error when AER reports one that cannot be corrected, and a request (again every ten
seconds) while somebody unbinds or unplugs the device and waits for us to close it.
"""

from __future__ import annotations

import ctypes
import errno
import select
import struct
import threading
from collections.abc import Callable, Mapping

from uspace_drv.backends.vfio import uapi
from uspace_drv.backends.vfio.call import call
from uspace_drv.errors import DeviceGone, DeviceTimeout, HostError
from uspace_drv.eventfd import EventFd
from uspace_drv.port import Notice
from uspace_drv.teardown import Teardown
from uspace_drv.vfio_numbers import IrqAction, IrqFlag, IrqIndex

INDEX = {Notice.ERROR: IrqIndex.ERR, Notice.REQUEST: IrqIndex.REQ}
STOP_TIMEOUT = 5.0
"""Seconds that what was called gets to return when nobody listens any more."""

_ON = IrqAction.DATA_EVENTFD | IrqAction.TRIGGER
_FIRE = IrqAction.DATA_NONE | IrqAction.TRIGGER


class Notices:
    """The notices of one open device, which has `index_count` kinds of interrupts."""

    def __init__(self, fd: int, name: str, index_count: int) -> None:
        self._fd = fd
        self._name = name
        self.available = [
            notice for notice, index in INDEX.items() if index < index_count and self._has(index)
        ]
        """Those that this kernel gives for this device: ERROR is for PCI Express."""

    def watch(self, tell: Callable[[Notice], None]) -> Callable[[], None]:
        """Call `tell` in a thread of its own for each notice, one after the other.

        Returns what ends it; that may be called by `tell`, and twice.
        """
        if not self.available:
            return _nothing
        return _Watch(self, self._name, tell).stop

    def trigger(self, notice: Notice) -> None:
        """Let the kernel signal it as if it were so: for tests, while somebody watches."""
        self._set(INDEX[notice], _FIRE, 1)

    def arm(self, notice: Notice, event: EventFd | None) -> None:
        """Let the kernel signal an eventfd, or nobody."""
        self._set(INDEX[notice], _ON, 1, struct.pack("=i", event.fileno() if event else -1))

    def _has(self, index: IrqIndex) -> bool:
        info = uapi.IrqInfo(argsz=ctypes.sizeof(uapi.IrqInfo), index=index)
        try:
            call(self._name, self._fd, uapi.Request.DEVICE_GET_IRQ_INFO, info)
        except HostError as error:
            if error.errno != errno.EINVAL:
                raise
            return False
        return bool(info.count and info.flags & IrqFlag.EVENTFD)

    def _set(self, index: IrqIndex, flags: IrqAction, count: int, data: bytes = b"") -> None:
        size = ctypes.sizeof(uapi.IrqSetHeader) + len(data)
        header = uapi.IrqSetHeader(size, flags, index, 0, count)
        call(self._name, self._fd, uapi.Request.DEVICE_SET_IRQS, bytes(header) + data)


class _Watch:
    """A thread that waits for the eventfds of all notices, from its making to `stop()`."""

    def __init__(self, notices: Notices, name: str, tell: Callable[[Notice], None]) -> None:
        self._notices = notices
        self._name = name
        self._tell = tell
        self._is_telling = threading.Lock()
        self._way_out = Teardown()
        self._wake = EventFd()
        self._way_out.push("close the wake-up descriptor", self._wake.close)
        self._stopping = threading.Event()
        try:
            events = {notice: self._arm(notice) for notice in notices.available}
            self._thread = threading.Thread(
                target=self._run, args=[events], name=f"{name} notices", daemon=True
            )
            self._thread.start()
        except BaseException as error:
            self._way_out.run(error)
            raise
        self._way_out.push("end the thread that listens to the host", self._join)

    def stop(self) -> None:
        """Listen no more. Twice is fine."""
        self._way_out.run()

    def _arm(self, notice: Notice) -> EventFd:
        event = EventFd()
        self._way_out.push("close a notice's descriptor", event.close)
        self._notices.arm(notice, event)
        self._way_out.push(f"switch off the notice of {notice.value}", lambda: self._disarm(notice))
        return event

    def _disarm(self, notice: Notice) -> None:
        try:
            self._notices.arm(notice, None)
        except DeviceGone:
            return  # a device that is gone tells nothing more

    def _join(self) -> None:
        """Wait for the thread, unless it is the one that waits for us: it then ends by itself."""
        self._stopping.set()
        self._wake.signal()
        if self._is_telling.acquire(blocking=False):
            self._is_telling.release()
            self._thread.join(STOP_TIMEOUT)
            if self._thread.is_alive():
                raise DeviceTimeout(f"{self._name}: the thread that listens to the host goes on")

    def _run(self, events: Mapping[Notice, EventFd]) -> None:
        heard = select.poll()
        heard.register(self._wake, select.POLLIN)
        for event in events.values():
            heard.register(event, select.POLLIN)
        while not self._stopping.is_set():  # who stopped us has closed what is polled
            heard.poll()
            for notice, event in events.items():
                if self._stopping.is_set():
                    return
                if event.take():
                    self._tell_unless_stopped(notice)

    def _tell_unless_stopped(self, notice: Notice) -> None:
        with self._is_telling:
            if not self._stopping.is_set():
                self._tell(notice)


def _nothing() -> None:
    """End a watch that there is none of."""

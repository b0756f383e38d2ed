"""Interrupts from another process: eventfds that its server signals (VFIO_USER_DEVICE_SET_IRQS).

QEMU docs/interop/vfio-user.rst. They behave as through VFIO: one kind at a time, INTx is masked
when it fires.
"""

from __future__ import annotations

import select
from collections.abc import Mapping
from contextlib import suppress

from uspace_drv.errors import BusyError, DeviceGone, PeerError, UnsupportedError
from uspace_drv.eventfd import SharedEventFd
from uspace_drv.port import IrqKind
from uspace_drv.vfio_numbers import IrqAction, IrqFlag, IrqIndex
from uspace_drv.vfiouser import wire
from uspace_drv.vfiouser.client import Session
from uspace_drv.vfiouser.numbers import Command

INDEX = {
    IrqKind.INTX: IrqIndex.INTX,
    IrqKind.MSI: IrqIndex.MSI,
    IrqKind.MSIX: IrqIndex.MSIX,
}
MOST = {IrqKind.INTX: 1, IrqKind.MSI: 32, IrqKind.MSIX: 2048}
"""What PCI allows (PCIe 6.0, sections 7.5.1.1.13, 7.7.1.2, 7.7.2.2)."""


class VfioUserIrqs:
    """All interrupts of one device. `index_count` is how many kinds the server says it has."""

    def __init__(self, session: Session, index_count: int) -> None:
        self._session = session
        self._lines: dict[int, VfioUserIrqLine] = {}
        self._flags: dict[IrqKind, int] = {}
        self.counts: Mapping[IrqKind, int] = self._ask(index_count)

    def line(self, kind: IrqKind, index: int) -> VfioUserIrqLine:
        """Switch on one more."""
        name = self._session.name
        on = next((line.kind for line in self._lines.values()), kind)
        if on is not kind or index in self._lines:
            raise BusyError(f"{name}: {on.value} {index} is on already; close it first")
        if not self._session.capabilities.max_msg_fds:
            raise UnsupportedError(f"{name}: the server takes no descriptors; poll the device")
        line = VfioUserIrqLine(self, self._session, kind, index)
        try:
            self._switch_on(line)
        except BaseException:
            line.free()
            raise
        self._lines[index] = line
        return line

    def is_maskable(self, kind: IrqKind) -> bool:
        """Whether the server can hold this kind back."""
        return bool(self._flags[kind] & IrqFlag.MASKABLE)

    def act(self, kind: IrqKind, index: int, action: IrqAction) -> None:
        """MASK, UNMASK or TRIGGER one interrupt."""
        self._set(kind, IrqAction.DATA_NONE | action, index, 1)

    def switch_off(self, kind: IrqKind, index: int) -> None:
        """Let this one signal nobody; the last one switches the kind off in the device."""
        del self._lines[index]
        # A server that is gone signals nobody any more.
        with suppress(DeviceGone):
            if self._lines:
                self._set(kind, IrqAction.DATA_EVENTFD | IrqAction.TRIGGER, index, 1)
            else:
                self._set(kind, IrqAction.DATA_NONE | IrqAction.TRIGGER, 0, 0)

    def _switch_on(self, line: VfioUserIrqLine) -> None:
        signal = IrqAction.DATA_EVENTFD | IrqAction.TRIGGER
        wanted = {line.index: line.event}
        if self._flags[line.kind] & IrqFlag.NORESIZE and self._lines:
            # A fixed set cannot grow while it is on; the eventfds keep their counts.
            self._set(line.kind, IrqAction.DATA_NONE | IrqAction.TRIGGER, 0, 0)
            wanted |= {index: other.event for index, other in self._lines.items()}
        for index, event in sorted(wanted.items(), reverse=True):
            self._set(line.kind, signal, index, 1, (event.fileno(),))

    def _set(
        self, kind: IrqKind, flags: IrqAction, start: int, count: int, fds: tuple[int, ...] = ()
    ) -> None:
        body = wire.IrqSet(wire.size_of(wire.IrqSet), flags, INDEX[kind], start, count)
        self._session.request(Command.DEVICE_SET_IRQS, wire.pack(body), fds)

    def _ask(self, index_count: int) -> Mapping[IrqKind, int]:
        counts = {}
        for kind, index in INDEX.items():
            if index >= index_count:
                continue
            asked = wire.IrqInfo(wire.size_of(wire.IrqInfo), 0, index, 0)
            info = self._session.request_body(Command.DEVICE_GET_IRQ_INFO, asked)
            if info.index != index or info.count > MOST[kind]:
                raise PeerError(
                    f"{self._session.name}: asked for interrupt index {int(index)}, the reply is "
                    f"{info.count} of index {info.index}; expected at most {MOST[kind]}"
                )
            self._flags[kind] = info.flags
            if info.count and info.flags & IrqFlag.EVENTFD:
                counts[kind] = info.count
        return counts


class VfioUserIrqLine:
    """Fills the port's `IrqLine`: readable when it fires, and when the server hangs up."""

    def __init__(self, irqs: VfioUserIrqs, session: Session, kind: IrqKind, index: int) -> None:
        self.kind = kind
        self.index = index
        self.event = SharedEventFd()  # the server holds it too
        self._irqs = irqs
        self._session = session
        self.link = session
        self._either = select.epoll()
        self._either.register(self.event, select.EPOLLIN)
        self._either.register(session, select.EPOLLRDHUP)
        self.fileno = self._either.fileno

    def take(self) -> int:
        """Interrupts since the last call; `DeviceGone` after the last one of a dead server."""
        fired = self.event.take()
        if not fired:
            self._session.check_alive()
        return fired

    def mask(self) -> None:
        """Hold it back, where the server can."""
        if not self._irqs.is_maskable(self.kind):
            raise UnsupportedError(f"{self._session.name}: {self.kind.value} cannot be masked")
        self._irqs.act(self.kind, self.index, IrqAction.MASK)

    def unmask(self) -> None:
        """Let it fire."""
        if self._irqs.is_maskable(self.kind):
            self._irqs.act(self.kind, self.index, IrqAction.UNMASK)

    def trigger(self) -> None:
        """Let the server signal it as if the device had."""
        self._irqs.act(self.kind, self.index, IrqAction.TRIGGER)

    def close(self) -> None:
        """Switch it off in the device, then close the descriptors. Twice is fine."""
        if self.event.fileno() >= 0:
            try:
                self._irqs.switch_off(self.kind, self.index)
            finally:
                self.free()

    def free(self) -> None:
        """Close the descriptors."""
        self._either.close()
        self.event.close()

"""Interrupts through VFIO: eventfds that the kernel signals.

Linux include/uapi/linux/vfio.h, "VFIO_DEVICE_SET_IRQS".
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Mapping, Sequence
from functools import partial

from uspace_drv.backends.vfio import uapi
from uspace_drv.backends.vfio.call import call
from uspace_drv.errors import BusyError, HostError, UnsupportedError
from uspace_drv.eventfd import EventFd
from uspace_drv.port import IrqKind
from uspace_drv.vfio_numbers import IrqAction, IrqFlag, IrqIndex

INDEX = {
    IrqKind.INTX: IrqIndex.INTX,
    IrqKind.MSI: IrqIndex.MSI,
    IrqKind.MSIX: IrqIndex.MSIX,
}
OFF = -1
"""In place of an eventfd: this vector signals nobody."""


class VfioIrqs:
    """All interrupts of one open device; one kind is on at a time."""

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self._name = name
        self._lines: dict[int, VfioIrqLine] = {}
        self._allocated = 0  # vectors of the kind that is on
        self._infos = {kind: self._info(index) for kind, index in INDEX.items()}

    @property
    def counts(self) -> Mapping[IrqKind, int]:
        """How many of each kind, those that can signal an eventfd."""
        return {
            kind: info.count
            for kind, info in self._infos.items()
            if info.count and info.flags & IrqFlag.EVENTFD
        }

    def line(self, kind: IrqKind, index: int) -> VfioIrqLine:
        """Switch on one more."""
        on = next((line.kind for line in self._lines.values()), kind)
        if on is not kind or index in self._lines:
            raise BusyError(f"{self._name}: {on.value} {index} is on already; close it first")
        event = EventFd()
        try:
            self._switch_on(kind, index, event.fileno())
        except BaseException:
            event.close()
            raise
        line = VfioIrqLine(self, kind, index, event)
        self._lines[index] = line
        return line

    def is_maskable(self, kind: IrqKind) -> bool:
        """Whether the kernel can hold this kind back."""
        return bool(self._infos[kind].flags & IrqFlag.MASKABLE)

    def mask(self, kind: IrqKind, index: int, action: IrqAction) -> None:
        """MASK or UNMASK one interrupt."""
        self._set(INDEX[kind], IrqAction.DATA_NONE | action, index, 1)

    def unmask_by(self, kind: IrqKind, index: int, fd: int) -> None:
        """Let the kernel unmask one interrupt whenever that eventfd is signalled."""
        flags = IrqAction.DATA_EVENTFD | IrqAction.UNMASK
        self._set(INDEX[kind], flags, index, 1, struct.pack("=i", fd))

    def trigger(self, kind: IrqKind, indexes: Sequence[int]) -> None:
        """Let the kernel signal these, in one call, as if the device had."""
        start = min(indexes)
        wanted = bytes(number in indexes for number in range(start, max(indexes) + 1))
        flags = IrqAction.DATA_BOOL | IrqAction.TRIGGER
        self._set(INDEX[kind], flags, start, len(wanted), wanted)

    def restore(self) -> None:
        """Switch on again what a reset of the function has switched off behind the kernel's back.

        What counts the eventfds hold is kept; a level that was masked is unmasked.
        """
        kind = next((line.kind for line in self._lines.values()), None)
        if kind is None:
            return
        fds = self._fds(self._allocated)
        self._switch_off_all(kind)
        self._signal(kind, 0, fds)
        for line in self._lines.values():
            line.restore_unmasking()

    def switch_off(self, kind: IrqKind, index: int) -> None:
        """Let this one signal nobody; the last one switches the kind off in the device."""
        del self._lines[index]
        if self._lines:
            self._signal(kind, index, [OFF])
        else:
            self._switch_off_all(kind)

    def _switch_on(self, kind: IrqKind, index: int, fd: int) -> None:
        """Allocate vectors up to the highest one asked for, and no more."""
        can_grow = not self._infos[kind].flags & IrqFlag.NORESIZE
        if self._lines and (index < self._allocated or can_grow):
            self._signal(kind, index, [fd])  # the others are left alone
            self._allocated = max(self._allocated, index + 1)
            return
        before = self._fds(self._allocated)
        if before:
            # A fixed set of vectors can only be replaced. A message that the device sends in
            # between is lost, so whoever needs several asks for the highest one first.
            self._switch_off_all(kind)
        try:
            self._signal(kind, 0, [*self._fds(index), fd])
        except BaseException:
            if before:
                self._signal(kind, 0, before)
            raise
        self._allocated = index + 1

    def _fds(self, count: int) -> list[int]:
        """The eventfds of the first `count` vectors, OFF where there is none."""
        lines = (self._lines.get(number) for number in range(count))
        return [line.fileno() if line else OFF for line in lines]

    def _signal(self, kind: IrqKind, start: int, fds: Sequence[int]) -> None:
        flags = IrqAction.DATA_EVENTFD | IrqAction.TRIGGER
        # Fewer vectors than asked for: the kernel says how many there are, and takes none.
        possible = self._set(
            INDEX[kind], flags, start, len(fds), struct.pack(f"={len(fds)}i", *fds)
        )
        if possible > 0:
            raise HostError(
                f"{self._name}: {possible} of {len(fds)} {kind.value} vectors can be had; "
                "use fewer interrupts"
            )

    def _switch_off_all(self, kind: IrqKind) -> None:
        self._set(INDEX[kind], IrqAction.DATA_NONE | IrqAction.TRIGGER, 0, 0)

    def _set(
        self, index: IrqIndex, flags: IrqAction, start: int, count: int, data: bytes = b""
    ) -> int:
        size = ctypes.sizeof(uapi.IrqSetHeader) + len(data)
        header = uapi.IrqSetHeader(size, flags, index, start, count)
        return call(self._name, self._fd, uapi.Request.DEVICE_SET_IRQS, bytes(header) + data)

    def _info(self, index: IrqIndex) -> uapi.IrqInfo:
        """What the kernel says of it; a mediated device may refuse an index that it has not."""
        info = uapi.IrqInfo(argsz=ctypes.sizeof(uapi.IrqInfo), index=index)
        try:
            call(self._name, self._fd, uapi.Request.DEVICE_GET_IRQ_INFO, info)
        except HostError as error:
            if error.errno != errno.EINVAL:
                raise
        return info


class VfioIrqLine:
    """Fills the port's `IrqLine`."""

    def __init__(self, irqs: VfioIrqs, kind: IrqKind, index: int, event: EventFd) -> None:
        self.kind = kind
        self.fileno = event.fileno
        self.take = event.take
        self._irqs = irqs
        self._index = index
        self._event = event
        self._unmasking: EventFd | None = None
        self._switch_off = partial(irqs.switch_off, kind, index)
        self.trigger = partial(irqs.trigger, kind, [index])

    def mask(self) -> None:
        """Hold it back: INTx; Linux offers it for no message."""
        if not self._irqs.is_maskable(self.kind):
            raise UnsupportedError(f"VFIO cannot mask {self.kind.value}; INTx can be masked")
        self._irqs.mask(self.kind, self._index, IrqAction.MASK)

    def unmask(self) -> None:
        """Let it fire."""
        if self._irqs.is_maskable(self.kind):
            self._irqs.mask(self.kind, self._index, IrqAction.UNMASK)

    def unmask_fd(self) -> int:
        """An eventfd by which the kernel unmasks it: the line's own, which goes with it."""
        if not self._irqs.is_maskable(self.kind):
            raise UnsupportedError(f"VFIO has nothing to unmask in {self.kind.value}; INTx has")
        if self._unmasking is None:
            unmasking = EventFd()
            try:
                self._irqs.unmask_by(self.kind, self._index, unmasking.fileno())
            except BaseException:
                unmasking.close()
                raise
            self._unmasking = unmasking
        return self._unmasking.fileno()

    def restore_unmasking(self) -> None:
        """Tell the kernel again which eventfd unmasks it, after the line was switched on again."""
        if self._unmasking is not None:
            self._irqs.unmask_by(self.kind, self._index, self._unmasking.fileno())

    def close(self) -> None:
        """Switch it off in the kernel, then close the eventfds. Twice is fine."""
        if self._event.fileno() >= 0:
            try:
                self._switch_off()
            finally:
                self._event.close()
                if self._unmasking is not None:
                    self._unmasking.close()

"""The client's interrupts: which eventfd each interrupt of the served model signals.

QEMU docs/interop/vfio-user.rst, GET_IRQ_INFO and SET_IRQS; the semantics are those of Linux,
drivers/vfio/pci/vfio_pci_intrs.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from uspace_drv.errors import PeerError
from uspace_drv.eventfd import SharedEventFd
from uspace_drv.models import DeviceModel
from uspace_drv.models.interrupts import ModelIrqLine
from uspace_drv.port import IrqKind
from uspace_drv.vfio_numbers import IRQ_COUNT, IrqAction, IrqFlag, IrqIndex
from uspace_drv.vfiouser.server.refusal import invalid, unsupported
from uspace_drv.vfiouser.wire import IrqInfo, IrqSet, pack, size_of, split_irq_set, unpack

KINDS = {
    IrqIndex.INTX: IrqKind.INTX,
    IrqIndex.MSI: IrqKind.MSI,
    IrqIndex.MSIX: IrqKind.MSIX,
}
FLAGS = {
    IrqIndex.INTX: IrqFlag.EVENTFD | IrqFlag.MASKABLE | IrqFlag.AUTOMASKED,
    IrqIndex.MSI: IrqFlag.EVENTFD,
    IrqIndex.MSIX: IrqFlag.EVENTFD,
}
"""A message cannot be masked, as through vfio-pci; any vector can be switched on at any time."""


class ClientIrqs:
    """What one client has switched on."""

    def __init__(self, model: DeviceModel) -> None:
        self._model = model
        self._lines: dict[tuple[IrqKind, int], ModelIrqLine] = {}

    def info(self, payload: bytes) -> bytes:
        """GET_IRQ_INFO."""
        index = unpack(IrqInfo, payload).index
        if index >= IRQ_COUNT:
            raise invalid(f"there is no interrupt index {index}")
        count = self._count(index)
        flags = FLAGS[IrqIndex(index)] if count else IrqFlag(0)
        return pack(IrqInfo(size_of(IrqInfo), flags, index, count))

    def set(self, payload: bytes, descriptors: list[int]) -> bytes:
        """SET_IRQS; takes the descriptors that it keeps out of the list."""
        wanted, chosen = split_irq_set(payload)
        action = IrqAction(wanted.flags)
        if descriptors and IrqAction.DATA_EVENTFD not in action:
            raise PeerError(f"SET_IRQS: {len(descriptors)} descriptors where none belongs")
        if (wanted.count, action) == (0, IrqAction.DATA_NONE | IrqAction.TRIGGER):
            self._disable(wanted)
            return b""
        count = self._count(wanted.index)
        if wanted.count == 0 or wanted.start + wanted.count > count:
            raise invalid(f"{wanted}: index {wanted.index} has {count} interrupts")
        kind = KINDS[IrqIndex(wanted.index)]
        numbers = range(wanted.start, wanted.start + wanted.count)
        if IrqAction.DATA_EVENTFD in action:
            self._assign(kind, numbers, action, descriptors)
        else:
            told = chosen or b"\1" * wanted.count
            self._act(kind, [n for n, yes in zip(numbers, told, strict=True) if yes], action)
        return b""

    def close(self) -> None:
        """The client is gone: switch everything off, and hold nothing back."""
        self._lines.clear()
        self._model.interrupts.close()

    def _count(self, index: int) -> int:
        kind = KINDS.get(IrqIndex(index)) if index < IRQ_COUNT else None
        return 0 if kind is None else self._model.irqs.get(kind, 0)

    def _disable(self, wanted: IrqSet) -> None:
        """All interrupts of one index; one that this model does not have has none to disable."""
        if wanted.index >= IRQ_COUNT or wanted.start:
            raise invalid(f"{wanted}: expected a known index and start 0")
        for kind, number in [*self._lines]:
            if kind is KINDS.get(IrqIndex(wanted.index)):
                self._lines.pop((kind, number)).close()

    def _assign(
        self, kind: IrqKind, numbers: range, action: IrqAction, descriptors: list[int]
    ) -> None:
        """Give each of these interrupts an eventfd, or, without any, take theirs away."""
        if IrqAction.TRIGGER not in action:
            raise unsupported("SET_IRQS: mask and unmask by eventfd; by message works")
        if descriptors and len(descriptors) != len(numbers):
            raise invalid(f"{len(descriptors)} descriptors for {len(numbers)} interrupts")
        for descriptor in descriptors:
            _check_eventfd(descriptor)
        for number in numbers:
            old = self._lines.pop((kind, number), None)
            if old is not None:
                old.close()
            if descriptors:
                event = SharedEventFd(descriptors.pop(0))
                self._lines[kind, number] = self._switch_on(kind, number, event)

    def _switch_on(self, kind: IrqKind, number: int, event: SharedEventFd) -> ModelIrqLine:
        try:
            return self._model.interrupts.line(kind, number, event)
        except BaseException:
            event.close()
            raise

    def _act(self, kind: IrqKind, numbers: Sequence[int], action: IrqAction) -> None:
        if IrqAction.TRIGGER not in action and kind is not IrqKind.INTX:
            raise unsupported(f"SET_IRQS: {kind.value} cannot be masked; INTx can")
        for number in numbers:
            line = self._lines.get((kind, number))
            if line is None and IrqAction.TRIGGER not in action:
                raise invalid(f"SET_IRQS: {kind.value} {number} is masked, and not switched on")
            if IrqAction.TRIGGER not in action:
                self._model.interrupts.set_masked(kind, number, IrqAction.MASK in action)
            elif line is not None:
                line.signal()


def _check_eventfd(descriptor: int) -> None:
    """Refuse whatever would be harmed, or would block, when it is signalled."""
    what = str(Path(f"/proc/self/fd/{descriptor}").readlink())
    if what != "anon_inode:[eventfd]":
        raise invalid(f"SET_IRQS: a descriptor is {what}, expected an eventfd")

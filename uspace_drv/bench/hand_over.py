"""One device for both sides: given to user space, to the kernel again, and back at the end.

By the journal of `uspace bind` (uspace_drv/pci/binding.py), so if it is killed half-way, then
`uspace restore` ends it.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from uspace_drv.bench.lending import refuse_model
from uspace_drv.errors import BusyError, HostError
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.binding import UIO, USER_DRIVERS, VFIO, Terms, bind, restore
from uspace_drv.pci.in_use import uses_of
from uspace_drv.pci.journal import Entry, Journal
from uspace_drv.pci.rehearsal import Rehearsal
from uspace_drv.pci.sysfs import PciBus
from uspace_drv.teardown import Teardown


class HandOver:
    """Gives a PCI function to user space or to the kernel, within a `with` block.

    On the way in nothing is changed: it remembers where the function is, and refuses one that this
    machine lives on, that a process has open or that has virtual functions (`BusyError`), and one
    that no driver has or that waits for `uspace restore` (`HostError`). On the way out the function
    goes back, Ctrl-C or not; what had been bound by `uspace bind` is bound again, for the same
    user. `via` is as for `attach`: a way through UIO needs another driver than VFIO.
    """

    def __init__(self, address: str, via: str | None = None, *, bus: PciBus | None = None) -> None:
        refuse_model(address)
        self._address = PciAddress.parse(address)
        self._driver = None if via is None else UIO if via.startswith("uio") else VFIO
        self._bus = bus or PciBus()

    def __enter__(self) -> Self:
        rehearsal = PciBus(host=Rehearsal(self._bus.host))
        self._found, self._entry = self._now()
        self._terms = _terms_of(self._entry)
        if self._found in USER_DRIVERS:
            restore(self._address, bus=rehearsal)
            return self
        if self._entry is not None:
            raise HostError(
                f"{self._address}: what uspace changed of it has not been put back; "
                f"first run: uspace restore {self._address}"
            )
        if self._found is None:
            raise HostError(
                f"{self._address}: no driver has it, so there is nothing to compare with; "
                f"run: echo {self._address} | sudo tee /sys/bus/pci/drivers_probe"
            )
        bind(self._address, self._driver, bus=rehearsal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        way_back = Teardown()  # it holds back what would interrupt it
        way_back.push(f"give {self._address} back to {self._found}", self._put_back)
        way_back.run(error)

    def to_user(self) -> None:
        """Have it bound to VFIO or UIO, whichever `via` needs; raises as `uspace bind` does."""
        bind(self._address, self._driver, self._terms, bus=self._bus)

    def to_kernel(self) -> None:
        """Have it bound to the kernel's own driver; its disks or networks may take a moment more.

        `BusyError` while user space still has it open.
        """
        if self._bus.driver_of(self._address) in USER_DRIVERS:
            restore(self._address, bus=self._bus)
        if (driver := self._bus.driver_of(self._address)) in (None, *USER_DRIVERS):
            raise HostError(
                f"{self._address}: no driver of the kernel took it (it has {driver or 'none'}); "
                "is the module loaded, and what does dmesg say?"
            )

    def _now(self) -> tuple[str | None, Entry | None]:
        driver = self._bus.function(self._address).driver
        return driver, Journal(self._bus.host).read(self._address)

    def _put_back(self) -> None:
        """Return it to whom it was with; nothing is left in the journal that was not there."""
        if self._now() == (self._found, self._entry):
            return
        if self._found in USER_DRIVERS:
            bind(self._address, self._found, self._terms, bus=self._bus)
        else:
            restore(self._address, bus=self._bus)


def require_equal(device: str, beside: str, *, bus: PciBus | None = None) -> None:
    """Refuse what would not be compared fairly: other ids (`HostError`), or in use (`BusyError`).

    Reading alone would do a mounted disk no harm, but all that others read would count as fio's.
    """
    bus = bus or PciBus()
    ours, theirs = (bus.function(PciAddress.parse(each)) for each in (device, beside))
    if ours.address == theirs.address:
        raise HostError(f"{beside}: is the device itself; name another one, or leave --beside out")
    if ours.ids != theirs.ids:
        raise HostError(f"{beside}: is {theirs.ids}, expected an equal of {device}, {ours.ids}")
    if uses := uses_of(theirs.address, bus.host):
        raise BusyError(f"{'; '.join(map(str, uses))}; what else reads it would count, too")


def _terms_of(entry: Entry | None) -> Terms:
    """For whom an earlier `uspace bind` was, and for how long."""
    if entry is None:
        return Terms()
    return Terms(user=None if entry.user is None else str(entry.user), persist=entry.persist)

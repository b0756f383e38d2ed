"""A PCI function on loan to user space while it is measured, then back with its driver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from uspace_drv.errors import NoDevice
from uspace_drv.opening import SYSFS_VIA, UIO_VIA, open_backend
from uspace_drv.pci.address import DeviceAddress, PciAddress, Scheme
from uspace_drv.pci.binding import UIO, USER_DRIVERS, VFIO, bind, restore
from uspace_drv.pci.sysfs import PciBus
from uspace_drv.port import Backend
from uspace_drv.teardown import Teardown

_MODELS = (Scheme.VIRTUAL, Scheme.VFIO_USER)


def refuse_model(address: str) -> None:
    """Raise `NoDevice` if `--device` names a model: what needs no device is measured without it."""
    if address.startswith(tuple(f"{scheme.value}:" for scheme in _MODELS)):
        raise NoDevice(
            f"{address}: is a model, and this suite measures devices of this machine, as in"
            " 0000:00:04.0; leave --device out, and it measures a model or what else needs none"
        )


@contextmanager
def lent(address: PciAddress, driver: str, *, bus: PciBus | None = None) -> Iterator[None]:
    """Bind the function to `driver`, and restore it; one that user space has stays as it is.

    Raises what `bind` does: above all `BusyError` if the machine lives on it. A failure to restore
    it becomes a note of the error that ended the block, if there is one.
    """
    bus = bus or PciBus()
    if bus.function(address).driver in USER_DRIVERS:
        yield
        return

    def give_back() -> None:
        restore(address, bus=bus)

    way_back = Teardown()  # Ctrl-C waits until it is done
    way_back.push(f"give {address} back", give_back)
    bind(address, driver, bus=bus)
    try:
        yield
    except BaseException as error:
        way_back.run(error)
        raise
    way_back.run()


@contextmanager
def open_lent(address: str, via: str | None) -> Iterator[Backend]:
    """Open a device as `open_backend` does, a function of this machine lent for so long."""
    where = DeviceAddress.parse(address)
    with ExitStack() as stack:
        if where.scheme is Scheme.PCI and via != SYSFS_VIA:
            stack.enter_context(lent(where.pci, UIO if via == UIO_VIA else VFIO))
        yield stack.enter_context(closing(open_backend(address, via=via)))

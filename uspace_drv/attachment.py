"""Attach: joins backend, device and driver; what happens on the way in and out is on this page.

In: find the backend, take the device's lock, open, reset, hand over, bus master on, `probe`.
Out, also when anything failed on the way in: `remove` with a deadline (if `probe` succeeded, as in
the kernel), bus master off, reset, interrupts off, DMA unmapped, windows unmapped, files closed,
lock given back. Ctrl-C and SIGTERM take the same way out, and so does the host when it asks for the
device back.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any, Generic, NoReturn, TypeVar, overload

from uspace_drv.backends.virtual import VirtualDevice
from uspace_drv.device import Device
from uspace_drv.driver import Driver
from uspace_drv.errors import BusyError, DeviceTimeout, NoDevice
from uspace_drv.models import DeviceModel
from uspace_drv.notices import Heed
from uspace_drv.opening import identity_of, open_backend, refuse_via
from uspace_drv.plugins import driver_for
from uspace_drv.port import Backend, IrqKind
from uspace_drv.teardown import Teardown

D = TypeVar("D", bound=Driver)
SignalHandler = Callable[[int, FrameType | None], Any] | signal.Handlers

REMOVE_TIMEOUT = 5.0
"""Seconds that `remove` gets before the device is taken away from it."""

_ways_out: list[Teardown] = []
"""Those of all devices that are attached now: what a program forgets is left when it ends."""


class Attachment(Generic[D]):
    """A driver at work on its device, until `close()` or the end of the `with` block.

    `with attach(...) as driver:` gives the driver itself. When the host asks for the device back,
    it is left at once, in another thread, and every use of it from then on raises `DeviceGone`.
    """

    def __init__(self, driver: D, way_out: Teardown, heed: Heed) -> None:
        self.driver = driver
        self._way_out = way_out
        self._heed = heed

    def suspend(self) -> None:
        """Let the driver make ready, then keep the device off the bus."""
        with self._way_out.turn:
            self.driver._stop_interrupts()
            self.driver.suspend()
            self.driver._is_suspended = True
            self.driver.device.set_bus_master(False)

    def resume(self) -> None:
        """Undo `suspend`."""
        with self._way_out.turn:
            self.driver.device.set_bus_master(True)
            self.driver.resume()
            self.driver._is_suspended = False
            self.driver._start_interrupts()

    def reset(self) -> None:
        """Reset the function under the driver, and let the driver bring it back."""
        with self._way_out.turn:
            self.driver.device.require_reset()
            self.driver._stop_interrupts()
            self.driver.device.reset()
            self.driver.device.set_bus_master(True)
            self.driver.reset()
            self.driver._start_interrupts()

    def close(self) -> None:
        """Take the way out. Twice is fine; a handler of the driver cannot do it."""
        self.driver._check_may_leave()
        _leave(self._way_out)
        self._heed.raise_failure()

    def __enter__(self) -> D:
        return self.driver

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        _leave(self._way_out, error)
        self._heed.raise_failure(error)


@overload
def attach(
    address: str | DeviceModel | Backend,
    driver: type[D],
    *,
    via: str | None = None,
    irq_kind: IrqKind | None = None,
    unsafe_dma_without_iommu: bool = False,
) -> Attachment[D]: ...
@overload
def attach(
    address: str | DeviceModel | Backend,
    *,
    via: str | None = None,
    irq_kind: IrqKind | None = None,
    unsafe_dma_without_iommu: bool = False,
) -> Attachment[Driver]: ...
def attach(
    address: str | DeviceModel | Backend,
    driver: type[Driver] | None = None,
    *,
    via: str | None = None,
    irq_kind: IrqKind | None = None,
    unsafe_dma_without_iommu: bool = False,
) -> Attachment[Any]:
    """Open a device and start its driver.

    `address` is '0000:00:04.0' ('0000:01:10.0?vf_token=UUID' for a virtual function whose physical
    function is at VFIO too), 'uio:uio0' or 'uio:NAME', 'virtual:edu', 'vfio-user:PATH' (a server's
    socket; 'vfio-user:PATH?spin=0.0001' keeps the processor busy for so many seconds of a wait for
    it), or a model, or an open backend, which is then closed with the rest. Without `driver` the
    installed one that matches is taken. `via` is one of `uspace_drv.opening.VIAS`; without it, what
    the function is bound to says. Raises any `UspaceError`.
    """
    way_out = Teardown()
    try:
        _enter(way_out)
        if isinstance(address, str):
            backend = open_backend(
                address, via=via, unsafe_dma_without_iommu=unsafe_dma_without_iommu
            )
        else:
            backend = VirtualDevice(address) if isinstance(address, DeviceModel) else address
            _refuse_what_is_no_device(backend)
            refuse_via(backend.address, via)
        way_out.push("close the backend", backend.close)
        if driver is None:
            driver = driver_for(identity_of(backend), backend.address)
        device = Device(backend, dma_bits=driver.dma_bits, irq_kind=irq_kind)
        started = _start(driver, device, way_out)
        heed = Heed(started, lambda: _leave(way_out))
        with way_out.turn:  # the host may speak at once, and leaving must end this too
            way_out.push("stop listening to the host", device.watch(heed))
    except BaseException as error:
        _leave(way_out, error)
        raise
    return Attachment(started, way_out, heed)


def _start(driver: type[D], device: Device, way_out: Teardown) -> D:
    """Hand the device over to a new driver."""
    way_out.push("close the device", device.close)
    device.check_present()
    if device.can_reset:
        device.reset()
        way_out.push("reset", lambda: _reset_for_the_next(device))
    started = driver(device)
    device.set_bus_master(True)
    way_out.push("bus master off", lambda: device.set_bus_master(False))
    started.probe()
    way_out.push("remove", lambda: _remove(started))
    way_out.push("stop interrupt handlers", started._stop_interrupts)
    started._start_interrupts()
    return started


def _reset_for_the_next(device: Device) -> None:
    """Leave nothing of ours in it; while the host takes it back the kernel lets nobody reset it."""
    try:
        device.reset()
    except BusyError:
        if device.health.is_well:
            raise


def _refuse_what_is_no_device(backend: object) -> None:
    if isinstance(backend, type):
        raise NoDevice(f"attach() takes a device, not a class: write {backend.__name__}()")
    if not hasattr(backend, "bar_sizes"):
        raise NoDevice(f"attach() takes an address, a model or an open backend, not {backend!r}")


def _remove(driver: Driver) -> None:
    if not driver._is_suspended:  # it has quieted the device already
        _within(REMOVE_TIMEOUT, partial(_quiet, driver), driver.device.address)


def _quiet(driver: Driver) -> None:
    """Let the driver wait for its device, even if the host wants it back meanwhile."""
    with driver.device.health.sparing():
        driver.remove()


def _within(seconds: float, function: Callable[[], None], where: str) -> None:
    """Run it in a thread, so that a `remove` that hangs cannot keep the device."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as failure:  # noqa: BLE001 - raised again below, in the right thread
            failures.append(failure)

    thread = threading.Thread(target=run, name=f"{where} remove", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the interpreter is ending, and starts no threads any more
        run()
    else:
        thread.join(seconds)
    if thread.is_alive():
        raise DeviceTimeout(f"{where}: remove did not return within {seconds:.3f} s")
    if failures:
        raise failures[0]


def _enter(way_out: Teardown) -> None:
    """See to it that the way out is taken at the end of the process, be it by SIGTERM or SIGHUP.

    A program that has its own idea of these signals keeps it.
    """
    _ways_out.append(way_out)
    _exchange_handlers(signal.SIG_DFL, _unwind)


def _leave(way_out: Teardown, error: BaseException | None = None) -> None:
    """Take the way out; the last one to do so puts the signals back as they were."""
    try:
        way_out.run(error)
    finally:
        with suppress(ValueError):  # another thread may be leaving too
            _ways_out.remove(way_out)
        if not _ways_out:
            _exchange_handlers(_unwind, signal.SIG_DFL)


def _exchange_handlers(old: SignalHandler, new: SignalHandler) -> None:
    """Python lets only the main thread do this."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is old:
            signal.signal(number, new)


@atexit.register
def _leave_all() -> None:
    """Leave what was forgotten, or what a signal kept from being left."""
    while _ways_out:
        _leave(_ways_out[-1])


# The devices stay with the process that opened them.
os.register_at_fork(after_in_child=_ways_out.clear)


def _unwind(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)

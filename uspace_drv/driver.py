"""A driver: a class with a match table, `probe` and `remove`, in the kernel's words.

See Documentation/PCI/pci.rst of the kernel for what the words mean there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from uspace_drv.deadline import Deadline
from uspace_drv.device import Device
from uspace_drv.errors import DeviceError, DeviceTimeout
from uspace_drv.handlers import InterruptLoop, handlers_of, may_be_left_out
from uspace_drv.pci.ids import Match


class Driver:
    """What a driver plugin derives from. It holds `self.device` and frees nothing itself.

    Public methods of the derived class are its verbs: `uspace run` offers them by name.
    """

    id_table: ClassVar[Sequence[Match]] = ()
    """The devices that it drives; matching reads this and runs no code."""

    dma_bits: ClassVar[int] = 64
    """How many address bits the device drives."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._interrupts = InterruptLoop(device.address, device.health)
        self._is_suspended = False

    def probe(self) -> None:
        """Take the device into use: check that it is the right one, set it up."""

    def remove(self) -> None:
        """Quiet the device; the framework then frees everything that `self.device` handed out."""

    def suspend(self) -> None:
        """Make ready for losing power. Without a better way: as if the device were left."""
        self.remove()

    def resume(self) -> None:
        """Come back from `suspend`. Without a better way: as if the device were new."""
        self.probe()

    def reset(self) -> None:
        """Bring the device back after its function was reset. Without a better way: as if new."""
        self.probe()

    def self_test(self) -> None:
        """Exercise the device, and raise if it does not work; the conformance suite calls it."""

    def require(self, condition: bool, message: str) -> None:
        """Raise `DeviceError` with `message`, or `DeviceGone`, unless the device is as expected."""
        if not condition:
            self.device.check_present()
            raise DeviceError(f"{self.device.address}: {message}")

    def defer(self, work: Callable[[], None]) -> None:
        """Queue work for after the interrupt handler that calls this: the bottom half."""
        self._interrupts.defer(work)

    def wait_until(self, predicate: Callable[[], bool], timeout: float, message: str) -> None:
        """Wait for what handlers or deferred work bring about: `predicate` is asked after each.

        Raises `DeviceTimeout` with `message` after `timeout` seconds, at once what a handler
        raised, and `DeviceGone` if the device is not there any more.
        """
        if not self._interrupts.wait_until(predicate, Deadline(timeout).remaining()):
            self.device.check_present()
            raise DeviceTimeout(f"{self.device.address}: {message} within {timeout:.3f} s")

    def _start_interrupts(self) -> None:
        # The highest first: so that all vectors are allocated at once.
        declared = sorted(handlers_of(self).items(), reverse=True)
        handlers = {
            self.device.irq(index): handler
            for index, handler in declared
            if index < self.device.irq_count or not may_be_left_out(handler)
        }
        if handlers:
            self._interrupts.start(handlers)

    def _check_may_leave(self) -> None:
        self._interrupts.check_may_stop()

    def _fail(self, kind: type[DeviceError], reason: str) -> None:
        """End every wait for the device with such an error."""
        self.device.fail(kind, reason)
        self._interrupts.rouse()

    def _stop_interrupts(self) -> None:
        self._interrupts.stop()

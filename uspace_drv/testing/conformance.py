"""The conformance suite: what every driver has to survive, on a model or on a device.

    def test_conformance() -> None:
        check_driver(Edu, EduModel)

It exercises the driver by its `self_test`, which therefore has to use whatever the driver can do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps

from uspace_drv.attachment import attach
from uspace_drv.driver import Driver
from uspace_drv.errors import BusyError, ClosedError, DeviceError, UspaceError
from uspace_drv.models import DeviceModel
from uspace_drv.testing.belongings import belongings
from uspace_drv.testing.faults import FaultyBackend
from uspace_drv.testing.target import Target

ROUNDS = 10
WAIT = 30.0
"""Seconds: far longer than any step takes, so that reaching it is a hang."""


class NonConformance(AssertionError):
    """A driver did what no driver may do."""


Check = Callable[[type[Driver], Target], None]


def check_driver(driver: type[Driver], target: type[DeviceModel] | Target) -> None:
    """Run all of `CHECKS`; raises an `ExceptionGroup` of those that failed."""
    where = target if isinstance(target, Target) else Target(model=target)
    if driver.self_test is Driver.self_test:
        raise NonConformance(f"{driver.__name__} has no self_test, so nothing would be tried")
    failures = []
    for check in CHECKS:
        try:
            check(driver, where)
        except Exception as failure:  # noqa: BLE001 - all of them are raised below
            failure.add_note(f"in {check.__name__}")
            failures.append(failure)
    if failures:
        raise ExceptionGroup(f"{driver.__name__} does not conform", failures)


def _leaving_nothing(check: Check) -> Check:
    """Make the check fail if the process holds something else after it than before."""

    @wraps(check)
    def checked(driver: type[Driver], target: Target) -> None:
        before = belongings()
        check(driver, target)  # when it returns, nothing here refers to a driver or its arrays
        after = belongings()
        left = ", ".join((after - before).elements()) or "nothing"
        lost = ", ".join((before - after).elements()) or "nothing"
        _expect(after == before, f"it left {left} behind, and closed {lost} that it did not open")

    return checked


@_leaving_nothing
def attaches_and_leaves_ten_times(driver: type[Driver], target: Target) -> None:
    """Ten rounds of attach, work and leave."""
    for _ in range(ROUNDS):
        with target.attach(driver) as started:
            started.self_test()


@_leaving_nothing
def leaves_twice(driver: type[Driver], target: Target) -> None:
    """Closing an attachment that is closed does nothing."""
    attachment = target.attach(driver)
    attachment.close()
    attachment.close()


@_leaving_nothing
def leaves_in_the_middle_of_a_wait(driver: type[Driver], target: Target) -> None:
    """Leaving ends a wait in another thread, with `ClosedError`."""
    attachment = target.attach(driver)
    device = attachment.driver.device
    if device.irq_count == 0:
        attachment.close()
        return
    ends: list[BaseException] = []
    waiting = threading.Event()

    def wait() -> None:
        try:
            waiting.set()
            while True:
                device.irq(0).wait(WAIT)
        except UspaceError as end:
            ends.append(end)

    thread = threading.Thread(target=wait)
    thread.start()
    waiting.wait(WAIT)
    attachment.close()
    thread.join(WAIT)
    # Busy: the driver's own handler is the one that waits, and leaving ended that.
    ended_well = bool(ends) and isinstance(ends[0], ClosedError | BusyError)
    _expect(ended_well, f"the wait ended with {ends}")


@_leaving_nothing
def fails_in_probe(driver: type[Driver], target: Target) -> None:
    """A probe that fails gives its own error, and everything back."""

    class FailingProbe(driver):  # type: ignore[valid-type,misc]
        def probe(self) -> None:
            super().probe()
            raise DeviceError("a fault on purpose")

    with _expecting("a fault on purpose"):
        target.attach(FailingProbe).close()


@_leaving_nothing
def survives_lost_interrupts(driver: type[Driver], target: Target) -> None:
    """An interrupt that never comes is an error in words, or is not needed."""
    with suppress(DeviceError):
        _work(driver, FaultyBackend(target.open(), interrupts=0), target)


@_leaving_nothing
def survives_doubled_interrupts(driver: type[Driver], target: Target) -> None:
    """An interrupt that comes twice does no harm."""
    _work(driver, FaultyBackend(target.open(), interrupts=2), target)


@_leaving_nothing
def refuses_a_dead_device(driver: type[Driver], target: Target) -> None:
    """A device that answers all ones from the start is refused with an error in words."""
    with _expecting():
        backend = FaultyBackend(target.open())
        backend.reads_all_ones = True
        attach(backend, driver, irq_kind=target.irq_kind).close()


@_leaving_nothing
def survives_the_death_of_the_device(driver: type[Driver], target: Target) -> None:
    """A device that answers all ones in the middle gives an error in words, and can be left."""
    backend = FaultyBackend(target.open())
    attachment = attach(backend, driver, irq_kind=target.irq_kind)
    backend.reads_all_ones = True
    with _expecting():
        _in_time(attachment.driver.self_test)
    with suppress(DeviceError):
        attachment.close()


@_leaving_nothing
def notices_memory_that_was_unmapped(driver: type[Driver], target: Target) -> None:
    """Memory that the device does not reach is noticed, where an IOMMU keeps it from there."""
    backend = FaultyBackend(target.open(), drops_mappings=True)
    try:
        _work(driver, backend, target)
    except DeviceError:
        return
    _expect(backend.dropped == 0, f"{backend.dropped} buffers were out of reach, unnoticed")


CHECKS: tuple[Check, ...] = (
    attaches_and_leaves_ten_times,
    leaves_twice,
    leaves_in_the_middle_of_a_wait,
    fails_in_probe,
    survives_lost_interrupts,
    survives_doubled_interrupts,
    refuses_a_dead_device,
    survives_the_death_of_the_device,
    notices_memory_that_was_unmapped,
)


def _work(driver: type[Driver], backend: FaultyBackend, target: Target) -> None:
    with attach(backend, driver, irq_kind=target.irq_kind) as started:
        _in_time(started.self_test)


def _in_time(work: Callable[[], None]) -> None:
    """Run it in a thread, and give up on it when it hangs."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as failure:  # noqa: BLE001 - it is raised below
            failures.append(failure)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(WAIT)
    _expect(not thread.is_alive(), f"the self-test did not end within {WAIT:.0f} s")
    if failures:
        raise failures[0]


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise NonConformance(message)


@contextmanager
def _expecting(text: str = "") -> Iterator[None]:
    """An error of the framework about the device, which says `text`."""
    try:
        yield
    except DeviceError as error:
        _expect(text in str(error), f"the error was {error!r}")
    else:
        raise NonConformance("there was no error")

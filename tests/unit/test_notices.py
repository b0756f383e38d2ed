"""The host speaks: waits end with an error of the bus; a device that is asked for is left in order.

On models, in-process: `fail_bus()` and `request_back()` say what VFIO's interrupts would.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.unit.specimens import WAIT, Bell, BellModel, BellRegisters
from uspace_drv import attach, attachment, interrupt
from uspace_drv.attachment import Attachment
from uspace_drv.errors import (
    BusyError,
    ClosedError,
    DeviceError,
    DeviceGone,
    DeviceTimeout,
    UspaceError,
)
from uspace_drv.health import Health
from uspace_drv.pci.config import ConfigHeader

pytestmark = pytest.mark.usefixtures("nothing_left")

BUS = "bell: the bus reported an error"
GONE = "bell: the host asked for the device back"


class Following(Bell):
    """Keeps a list of what it went through."""

    def probe(self) -> None:
        super().probe()
        self.log = ["probe"]

    def remove(self) -> None:
        super().remove()
        self.log.append("remove")


@pytest.fixture
def model() -> BellModel:
    return BellModel("bell")


@pytest.fixture
def bell(model: BellModel) -> Iterator[Attachment[Following]]:
    attached = attach(model, Following)
    yield attached
    attached.close()


def in_a_wait(wait: Callable[[], object], begun: Callable[[], bool]) -> Callable[[], object]:
    """Wait in a thread, which is in the middle of it when this returns; then say how it ended."""
    ends: list[object] = []

    def run() -> None:
        try:
            ends.append(wait())
        except UspaceError as error:
            ends.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    waiting = threading.Event()
    while not begun():
        waiting.wait(0.001)

    def outcome() -> object:
        thread.join(WAIT)
        return ends[0]

    return outcome


def test_bus_error_ends_a_wait_and_every_later_one(
    bell: Attachment[Following], model: BellModel
) -> None:
    irq = bell.driver.device.irq(0)
    outcome = in_a_wait(lambda: irq.wait(WAIT), lambda: irq._waiter is not None)
    model.fail_bus()
    error = outcome()
    assert type(error) is DeviceError
    assert str(error).startswith(BUS)
    for use in (irq.poll, lambda: irq.wait(0), lambda: bell.driver.device.irq(1).wait(0)):
        with pytest.raises(DeviceError, match=BUS):
            use()


def test_bus_error_ends_the_wait_for_a_register(
    bell: Attachment[Following], model: BellModel
) -> None:
    model.fail_bus()
    registers = bell.driver.registers
    assert registers.magic.read() == 0xBE11  # it is there, as far as anybody knows
    with pytest.raises(DeviceError, match=BUS):
        registers.pending.wait(1, timeout=WAIT)


def test_a_reset_makes_it_well_again(bell: Attachment[Following], model: BellModel) -> None:
    irq = bell.driver.device.irq(0)
    model.fail_bus()
    bell.reset()
    assert bell.driver.log == ["probe"]
    assert irq.poll() == 0
    bell.driver.registers.ring.write(1)
    assert irq.wait(WAIT) == 1
    with pytest.raises(DeviceTimeout):
        irq.wait(0)


def test_a_bus_error_is_logged(
    bell: Attachment[Following], model: BellModel, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        model.fail_bus()
    assert [record.message.startswith(BUS) for record in caplog.records] == [True]


def test_a_bus_error_does_not_keep_the_driver_from_leaving(model: BellModel) -> None:
    class Waiting(Following):
        def remove(self) -> None:
            self.registers.ring.write(1)
            assert self.device.irq(0).wait(WAIT) == 1
            super().remove()

    with attach(model, Waiting) as driver:
        driver.device.irq(0)
        model.fail_bus()
    assert driver.log == ["probe", "remove"]


def test_driver_with_handlers_hears_of_both(model: BellModel) -> None:
    class Reacting(Following):
        rung = 0

        @interrupt(0)
        def ring(self) -> None:
            self.rung += 1

    def wait(driver: Reacting) -> None:
        driver.wait_until(lambda: driver.rung > 5, WAIT, "not rung")

    attached = attach(model, Reacting)
    driver = attached.driver
    outcome = in_a_wait(lambda: wait(driver), lambda: bool(driver._interrupts._progress._waiters))  # type: ignore[attr-defined]
    model.fail_bus()
    assert str(outcome()).startswith(BUS)
    attached.reset()
    driver.registers.ring.write(1)
    driver.wait_until(lambda: driver.rung == 1, WAIT, "not rung")
    outcome = in_a_wait(lambda: wait(driver), lambda: bool(driver._interrupts._progress._waiters))  # type: ignore[attr-defined]
    model.request_back()
    assert str(outcome()).startswith(GONE)
    assert isinstance(outcome(), DeviceGone)
    attached.close()


def test_request_leaves_the_device_in_order(model: BellModel) -> None:
    with attach(model, Following) as driver:
        memory = driver.device.dma
        model.request_back()
        assert driver.log == ["probe", "remove"]
        assert not model.config.is_bus_master
        for use in (
            driver.registers.magic.read,
            lambda: driver.registers.ring.write(1),
            lambda: driver.device.irq(0),
            lambda: driver.device.bar(0),
            lambda: driver.device.dma,
            lambda: memory.alloc("u1"),
            driver.device.reset,
            ConfigHeader(driver.device.config).command.read,
        ):
            with pytest.raises(DeviceGone, match=GONE):
                use()


def test_request_ends_a_wait_that_is_going_on(
    bell: Attachment[Following], model: BellModel
) -> None:
    irq = bell.driver.device.irq(0)
    outcome = in_a_wait(lambda: irq.wait(WAIT), lambda: irq._waiter is not None)
    model.request_back()
    assert isinstance(outcome(), DeviceGone)
    with pytest.raises(DeviceGone, match=GONE):
        irq.wait(0)


def test_remove_may_wait_for_the_device(model: BellModel) -> None:
    """To quiet it takes waiting: that is spared from what everybody else is told."""

    class Waiting(Following):
        def remove(self) -> None:
            self.registers.ring.write(1)
            assert self.device.irq(0).wait(WAIT) == 1
            assert self.registers.pending.wait(1, timeout=WAIT) == 1
            super().remove()

    with attach(model, Waiting) as driver:
        driver.device.irq(0)
        model.request_back()
    assert driver.log == ["probe", "remove"]


def use_after_request(model: BellModel, driver: Bell) -> None:
    model.request_back()
    driver.registers.magic.read()


def test_remove_that_fails_is_raised_where_the_device_is_used(model: BellModel) -> None:
    class Failing(Following):
        def remove(self) -> None:
            raise DeviceError("stuck")

    attached = attach(model, Failing)
    model.request_back()
    with pytest.raises(DeviceError, match="stuck"):
        attached.close()
    attached.close()
    with pytest.raises(DeviceGone) as caught, attach(model, Failing) as driver:
        use_after_request(model, driver)
    assert "when it was left: DeviceError: stuck" in caught.value.__notes__


def test_remove_that_hangs_does_not_keep_the_host_waiting(
    model: BellModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attachment, "REMOVE_TIMEOUT", 0.0)
    hung = threading.Event()

    class Hanging(Following):
        def remove(self) -> None:
            hung.wait(WAIT)

    attached = attach(model, Hanging)
    model.request_back()
    assert not model.config.is_bus_master
    hung.set()
    with pytest.raises(DeviceTimeout, match="remove did not return"):
        attached.close()
    for thread in threading.enumerate():
        if thread.name == "bell remove":
            thread.join(WAIT)


def test_request_in_asyncio(bell: Attachment[Following], model: BellModel) -> None:
    import asyncio  # noqa: PLC0415

    async def wait() -> None:
        asked = threading.Thread(target=model.request_back)
        asyncio.get_running_loop().call_soon(asked.start)
        try:
            async with asyncio.timeout(WAIT):
                await bell.driver.device.irq(0)
        finally:
            asked.join(WAIT)

    with pytest.raises(DeviceGone, match=GONE):
        asyncio.run(wait())


def test_nobody_listens_after_leaving(model: BellModel) -> None:
    with attach(model, Following) as driver:
        registers = BellRegisters(driver.device.bar(0))
    model.request_back()
    model.fail_bus()
    with pytest.raises(ClosedError):
        registers.magic.read()


def test_what_is_gone_stays_gone() -> None:
    health = Health("bell")
    health.check_alive()
    health.fail(DeviceGone, "away")
    health.fail(DeviceError, "ill")
    health.recover()
    assert not health.is_well
    with pytest.raises(DeviceGone, match="bell: away"):
        health.check_alive()
    with health.sparing():
        health.check_alive()


@pytest.mark.parametrize("asked", [True, False])
def test_kernel_that_holds_the_device_when_it_is_left(
    model: BellModel, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    """While it unbinds the device it lets nobody reset it; at any other time that is an error."""

    def busy() -> None:
        raise BusyError("no reset now")

    attached = attach(model, Following)
    monkeypatch.setattr(model, "reset", busy)
    if asked:
        model.request_back()
        attached.close()
    else:
        with pytest.raises(BusyError):
            attached.close()


def test_what_is_gone_while_a_reset_ends_stays_gone() -> None:
    class Interrupted(Health):
        host: threading.Thread | None = None

        @property
        def _is_gone(self) -> bool:
            found = super()._is_gone
            if self.host is None:
                self.host = threading.Thread(target=self.fail, args=[DeviceGone, "unplugged"])
                self.host.start()
                self.host.join(0.05)
            return found

    health = Interrupted("bell")
    health.recover()
    assert health.host is not None
    health.host.join(WAIT)
    assert not health.is_well


def test_a_reset_is_over_before_the_host_gets_the_device(model: BellModel) -> None:
    host = threading.Thread(target=model.request_back)

    class Slow(Following):
        def reset(self) -> None:
            host.start()
            host.join(0.05)
            self.log.append("reset")

    attached = attach(model, Slow)
    attached.reset()
    host.join(WAIT)
    assert attached.driver.log == ["probe", "reset", "remove"]
    attached.close()

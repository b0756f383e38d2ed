"""Every way in and out of a device: what happens in which order, and that nothing is left."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.unit.specimens import WAIT, Bell, BellModel
from uspace_drivers.edu import Edu, EduModel
from uspace_drv import Driver, attach, attachment, interrupt
from uspace_drv.attachment import Attachment
from uspace_drv.backends.virtual import VirtualDevice
from uspace_drv.errors import (
    BusyError,
    ClosedError,
    DeviceError,
    DeviceGone,
    DeviceTimeout,
    NoDevice,
    NoDriver,
    UnsupportedError,
)
from uspace_drv.pci.config import ConfigHeader
from uspace_drv.testing import FaultyBackend

pytestmark = pytest.mark.usefixtures("nothing_left", "heeding_ctrl_c")


log: list[str] = []
"""What the device and its driver went through, and whether it could reach memory then."""


def note(what: str, is_bus_master: bool) -> None:
    log.append(f"{what}, bus master {'on' if is_bus_master else 'off'}")


class NotingModel(BellModel):
    def reset(self) -> None:
        super().reset()
        note("reset", self.config.is_bus_master)


class Noting(Bell):
    def probe(self) -> None:
        self.note("probe")
        super().probe()

    def remove(self) -> None:
        self.note("remove")
        super().remove()

    def note(self, what: str) -> None:
        note(what, ConfigHeader(self.device.config).command.read().bus_master_enable)


@pytest.fixture
def model() -> NotingModel:
    model = NotingModel("bell")
    log.clear()
    return model


IN = ["reset, bus master off", "probe, bus master on"]
OUT = ["remove, bus master on", "reset, bus master off"]


def test_in_and_out_in_order(model: NotingModel) -> None:
    with attach(model, Noting):
        assert log == IN
    assert log == IN + OUT


def test_close_twice_and_after_with(model: NotingModel) -> None:
    attachment = attach(model, Noting)
    with attachment:
        attachment.close()
    attachment.close()
    assert log == IN + OUT


def test_probe_that_fails(model: NotingModel) -> None:
    """As in the kernel, `remove` is for what was probed."""

    class Failing(Noting):
        def probe(self) -> None:
            super().probe()
            self.device.irq(0)
            self.device.dma.alloc("u1")
            self.require(False, "it is cracked")

    with pytest.raises(DeviceError, match="bell: it is cracked"):
        attach(model, Failing)
    assert log == [*IN, "reset, bus master off"]


def test_driver_that_cannot_be_made(model: NotingModel) -> None:
    class Unmade(Noting):
        def __init__(self, device: object) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        attach(model, Unmade)


def test_model_that_raises(model: NotingModel) -> None:
    expected = (
        r"bell: the model failed at a write of crack \(0x24\): ZeroDivisionError: cracked by 3"
    )
    with pytest.raises(DeviceError, match=expected), attach(model, Noting) as bell:
        bell.registers.crack.write(3)
    assert log == IN + OUT


def test_remove_that_raises(model: NotingModel) -> None:
    class Failing(Noting):
        def remove(self) -> None:
            super().remove()
            raise DeviceError("stuck")

    attachment = attach(model, Failing)
    with pytest.raises(DeviceError, match="stuck") as caught:
        attachment.close()
    assert caught.value.__notes__ == ["while leaving: remove"]
    assert log == IN + OUT


def test_error_inside_carries_what_failed_on_the_way_out(model: NotingModel) -> None:
    class Failing(Noting):
        def remove(self) -> None:
            raise DeviceError("stuck")

    with pytest.raises(ZeroDivisionError) as caught, attach(model, Failing):
        raise ZeroDivisionError
    assert caught.value.__notes__ == ["then, while leaving: remove: DeviceError: stuck"]


def test_remove_that_hangs(model: NotingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for an interrupt that never comes; taking the device away ends that."""
    monkeypatch.setattr(attachment, "REMOVE_TIMEOUT", 0.0)
    ends: list[BaseException] = []
    ended = threading.Event()

    class Hanging(Noting):
        def remove(self) -> None:
            super().remove()
            try:
                self.device.irq(0).wait(WAIT)
            except ClosedError as end:
                ends.append(end)
                ended.set()

    hanging = attach(model, Hanging)
    hanging.driver.device.irq(0)
    with pytest.raises(DeviceTimeout, match=r"bell: remove did not return within 0\.000 s"):
        hanging.close()
    assert log[-1] == "reset, bus master off"
    assert ended.wait(WAIT)
    for thread in threading.enumerate():
        if thread.name == "bell remove":
            thread.join(WAIT)


def test_ctrl_c_in_the_middle(model: NotingModel) -> None:
    interrupt = threading.Thread(target=signal.raise_signal, args=[signal.SIGINT])

    def wait() -> None:
        with attach(model, Noting) as bell:
            irq = bell.device.irq(0)
            interrupt.start()
            irq.wait(WAIT)

    with pytest.raises(KeyboardInterrupt):
        wait()
    interrupt.join(WAIT)
    assert log == IN + OUT


def test_ctrl_c_in_probe(model: NotingModel) -> None:
    class Slow(Noting):
        def probe(self) -> None:
            super().probe()
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        attach(model, Slow)
    assert log == [*IN, "reset, bus master off"]


def test_dead_device_is_refused(model: NotingModel) -> None:
    backend = FaultyBackend(VirtualDevice(model))
    backend.reads_all_ones = True
    with pytest.raises(DeviceGone, match="bell: configuration space reads all ones"):
        attach(backend, Noting)


def test_close_in_another_thread_while_this_one_waits(model: NotingModel) -> None:
    bell = attach(model, Noting)
    irq = bell.driver.device.irq(0)
    closer = threading.Thread(target=bell.close)

    def close_when_waited_for() -> None:
        while irq._waiter is None:
            time.sleep(0.001)
        closer.start()

    starter = threading.Thread(target=close_when_waited_for)
    starter.start()
    with pytest.raises(ClosedError, match="bell msi 0 is closed"):
        irq.wait(WAIT)
    starter.join(WAIT)
    closer.join(WAIT)
    assert log == IN + OUT


@pytest.mark.parametrize("address", ["", "nonsense", "virtual:", "0000:00:04", "uio:eth0"])
def test_address_that_is_none(address: str) -> None:
    with pytest.raises(NoDevice, match=r"is not a (device|PCI) address|no UIO device has"):
        attach(address)


def test_options_that_the_model_does_not_take() -> None:
    with pytest.raises(NoDevice, match=r"the model has no parameter 'bits'; it has dma_bits \(int"):
        attach("virtual:edu?bits=3")


def test_driver_is_found_for_a_model(model: NotingModel) -> None:
    with pytest.raises(NoDriver, match="bell: no driver for 1234:be11; tried"):
        attach(model)


@pytest.fixture
def bell(model: NotingModel) -> Iterator[Attachment[Noting]]:
    attachment = attach(model, Noting)
    yield attachment
    attachment.close()


def is_bus_master(attachment: Attachment[Noting]) -> bool:
    return ConfigHeader(attachment.driver.device.config).command.read().bus_master_enable


def test_suspend_and_resume(bell: Attachment[Noting]) -> None:
    bell.suspend()
    assert not is_bus_master(bell)
    bell.resume()
    assert log == [*IN, OUT[0], IN[1]]


def test_a_suspended_device_is_quiet_already(bell: Attachment[Noting]) -> None:
    bell.suspend()
    bell.close()
    assert [each for each in log if each == OUT[0]] == [OUT[0]]


def test_reset_brings_the_driver_back(bell: Attachment[Noting], model: NotingModel) -> None:
    bell.driver.registers.ring.write(1)
    bell.reset()
    assert log == [*IN, "reset, bus master on", IN[1]]
    assert bell.driver.registers.pending.read() == 0


def test_driver_with_words_of_its_own(model: NotingModel) -> None:
    class Own(Noting):
        def suspend(self) -> None:
            self.note("suspend")

        def resume(self) -> None:
            self.note("resume")

        def reset(self) -> None:
            self.note("reset of the driver")

    attachment = attach(model, Own)
    attachment.suspend()
    attachment.resume()
    attachment.reset()
    attachment.close()
    between = ["suspend", "resume", "reset", "reset of the driver"]
    assert log == [*IN, *(f"{what}, bus master on" for what in between), *OUT]


def test_without_a_reset_nothing_changes(model: NotingModel) -> None:
    backend = FaultyBackend(VirtualDevice(model))
    backend.can_reset = False
    attachment = attach(backend, Noting)
    with pytest.raises(UnsupportedError, match="bell: no reset through virtual"):
        attachment.reset()
    assert log == ["probe, bus master on"]
    attachment.close()


@pytest.mark.parametrize("use", [Attachment.suspend, Attachment.resume, Attachment.reset])
def test_left_device_does_nothing_more(
    bell: Attachment[Noting], use: Callable[[Attachment[Driver]], None]
) -> None:
    bell.close()
    with pytest.raises(ClosedError):
        use(bell)  # type: ignore[arg-type]


def test_a_handler_cannot_leave_its_device_and_nothing_is_undone() -> None:
    class Leaving(Driver):
        @interrupt(0)
        def leave(self) -> None:
            try:
                attached.close()
            except BusyError as error:
                refusals.append(error)
            called.set()

    refusals: list[BusyError] = []
    called = threading.Event()
    model = BellModel()
    attached = attach(model, Leaving)
    model.interrupts.send()
    assert called.wait(WAIT)
    assert "a handler cannot leave the device" in str(refusals[0])
    assert ConfigHeader(attached.driver.device.config).command.read().bus_master_enable
    attached.close()


def test_what_is_not_left_is_left_at_the_end_of_the_process() -> None:
    code = """
        from uspace_drv import attach
        from uspace_drivers.edu import Edu, EduModel
        class Telling(Edu):
            def remove(self):
                super().remove()
                print("left", flush=True)
        kept = [attach(EduModel(), Telling), attach(EduModel(), Telling)]
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert (ran.stdout, ran.stderr, ran.returncode) == ("left\nleft\n", "", 0)


def test_way_in_is_not_chosen_where_there_is_none() -> None:
    for device in ("virtual:edu", EduModel()):
        with pytest.raises(UnsupportedError, match="is not opened via vfio; leave that out"):
            attach(device, Edu, via="vfio")


def test_dead_device_is_refused_before_its_driver_sees_it() -> None:
    backend = FaultyBackend(VirtualDevice(EduModel()))
    backend.reads_all_ones = True
    with pytest.raises(DeviceGone, match="configuration space reads all ones"):
        attach(backend, Driver)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (EduModel, r"takes a device, not a class: write EduModel\(\)"),
        (5, "takes an address, a model or an open backend, not 5"),
    ],
)
def test_what_is_no_device(given: Any, reason: str) -> None:
    with pytest.raises(NoDevice, match=reason):
        attach(given, Edu)


def test_a_forked_child_does_not_leave_its_parents_device() -> None:
    code = """
        import os, sys
        from uspace_drv import attach
        from uspace_drivers.edu import Edu, EduModel
        class Telling(Edu):
            def remove(self):
                super().remove()
                print("left by", "parent" if os.getpid() == parent else "child", flush=True)
        parent = os.getpid()
        kept = attach(EduModel(), Telling)
        if os.fork():
            os.wait()
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert (ran.stdout, ran.stderr, ran.returncode) == ("left by parent\n", "", 0)

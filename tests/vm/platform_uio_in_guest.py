"""The unchanged edu driver on a device of the board: run in the guest of test_platform_uio.py.

QEMU has no such device, so ACPI declares one where there is none, and edu's registers are moved to
its address and its interrupt line is the one that edu raises.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends.as_user import as_user, handed_over
from tests.vm.test_platform_uio import DEVICE, EDU, MEMORY, NAME, SIZE
from uspace_drivers.edu import Edu
from uspace_drv import (
    BusyError,
    ClosedError,
    DeviceTimeout,
    IrqKind,
    NoDevice,
    UioName,
    UnsupportedError,
    attach,
    plugins,
)
from uspace_drv.native import Window
from uspace_drv.opening import open_backend
from uspace_drv.pci.config import ConfigHeader
from uspace_drv.pci.host import Host
from uspace_drv.pci.sysfs import DEVICES
from uspace_drv.plugins import Installed, Plugin
from uspace_drv.testing import CHECKS, Check, Target

ADDRESS = f"uio:{NAME}"
DRIVERS = "/sys/bus/platform/drivers/uio_pdrv_genirq"


class QuietEdu(Edu):
    """The same driver; its self-test leaves DMA out, which UIO has not."""

    def self_test(self) -> None:
        self.require(self.is_alive(), "the liveness register does not invert")
        self.require(self.factorial(10) == 3628800, "10! is wrong")


@pytest.fixture(scope="module", autouse=True)
def _board() -> Iterator[None]:
    """Put edu where ACPI says that the device is, and hand that to uio_pdrv_genirq."""
    fd = os.open(f"{DEVICES}/{EDU}/config", os.O_RDWR)
    header = ConfigHeader(Window.over_file("edu config", fd, 0, 256))
    header.base_address[0].write(address=MEMORY >> 4)
    header.command.update(memory_space_enable=True, interrupt_disable=False)
    os.close(fd)
    host = Host()
    host.write(f"/sys/bus/platform/devices/{DEVICE}/driver_override", "uio_pdrv_genirq")
    host.write(f"{DRIVERS}/bind", DEVICE)
    yield
    host.write(f"{DRIVERS}/unbind", DEVICE)


@pytest.fixture
def edu() -> Iterator[Edu]:
    with attach(ADDRESS, Edu) as driver:
        yield driver


def test_registers_are_the_maps(edu: Edu) -> None:
    assert edu.identify().magic == 0xED
    assert edu.is_alive()
    assert (edu.device.via, edu.device.bar_sizes) == ("uio", {0: SIZE})


def test_interrupt_is_the_event_counter(edu: Edu) -> None:
    assert [edu.factorial(n) for n in (0, 5, 12)] == [1, 120, 479001600]
    assert edu.done.count == 3
    assert edu.device.irq_kind is IrqKind.INTX


def test_many_interrupts_one_after_the_other(edu: Edu) -> None:
    for _ in range(50):
        edu.factorial(3)
    assert edu.done.count == 50


def test_interrupt_that_does_not_come(edu: Edu) -> None:
    with pytest.raises(DeviceTimeout, match=r"no interrupt within 0\.050 s"):
        edu.done.wait(0.05)


def test_masked_interrupt_waits(edu: Edu) -> None:
    edu.done.mask()
    edu.registers.irq_raise.write(1)
    assert edu.done.poll() == 0
    edu.done.unmask()
    assert edu.done.wait(1.0) == 1
    edu.registers.irq_acknowledge.write(1)


def test_closing_wakes_who_waits() -> None:
    attachment = attach(ADDRESS, Edu)
    failures: list[BaseException] = []

    def wait() -> None:
        try:
            attachment.driver.done.wait(30.0)
        except ClosedError as closed:
            failures.append(closed)

    waiter = threading.Thread(target=wait)
    waiter.start()
    attachment.close()
    waiter.join(10.0)
    assert len(failures) == 1


def test_names_that_mean_it() -> None:
    for address in (ADDRESS, "uio:uio0"):
        with attach(address, Edu) as driver:
            assert driver.device.address == address
    with pytest.raises(NoDevice, match=rf"there are uio0 \({NAME}, {DEVICE}\)"):
        attach("uio:nobody", Edu)


def test_driver_is_found_by_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class NamedEdu(Edu):
        id_table = [UioName(NAME)]

    found = [Installed("named", "here", Plugin(driver=NamedEdu), None)]
    monkeypatch.setattr(plugins, "installed_plugins", lambda: found)
    with attach(ADDRESS) as driver:
        assert isinstance(driver, NamedEdu)


def test_what_sysfs_says_of_it() -> None:
    backend = open_backend(ADDRESS)
    maps = backend.maps  # type: ignore[attr-defined]
    assert (maps[0].address, maps[0].offset, maps[0].size) == (MEMORY, 0, SIZE)
    backend.close()


def test_what_it_has_not(edu: Edu) -> None:
    for attempt in (lambda: edu.store(b"x"), edu.device.reset, lambda: edu.device.config):
        with pytest.raises(UnsupportedError, match=ADDRESS):
            attempt()


def test_a_second_attach_is_refused(edu: Edu) -> None:
    with pytest.raises(BusyError, match="has it"):
        attach(ADDRESS, Edu)
    assert edu.is_alive()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conforms(check: Check) -> None:
    check(QuietEdu, Target(address=ADDRESS))


def test_needs_no_root_once_the_node_is_the_users() -> None:
    def work() -> None:
        with attach(ADDRESS, Edu) as edu:
            assert edu.factorial(5) == 120

    work()
    with handed_over([Path("/dev/uio0")]):
        assert as_user(work)

"""What only a real kernel's sysfs can show. Runs in the guest, on a pci-testdev that nobody has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends.as_user import as_user, handed_over
from uspace_drivers.edu import Edu, EduRegisters
from uspace_drivers.pci_testdev import PciTestdev
from uspace_drivers.pci_testdev.driver import Outcome
from uspace_drv import BusyError, IrqKind, PciId, UnsupportedError, attach
from uspace_drv.opening import open_backend
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.binding import UIO, VFIO, bind, restore
from uspace_drv.pci.config import Command, ConfigHeader
from uspace_drv.pci.sysfs import PciBus
from uspace_drv.testing import CHECKS, Check, Target

pytestmark = pytest.mark.via("sysfs")

ROM_SIGNATURE = 0xAA55


@pytest.fixture
def address(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--device"))


@pytest.fixture(params=["sysfs", "uio"])
def target(address: str, request: pytest.FixtureRequest) -> Iterator[Target]:
    """The same device as it is, and at uio_pci_generic, whose BARs come from sysfs too."""
    if request.param == "uio":
        bind(PciAddress.parse(address), UIO)
    yield Target(address=address, via=request.param)
    if request.param == "uio":
        restore(PciAddress.parse(address))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conforms(check: Check, target: Target) -> None:
    check(PciTestdev, target)


def test_every_write_is_counted_in_memory_and_ports(target: Target) -> None:
    """A test of pci-testdev counts the writes that it saw: one access is one write."""
    names = {0: "mmio-no-eventfd", 1: "portio-no-eventfd"}
    with target.attach(PciTestdev) as testdev:
        assert testdev.device.bar(1).size == 256
        for bar, name in names.items():
            assert testdev.run(bar, 0, writes=7) == Outcome(bar, name, 7, 7)


def test_header_can_be_read_in_any_width(target: Target) -> None:
    with target.attach(PciTestdev) as testdev:
        for number in (0, 1):
            testdev.start(number, 0)
            bar = testdev.device.bar(number)
            whole = bar.read32(0)
            assert [bar.read8(n) for n in range(4)] == list(whole.to_bytes(4, "little"))
            assert bar.read16(0) == whole & 0xFFFF


def test_memory_is_write_combined_on_request(target: Target) -> None:
    backend = target.open()
    combined = backend.write_combined(2)  # type: ignore[attr-defined]
    ordinary = backend.bar(2)
    combined.memory()[:8] = b"together"
    assert bytes(ordinary.memory()[:8]) == b"together"
    with pytest.raises(UnsupportedError, match="bar 0: no write-combining: it is not prefetch"):
        backend.write_combined(0)  # type: ignore[attr-defined]
    for window in (combined, ordinary):
        window.close()
    backend.close()


def test_rom_is_that_of_the_device(target: Target) -> None:
    backend = target.open()
    rom = backend.rom()  # type: ignore[attr-defined]
    assert rom.read16(0) == ROM_SIGNATURE
    assert bytes(rom.memory()[0x40:0x50]) == bytes(range(16))
    rom.close()
    backend.close()


def test_command_register_is_put_back(address: str) -> None:
    def command() -> Command:
        with PciBus().config(PciAddress.parse(address)) as config:
            return ConfigHeader(config).command.read()

    before = command()
    with attach(address, PciTestdev, via="sysfs"):
        seen = command()
        assert seen.memory_space_enable
        assert seen.io_space_enable
    assert command() == before


@pytest.mark.parametrize("driver", [UIO, VFIO])
def test_refuses_what_a_driver_has(address: str, driver: str) -> None:
    bind(PciAddress.parse(address), driver)
    try:
        with pytest.raises(BusyError, match=f"{driver} has it, and two drivers on one device"):
            open_backend(address, via="sysfs")
    finally:
        restore(PciAddress.parse(address))


def test_has_no_interrupts(address: str) -> None:
    with attach(address, PciTestdev, via="sysfs") as testdev:
        assert testdev.device.irq_count == 0
        with pytest.raises(UnsupportedError, match="no interrupts through sysfs: poll instead"):
            testdev.device.irq()
    forced = attach(address, PciTestdev, via="sysfs", irq_kind=IrqKind.INTX)
    with forced as testdev, pytest.raises(UnsupportedError, match="no intx interrupts through sys"):
        testdev.device.irq()


class PollingEdu(Edu):
    """The edu driver where there are no interrupts, and no DMA."""

    def probe(self) -> None:
        self.registers = EduRegisters(self.device.bar(0))
        self.require(self.registers.ident.read().magic == 0xED, "not an edu device")

    def factorial(self, n: int, timeout: float = 1.0) -> int:
        self.registers.status.write(irq_when_done=False)
        self.registers.factorial.write(n)
        self.registers.status.wait(computing=False, timeout=timeout)
        return self.registers.factorial.read()

    def self_test(self) -> None:
        self.require(self.is_alive(), "the liveness register does not invert")
        self.require(self.factorial(10) == 3628800, "10! is wrong")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_edu_by_polling(check: Check) -> None:
    check(PollingEdu, Target(address=find_function(0x1234, 0x11E8), via="sysfs"))


def find_function(vendor: int, device: int) -> str:
    wanted = PciId(vendor, device)
    found = [each.address for each in PciBus().functions() if wanted.matches(each.ids)]
    return str(found[0])


def test_needs_no_root_once_its_files_are_the_users(target: Target) -> None:
    """Nothing but the files that are handed over is asked for."""

    def work() -> None:
        with target.attach(PciTestdev) as testdev:
            testdev.self_test()
            assert testdev.device.config.size == (64 if os.geteuid() else 256)

    folder = Path("/sys/bus/pci/devices") / str(target.address)
    files = [folder / name for name in ("config", "resource0", "resource1")]
    work()
    with handed_over([*files, *Path("/dev").glob("uio[0-9]*")]):
        assert as_user(work)

"""A function by its files in sysfs alone, on a tree of files."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.pci.fake_sysfs import EDU, FakeMachine
from uspace_drv import attach
from uspace_drv.backends.resource import ResourceDevice
from uspace_drv.driver import Driver
from uspace_drv.errors import BusyError, HostError, NoDevice, UnsupportedError
from uspace_drv.pci.config import Command, ConfigHeader
from uspace_drv.port import HasRom, IrqKind

WHERE = r"^0000:00:04\.0"
FOLDER = "/sys/bus/pci/devices/0000:00:04.0"
RESOURCES = (
    "0xfea00000 0xfea00fff 0x40200\n"  # memory
    "0xc000 0xc01f 0x40101\n"  # I/O ports
    "0xfea01100 0xfea011ff 0x40200\n"  # inside a page
    "0xfe000000 0xfe001fff 0x42208\n"  # prefetchable
    "0x0 0x0 0x0\n"
    "0x0 0x0 0x0\n"
    "0xfeb00000 0xfeb00fff 0x46200\n"  # the ROM
)

pytestmark = pytest.mark.usefixtures("nothing_left")


def files(machine: FakeMachine) -> None:
    sizes = {"config": 256, "resource0": 4096, "resource1": 32, "resource2": 4096}
    sizes |= {"resource3": 8192, "resource3_wc": 8192, "rom": 4096, "reset": 0}
    for name, size in sizes.items():
        machine.file(f"{machine.resolve(FOLDER)}/{name}")
        os.truncate(machine.path(f"{FOLDER}/{name}"), size)


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    machine = FakeMachine(tmp_path)
    machine.function(EDU, resource=RESOURCES)
    files(machine)
    return machine


@pytest.fixture
def attempt(machine: FakeMachine) -> Iterator[Callable[[], ResourceDevice]]:
    opened: list[ResourceDevice] = []

    def attempt() -> ResourceDevice:
        opened.append(ResourceDevice(EDU, machine.bus))
        return opened[-1]

    yield attempt
    for device in opened:
        device.close()
        device.close()


Attempt = Callable[[], ResourceDevice]


def command(machine: FakeMachine) -> Command:
    return Command(int.from_bytes(machine.path(f"{FOLDER}/config").read_bytes()[4:6], "little"))


@pytest.mark.parametrize("driver", ["e1000e", "vfio-pci", "uio_pci_generic"])
def test_function_that_a_driver_has(tmp_path: Path, driver: str) -> None:
    machine = FakeMachine(tmp_path)
    machine.function(EDU, driver=driver, resource=RESOURCES)
    files(machine)
    cure = "attach without --via sysfs, or let it go: .*/0000:00:04.0/driver/unbind"
    with pytest.raises(BusyError, match=f"{WHERE}: {driver} has it, and two drivers .*{cure}"):
        ResourceDevice(EDU, machine.bus)
    assert command(machine) == Command()


def test_somebody_has_it(attempt: Attempt) -> None:
    attempt()
    with pytest.raises(BusyError, match=f"{WHERE}: .* has it; close that driver first"):
        attempt()


def test_command_register_is_put_back(machine: FakeMachine, attempt: Attempt) -> None:
    before = Command(serr_enable=True)
    machine.path(f"{FOLDER}/config").write_bytes(bytes(4) + before.raw.to_bytes(252, "little"))
    device = attempt()
    assert command(machine) == before.replace(memory_space_enable=True, io_space_enable=True)
    device.close()
    assert command(machine) == before


def test_ports_stay_off_where_there_are_none(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path)
    machine.function(EDU, resource=RESOURCES.splitlines()[0])
    files(machine)
    device = ResourceDevice(EDU, machine.bus)
    assert command(machine) == Command(memory_space_enable=True)
    device.close()


def test_bars_of_memory_and_of_ports(machine: FakeMachine, attempt: Attempt) -> None:
    device = attempt()
    assert device.bar_sizes == {0: 0x1000, 1: 0x20, 2: 0x100, 3: 0x2000}
    for number in (0, 1):
        window = device.bar(number)
        window.write16(0x10, 0xBEEF)
        assert window.read16(0x10) == 0xBEEF
        window.close()
        assert machine.path(f"{FOLDER}/resource{number}").read_bytes()[0x10:0x12] == b"\xef\xbe"


def test_ports_are_opened_once(attempt: Attempt) -> None:
    device = attempt()
    first, second = device.bar(1), device.bar(1)
    first.close()
    assert second.read8(0) == 0
    second.close()


def test_bar_inside_a_page_shows_its_own_bytes_only(machine: FakeMachine, attempt: Attempt) -> None:
    window = attempt().bar(2)
    window.write32(0, 0x1234_5678)
    assert window.size == 0x100
    window.close()
    content = machine.path(f"{FOLDER}/resource2").read_bytes()
    assert content[0x100:0x104] == b"\x78\x56\x34\x12"
    assert "resource2" not in Path("/proc/self/maps").read_text()


def test_bar_that_is_not_there(attempt: Attempt) -> None:
    with pytest.raises(NoDevice, match=f"{WHERE}: no BAR 5; it has 0, 1, 2, 3"):
        attempt().bar(5)


def test_write_combining_where_the_bar_is_prefetchable(
    machine: FakeMachine, attempt: Attempt
) -> None:
    device = attempt()
    window = device.write_combined(3)
    window.memory()[8] = 9
    window.close()
    assert machine.path(f"{FOLDER}/resource3_wc").read_bytes()[8] == 9
    with pytest.raises(UnsupportedError, match=f"{WHERE} bar 0: .*not prefetchable; use bar"):
        device.write_combined(0)
    machine.path(f"{FOLDER}/resource3_wc").unlink()
    with pytest.raises(UnsupportedError, match=f"{WHERE} bar 3: .*a machine without PAT"):
        device.write_combined(3)


def test_rom_is_switched_on_to_be_read(
    machine: FakeMachine, attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = machine.path(f"{FOLDER}/rom").resolve()
    path.write_bytes(b"\x55\xaa" + bytes(range(256)) * 32)
    real, switched = os.pwrite, []

    def keep(fd: int, data: bytes, offset: int) -> int:
        to_the_rom = Path(f"/proc/self/fd/{fd}").readlink() == path
        switched.extend([data] * to_the_rom)
        return len(data) if to_the_rom else real(fd, data, offset)

    device = attempt()
    assert isinstance(device, HasRom)
    monkeypatch.setattr(os, "pwrite", keep)
    window = device.rom()
    assert (window.size, window.read16(0), window.read8(0x102)) == (8194, 0xAA55, 0)
    assert switched == [b"1", b"0\n"]
    with pytest.raises(UnsupportedError):
        window.write8(0, 1)
    window.close()


def test_function_without_a_rom(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path)
    machine.function(EDU, resource=RESOURCES.splitlines()[0])
    files(machine)
    device = ResourceDevice(EDU, machine.bus)
    with pytest.raises(NoDevice, match=f"{WHERE}: no expansion ROM"):
        device.rom()
    device.close()


def test_rom_that_the_kernel_does_not_read(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    device = attempt()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", fail)
        with pytest.raises(HostError, match=f"{WHERE} rom: .*Input/output error.*55h AAh"):
            device.rom()


def test_ordinary_user_sees_the_header_alone(machine: FakeMachine, attempt: Attempt) -> None:
    os.truncate(machine.path(f"{FOLDER}/config"), 64)
    config = attempt().config
    assert config.size == 64
    assert ConfigHeader(config).command.read().memory_space_enable


@pytest.mark.parametrize(
    ("user", "cure"),
    [(0, "locked down"), (1000, "run it as root, or let root .*bind --user NAME")],
)
def test_files_that_may_not_be_opened(
    machine: FakeMachine,
    attempt: Attempt,
    monkeypatch: pytest.MonkeyPatch,
    user: int,
    cure: str,
) -> None:
    real = os.open

    def refuse(path: object, *rest: int) -> int:
        if str(path).endswith("resource0"):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return real(path, *rest)  # type: ignore[arg-type]

    device = attempt()
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        patch.setattr(os, "geteuid", lambda: user)
        with pytest.raises(HostError, match=f"{WHERE}: cannot open {FOLDER}/resource0: .*{cure}"):
            device.bar(0)


def test_no_interrupts_and_no_dma(attempt: Attempt) -> None:
    device = attempt()
    assert device.irq_counts == {}
    with pytest.raises(UnsupportedError, match=f"{WHERE}: sysfs shows no interrupts: poll"):
        device.irq_line(IrqKind.INTX, 0)
    with pytest.raises(UnsupportedError, match=f"{WHERE}: nobody maps memory for DMA through sys"):
        _ = device.dma


def test_reset_is_the_kernels(machine: FakeMachine, attempt: Attempt) -> None:
    device = attempt()
    assert device.can_reset
    device.reset()
    assert machine.writes == [(f"{FOLDER}/reset", "1")]
    machine.readonly = True  # as for a user who may not
    assert not device.can_reset


def test_driver_that_polls(attempt: Attempt) -> None:
    class Poller(Driver):
        def probe(self) -> None:
            self.device.bar(0).write32(8, 42)

    with attach(attempt(), Poller) as driver:
        assert driver.device.bar(0).read32(8) == 42
        assert driver.device.irq_count == 0
        with pytest.raises(UnsupportedError, match="no interrupts through sysfs: poll instead"):
            driver.device.irq()

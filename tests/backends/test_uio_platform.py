"""A platform device's UIO node: what is found, mapped, counted and refused, on a tree of files."""

from __future__ import annotations

import errno
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.backends.fake_uio import FakeMap, FakeNode, add_uio
from tests.unit.pci.fake_sysfs import EDU, FakeMachine
from uspace_drv import attach, plugins
from uspace_drv.backends import uio_node
from uspace_drv.backends.uio_node import PortRange, UioMap, find_node
from uspace_drv.backends.uio_platform import PlatformIrqLine, UioPlatformDevice
from uspace_drv.driver import Driver
from uspace_drv.errors import (
    BusyError,
    DeviceGone,
    HostError,
    NoDevice,
    NoDriver,
    UnsupportedError,
)
from uspace_drv.pci.ids import UioName
from uspace_drv.plugins import Installed, Plugin
from uspace_drv.port import Backend, HasIdentity, IrqKind

pytestmark = pytest.mark.usefixtures("nothing_left")

PAGE = mmap.PAGESIZE
MAPS = [FakeMap("regs"), FakeMap("ring", PAGE, 0x40), FakeMap("odd", PAGE, 4)]


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    machine = FakeMachine(tmp_path)
    add_uio(machine, 0, "edu", MAPS)
    return machine


@pytest.fixture
def attempt(machine: FakeMachine) -> Iterator[Callable[..., UioPlatformDevice]]:
    opened: list[UioPlatformDevice] = []

    def attempt(name: str = "edu") -> UioPlatformDevice:
        opened.append(UioPlatformDevice(find_node(name, machine), machine))
        return opened[-1]

    yield attempt
    for device in opened:
        device.close()
        device.close()


Attempt = Callable[..., UioPlatformDevice]


def test_is_found_by_name_and_by_node(machine: FakeMachine) -> None:
    add_uio(machine, 10, "pruss_evt", [], device="pruss")
    add_uio(machine, 2, "uio0", [], device="joker")  # a name that is another one's node
    assert [node.node for node in uio_node.uio_nodes(machine)] == ["uio0", "uio2", "uio10"]
    assert find_node("edu", machine) == find_node("uio0", machine)
    assert str(find_node("pruss_evt", machine)) == "uio10 (pruss_evt, pruss)"


def test_unknown_name_lists_what_there_is(machine: FakeMachine) -> None:
    seen = r"uio:eth: no UIO device has this node or name; there are uio0 \(edu, USPC0001:00\)"
    with pytest.raises(NoDevice, match=seen):
        find_node("eth", machine)


def test_no_uio_at_all(tmp_path: Path) -> None:
    with pytest.raises(NoDevice, match="there are none"):
        find_node("uio0", FakeMachine(tmp_path))


def test_two_of_one_name_are_listed(machine: FakeMachine) -> None:
    add_uio(machine, 1, "edu", [], device="USPC0001:01")
    seen = (
        r"uio:edu: 2 UIO devices have this name: uio0 \(edu, USPC0001:00\), "
        r"uio1 \(edu, USPC0001:01\); choose one by its node: uio:uio0"
    )
    with pytest.raises(NoDevice, match=seen):
        find_node("edu", machine)
    assert find_node("uio1", machine).device == "USPC0001:01"


def test_function_of_uio_pci_generic_is_told_apart(machine: FakeMachine) -> None:
    add_uio(machine, 1, "uio_pci_generic", [], device=str(EDU), driver="uio_pci_generic")
    assert find_node("uio1", machine).function == EDU
    assert find_node("uio0", machine).function is None


def test_what_sysfs_says_of_maps_and_ports(machine: FakeMachine, attempt: Attempt) -> None:
    folder = "/sys/class/uio/uio0/portio/port0"
    for name, text in {
        "name": "lpt",
        "start": "0x378",
        "size": "0x3",
        "porttype": "port_x86",
    }.items():
        machine.file(f"{folder}/{name}", f"{text}\n")
    machine.file("/sys/class/uio/uio0/maps/map3/addr", f"{(1 << 64) - 1:#x}\n")
    machine.file("/sys/class/uio/uio0/maps/map3/size", "0x2000\n")
    device = attempt()
    assert device.maps[1] == UioMap("ring", 0xD000_0000, PAGE, 0x40)
    assert device.maps[3] == UioMap("", None, 0x2000, 0)  # the kernel had no memory for it
    assert device.ports == {0: PortRange("lpt", 0x378, 3, "port_x86")}
    assert device.bar_sizes == {0: PAGE, 1: PAGE - 0x40, 2: PAGE - 4, 3: 0x2000}


def test_maps_are_pages_of_the_node(machine: FakeMachine, attempt: Attempt) -> None:
    """Map N is at page N of the node; what the device has of it begins at the offset."""
    device = attempt()
    for number, offset in ((0, 0), (1, 0x40)):
        window = device.bar(number)
        window.write32(0x10, 0xC0FFEE + number)
        assert window.size == PAGE - offset
        window.close()
    content = machine.path("/dev/uio0").read_bytes()
    assert struct.unpack_from("<I", content, 0x10) == (0xC0FFEE,)
    assert struct.unpack_from("<I", content, PAGE + 0x50) == (0xC0FFEF,)


def test_window_keeps_the_mapping_while_it_is_open(attempt: Attempt) -> None:
    window = attempt().bar(0)
    assert "uio0" in Path("/proc/self/maps").read_text()
    window.close()
    assert "uio0" not in Path("/proc/self/maps").read_text()


def test_map_that_begins_anywhere_is_refused(attempt: Attempt) -> None:
    with pytest.raises(UnsupportedError, match="uio:uio0 map 2: begins 0x4 bytes into its page"):
        attempt().bar(2)


def test_map_that_is_not_there(attempt: Attempt) -> None:
    seen = r"uio:uio0: no map 7; it has 0 \(regs\), 1 \(ring\), 2 \(odd\)"
    with pytest.raises(NoDevice, match=seen):
        attempt().bar(7)


def test_kernel_refuses_to_map(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, *_: object, **__: object) -> None:
        os.close(fd)  # python-periphery 2.4.1 forgets it then
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    device = attempt()
    with monkeypatch.context() as patch:
        patch.setattr(mmap, "mmap", refuse)
        with pytest.raises(HostError, match=r"uio:uio0 map 0: cannot open /dev/uio0: .*Invalid"):
            device.bar(0)


def test_node_that_may_not_be_opened(
    machine: FakeMachine, attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuse(path: object, *rest: int) -> int:
        if path == machine.path("/dev/uio0"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(HostError, match=r"cannot open /dev/uio0: Permission.*bind --user NAME"):
        attempt()


def test_node_that_appears_late(
    machine: FakeMachine, attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = machine.path("/dev/uio0")
    aside = node.rename(node.with_name("aside"))
    monkeypatch.setattr(time, "sleep", lambda _: aside.rename(node))
    assert attempt().bar_sizes[0] == PAGE


def test_node_that_never_appears(
    machine: FakeMachine, attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.path("/dev/uio0").unlink()
    monkeypatch.setattr(uio_node, "APPEARS_WITHIN", 0.02)
    with pytest.raises(HostError, match="uio:uio0: cannot open /dev/uio0: No such file"):
        attempt()


def test_somebody_has_it(attempt: Attempt) -> None:
    attempt()
    with pytest.raises(BusyError, match=r"uio:uio0: .* has it; close that driver first"):
        attempt()


def test_what_it_has_not(attempt: Attempt) -> None:
    device = attempt()
    assert (device.config, device.can_reset) == (None, False)
    with pytest.raises(UnsupportedError, match="uio:uio0: UIO maps no memory for the DMA"):
        _ = device.dma
    with pytest.raises(UnsupportedError, match="uio:uio0: UIO knows no reset"):
        device.reset()
    for kind, index in ((IrqKind.MSI, 0), (IrqKind.INTX, 1)):
        with pytest.raises(UnsupportedError, match="one interrupt and no more"):
            device.irq_line(kind, index)


def test_driver_is_found_by_the_name(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    class Teacher(Driver):
        id_table = [UioName("edu")]

    found = [Installed("teacher", "here", Plugin(driver=Teacher), None)]
    monkeypatch.setattr(plugins, "installed_plugins", lambda: found)
    device: Backend = attempt()
    assert isinstance(device, HasIdentity)
    with attach(device) as driver:
        assert isinstance(driver, Teacher)
        assert driver.device.via == "uio"
        driver.device.bar(0).write32(0, 7)
        assert driver.device.bar(0).read32(0) == 7


def test_no_driver_has_the_name(attempt: Attempt) -> None:
    with pytest.raises(NoDriver, match="uio:uio0: no driver for uio edu; tried edu"):
        attach(attempt())


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with FakeNode() as made:
        yield made


def test_interrupts_are_counted_from_when_they_were_switched_on(node: FakeNode) -> None:
    node.fire(5)
    line = PlatformIrqLine("edu", node.fd, 5)
    assert line.take() == 0
    node.fire(7)
    assert (line.take(), line.take(), line.fileno()) == (2, 0, node.fd)


def test_masking_is_a_write_to_the_node(node: FakeNode) -> None:
    line = PlatformIrqLine("edu", node.fd, 0)
    assert node.controls() == [0, 1]
    line.mask()
    line.unmask()
    line.close()
    assert node.controls() == [0, 1, 0]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, int], None]]:
    """Let a call on the node fail with this errno from now on."""

    def set_answer(call: str, number: int) -> None:
        real = getattr(os, call)

        def fail(fd: int, *rest: object) -> object:
            if Path(f"/proc/self/fd/{fd}").readlink().name.startswith(("uio", "socket:")):
                raise OSError(number, os.strerror(number))
            return real(fd, *rest)

        monkeypatch.setattr(os, call, fail)

    yield set_answer
    monkeypatch.undo()


Answer = Callable[[str, int], None]


def test_driver_of_the_kernel_that_quiets_by_itself(node: FakeNode, answer: Answer) -> None:
    answer("write", errno.ENOSYS)  # it has no irqcontrol
    line = PlatformIrqLine("edu", node.fd, 0)
    node.fire(1)
    assert line.take() == 1
    line.unmask()
    with pytest.raises(UnsupportedError, match=r"edu: the kernel.* masks no interrupts"):
        line.mask()
    line.close()


def test_node_of_a_device_that_is_gone(node: FakeNode, answer: Answer) -> None:
    line = PlatformIrqLine("edu", node.fd, 0)
    answer("read", errno.EIO)
    answer("write", errno.EINVAL)
    for call in (line.take, line.mask):
        with pytest.raises(DeviceGone, match="edu: the UIO node answers no more: unbound or"):
            call()
    line.close()


@pytest.mark.parametrize(("number", "counts"), [(errno.EIO, {}), (errno.EAGAIN, {IrqKind.INTX: 1})])
def test_device_without_an_interrupt(
    attempt: Attempt, answer: Answer, number: int, counts: dict[IrqKind, int]
) -> None:
    answer("read", number)
    assert attempt().irq_counts == counts


def test_other_errors_of_the_kernel_come_through(
    node: FakeNode, attempt: Attempt, answer: Answer
) -> None:
    line = PlatformIrqLine("edu", node.fd, 0)
    answer("read", errno.ENOMEM)
    answer("write", errno.ENOMEM)
    for call in (line.take, line.mask, attempt):
        with pytest.raises(OSError, match="Cannot allocate memory"):
            call()

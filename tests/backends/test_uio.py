"""What UIO's backend refuses and says, on a tree of files; the rest needs a kernel."""

from __future__ import annotations

import errno
import gc
import mmap
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends.fake_uio import FakeNode
from tests.unit.pci.fake_sysfs import EDU, FakeMachine
from uspace_drv.backends import physical, uio_node
from uspace_drv.backends.physical import PhysicalMemory
from uspace_drv.backends.uio import UioDevice, UioIrqLine
from uspace_drv.errors import BusyError, DeviceGone, HostError, NoDevice, UnsupportedError
from uspace_drv.huge_pages import HUGE_PAGE
from uspace_drv.native import Window
from uspace_drv.pci.config import ConfigHeader
from uspace_drv.port import Direction, Iova, IrqKind

WHERE = r"^0000:00:04\.0"
RESOURCES = (
    "0xfea00000 0xfea00fff 0x40200\n"  # memory
    "0xc000 0xc01f 0x40101\n"  # I/O ports
    "0xfea01100 0xfea011ff 0x40200\n"  # inside a page
)

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    """edu bound to uio_pci_generic, and no IOMMU."""
    machine = FakeMachine(tmp_path)
    machine.function(EDU, driver="uio_pci_generic", resource=RESOURCES)
    folder = machine.resolve("/sys/bus/pci/devices/0000:00:04.0")
    sizes = {"config": 256, "resource0": 4096, "resource1": 32, "resource2": 4096, "reset": 0}
    for name, size in sizes.items():
        machine.file(f"{folder}/{name}")
        os.truncate(machine.path(f"{folder}/{name}"), size)
    machine.file("/sys/class/uio/uio0/event", "5\n")
    os.truncate(machine.path("/dev/uio0"), 0)
    return machine


@pytest.fixture
def denied(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Errno by path on the machine, of files that cannot be opened."""
    denied: dict[str, int] = {}
    real = os.open

    def open_(path: Any, *rest: Any, **options: Any) -> int:
        for name, number in denied.items():
            if path == machine.path(name):
                raise OSError(number, os.strerror(number), name)
        return real(path, *rest, **options)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(uio_node, "APPEARS_WITHIN", 0.02)
    return denied


@pytest.fixture
def attempt(machine: FakeMachine, denied: dict[str, int]) -> Iterator[Callable[..., UioDevice]]:
    opened: list[UioDevice] = []

    def attempt(**options: bool) -> UioDevice:
        opened.append(UioDevice(EDU, machine.bus, **options))
        return opened[-1]

    yield attempt
    for device in opened:
        device.close()
        device.close()


Attempt = Callable[..., UioDevice]


@pytest.mark.parametrize(
    ("driver", "bound"), [("e1000e", "bound to e1000e"), (None, "bound to no driver")]
)
def test_function_that_is_not_bound(tmp_path: Path, driver: str | None, bound: str) -> None:
    machine = FakeMachine(tmp_path)
    machine.function(EDU, driver=driver)
    cure = "run: uspace bind 0000:00:04.0 --driver uio_pci_generic"
    with pytest.raises(HostError, match=f"{WHERE}: {bound}, not to uio_pci_generic; {cure}"):
        UioDevice(EDU, machine.bus)


@pytest.mark.parametrize(
    ("path", "number", "said"),
    [
        ("/dev/uio0", errno.EACCES, "Permission denied; run it as root, or let root"),
        ("/dev/uio0", errno.ENOENT, "No such file or directory"),
        ("/sys/bus/pci/devices/0000:00:04.0/config", errno.EACCES, "Permission denied; run it as"),
    ],
)
def test_node_that_cannot_be_opened(
    attempt: Attempt, denied: dict[str, int], path: str, number: int, said: str
) -> None:
    denied[path] = number
    with pytest.raises(HostError, match=f"{WHERE}: cannot open {path}: {said}"):
        attempt()


def test_somebody_has_it(attempt: Attempt) -> None:
    attempt()
    with pytest.raises(BusyError, match="has it; close that driver first"):
        attempt()


def test_bars_of_memory_and_of_ports(machine: FakeMachine, attempt: Attempt) -> None:
    device = attempt()
    assert device.bar_sizes == {0: 0x1000, 1: 0x20, 2: 0x100}
    for number, place in ((0, 0x10), (1, 0x10), (2, 0x110)):
        window = device.bar(number)
        window.write32(0x10, 7 + number)
        assert window.read32(0x10) == 7 + number
        window.close()
        file = machine.path(f"/sys/bus/pci/devices/0000:00:04.0/resource{number}")
        assert file.read_bytes()[place] == 7 + number
    with pytest.raises(NoDevice, match=f"{WHERE}: no BAR 3; it has 0, 1, 2"):
        device.bar(3)


def test_node_that_appears_late(
    machine: FakeMachine, attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = machine.path("/dev/uio0")
    aside = node.rename(node.with_name("aside"))
    monkeypatch.setattr(time, "sleep", lambda _: aside.rename(node))
    assert attempt().bar_sizes[0] == 0x1000


def test_what_sysfs_has_besides(attempt: Attempt) -> None:
    device = attempt()
    with pytest.raises(NoDevice, match=f"{WHERE}: no expansion ROM"):
        device.rom()
    with pytest.raises(UnsupportedError, match=f"{WHERE} bar 0: no write-combining"):
        device.write_combined(0)


def test_memory_and_ports_are_switched_on(attempt: Attempt) -> None:
    command = ConfigHeader(attempt().config).command.read()
    assert command.memory_space_enable
    assert command.io_space_enable


def test_dma_needs_the_opt_in(attempt: Attempt) -> None:
    expected = r"no IOMMU to stop a wrong address .*unsafe_dma_without_iommu=True \(--unsafe"
    with pytest.raises(UnsupportedError, match=f"{WHERE}: .*{expected}"):
        _ = attempt().dma


@pytest.mark.parametrize("unsafe", [False, True])
def test_dma_is_refused_where_an_iommu_translates(
    machine: FakeMachine, attempt: Attempt, unsafe: bool
) -> None:
    machine.group(EDU, 14, "DMA-FQ")
    expected = (
        r": an IOMMU translates what it addresses \(group 14, type DMA-FQ\).*"
        r"Use VFIO: uspace bind 0000:00:04\.0 --driver vfio-pci"
    )
    with pytest.raises(UnsupportedError, match=WHERE + expected):
        _ = attempt(unsafe_dma_without_iommu=unsafe).dma


@pytest.mark.parametrize("group", [None, "identity"])
def test_dma_with_the_opt_in(machine: FakeMachine, attempt: Attempt, group: str | None) -> None:
    if group:
        machine.group(EDU, 14, group)
    dma = attempt(unsafe_dma_without_iommu=True).dma
    assert (dma.ranges, dma.page_size) == (None, 4096)


def test_one_intx_and_no_more(attempt: Attempt) -> None:
    device = attempt()
    assert device.irq_counts == {IrqKind.INTX: 1}
    for kind, index in ((IrqKind.MSI, 0), (IrqKind.INTX, 1)):
        with pytest.raises(UnsupportedError, match=f"{WHERE}: UIO has one INTx and no more"):
            device.irq_line(kind, index)


def test_reset(machine: FakeMachine, attempt: Attempt) -> None:
    device = attempt()
    assert device.can_reset
    device.reset()
    assert machine.writes[-1] == ("/sys/bus/pci/devices/0000:00:04.0/reset", "1")


class Node:
    """A UIO node and the device's command register, in which the kernel masks INTx."""

    def __init__(self, node: FakeNode) -> None:
        self.node = node
        self.fire = node.fire
        self.memory = bytearray(256)
        self.command = ConfigHeader(Window.over_buffer("edu config", self.memory)).command

    def line(self, total: int = 5) -> UioIrqLine:
        window = Window.over_buffer("edu config", self.memory)
        return UioIrqLine("edu", self.node.fd, total, window)

    @property
    def is_masked(self) -> bool:
        return self.command.read().interrupt_disable


@pytest.fixture
def node() -> Iterator[Node]:
    with FakeNode() as made:
        yield Node(made)


def test_interrupts_are_counted_from_when_they_were_switched_on(node: Node) -> None:
    node.fire(5)
    line = node.line()
    assert line.take() == 0
    node.fire(7)
    assert (line.take(), line.take()) == (2, 0)


def test_an_interrupt_while_it_is_switched_on_is_not_counted(node: Node) -> None:
    node.fire(6)  # after the file `event` said 5
    line = node.line(total=5)
    node.fire(7)
    assert line.take() == 1


def test_the_kernels_counter_wraps(node: Node) -> None:
    line = node.line(total=0xFFFF_FFFF)
    node.fire(1)
    assert line.take() == 2


def test_masking_is_a_bit_of_the_command_register(node: Node) -> None:
    line = node.line()
    seen = [node.is_masked]
    line.mask()
    seen.append(node.is_masked)
    line.unmask()
    seen.append(node.is_masked)
    line.close()
    seen.append(node.is_masked)
    assert seen == [False, True, False, True]


def test_node_of_a_device_that_is_gone(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    line = node.line()

    def fail(*_: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "read", fail)
        with pytest.raises(DeviceGone, match="edu: the UIO node answers no more: unbound or"):
            line.take()


def test_more_than_a_huge_page() -> None:
    with pytest.raises(UnsupportedError, match="bell: 0x200001 bytes without an IOMMU need adj"):
        PhysicalMemory("bell").memory(HUGE_PAGE + 1, 1 << 40)


def test_memory_that_the_kernel_may_move() -> None:
    with pytest.raises(UnsupportedError, match=r"only memory from dma\.alloc\(\) can be mapped"):
        PhysicalMemory("bell").map(0x1000, 0x1000, None, Direction.BOTH)


def test_physical_addresses_are_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pages = physical.PhysicalMemory("bell")
    page = mmap.mmap(-1, mmap.PAGESIZE)
    monkeypatch.setattr(pages, "_huge_page", lambda *_: page)
    monkeypatch.setattr(physical, "PAGEMAP", str(tmp_path / "pagemap"))  # as if one may not open it
    with pytest.raises(HostError, match=r"bell: the kernel does not show .* run it as root"):
        pages.memory(0x1000, 1 << 40)


def test_unmap_has_nothing_to_do() -> None:
    PhysicalMemory("bell").unmap(Iova(0x1000), 0x1000)


def test_no_huge_page_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_free(*_: int) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(mmap, "mmap", none_free)
    with pytest.raises(HostError, match=r"bell: no huge page of 2 MiB is free; run: .*nr_huge"):
        PhysicalMemory("bell").memory(4096, 1 << 40)


def test_a_huge_page_that_only_a_driver_that_was_left_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Left:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            free.append(page)

    def claim(*_: int) -> mmap.mmap:
        if not free:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return free.pop()

    page = mmap.mmap(-1, mmap.PAGESIZE)
    free: list[mmap.mmap] = []
    pages = PhysicalMemory("bell")
    monkeypatch.setattr(pages, "_physical", lambda *_: 0)
    gc.disable()
    try:
        Left()
        with monkeypatch.context() as patched:
            patched.setattr(mmap, "mmap", claim)
            assert pages.memory(4096, 1 << 40) is page
    finally:
        gc.enable()

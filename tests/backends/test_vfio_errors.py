"""What VFIO's backend makes of a kernel's answers: errors with their cure, nothing left open."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.backends.fake_vfio import FakeVfio, iommu_info, open_vfio
from tests.unit.pci.fake_sysfs import EDU, FakeMachine
from uspace_drv.backends.vfio import VfioDevice, container, nodes, uapi
from uspace_drv.backends.vfio.uapi import Request, Type1Request
from uspace_drv.device import Device
from uspace_drv.errors import (
    BusyError,
    DeviceError,
    DeviceGone,
    HostError,
    UnsupportedError,
)
from uspace_drv.pci.address import PciAddress
from uspace_drv.port import Direction, IrqKind
from uspace_drv.vfio_numbers import DeviceFlag, IrqAction, IrqFlag, IrqIndex

SIBLING = PciAddress(0, 0, 4, 1)
WHERE = r"^0000:00:04\.0: "

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    """edu bound to vfio-pci, in group 14."""
    machine = FakeMachine(tmp_path)
    machine.function(EDU, driver="vfio-pci", group=14)
    return machine


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeVfio:
    monkeypatch.setattr(nodes, "SETTLE_TIMEOUT", 0.0)
    return FakeVfio(monkeypatch)


@pytest.fixture
def backend(machine: FakeMachine, kernel: FakeVfio) -> Iterator[VfioDevice]:
    backend = open_vfio(EDU, machine.bus)
    yield backend
    backend.close()


@pytest.fixture
def device(backend: VfioDevice) -> Iterator[Device]:
    device = Device(backend)
    yield device
    device.close()


def refused(machine: FakeMachine, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=WHERE + text):
        open_vfio(EDU, machine.bus)


@pytest.mark.parametrize(
    ("driver", "bound"), [("e1000e", "bound to e1000e"), (None, "bound to no driver")]
)
def test_function_that_is_not_bound(tmp_path: Path, driver: str | None, bound: str) -> None:
    machine = FakeMachine(tmp_path)
    machine.function(EDU, driver=driver, group=14)
    refused(machine, HostError, f"{bound}, not to vfio-pci; run: uspace bind 0000:00:04.0")


def test_function_that_is_not_bound_where_no_iommu_is(tmp_path: Path) -> None:
    """`uspace bind` would bind it to UIO, and the next try would say the same again."""
    machine = FakeMachine(tmp_path)
    machine.function(EDU, driver="uio_pci_generic")
    refused(
        machine, HostError, "bound to uio_pci_generic, not to vfio-pci; there is no IOMMU here;"
    )


def test_function_without_a_group(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path)
    machine.function(EDU, driver="vfio-pci")
    refused(machine, HostError, "no IOMMU group: switch the IOMMU on .*intel_iommu=on")


@pytest.mark.parametrize(
    ("number", "error", "text"),
    [
        (
            errno.ENOENT,
            HostError,
            "cannot open /dev/vfio/14: No such file or directory; a container must be given",
        ),
        (
            errno.EACCES,
            HostError,
            f"cannot open .*denied; run: sudo chown {os.getuid()} /dev/vfio/14",
        ),
        (errno.EBUSY, BusyError, "/dev/vfio/14 is open already, in another process or here"),
    ],
)
def test_node_of_the_group(
    machine: FakeMachine, kernel: FakeVfio, number: int, error: type[Exception], text: str
) -> None:
    kernel.missing["/dev/vfio/14"] = number
    refused(machine, error, text)


@pytest.mark.parametrize(
    ("number", "cure"),
    [(errno.ENOENT, "sudo modprobe vfio-pci"), (errno.EACCES, "sudo chmod 666 /dev/vfio/vfio")],
)
def test_node_of_the_container(
    machine: FakeMachine, kernel: FakeVfio, number: int, cure: str
) -> None:
    kernel.missing["/dev/vfio/vfio"] = number
    with pytest.raises(HostError, match=WHERE + f"cannot open .*; run: {cure}$") as caught:
        open_vfio(EDU, machine.bus)
    assert (caught.value.errno, caught.value.filename) == (number, "/dev/vfio/vfio")


def test_group_that_is_not_viable_names_the_sibling(machine: FakeMachine, kernel: FakeVfio) -> None:
    machine.function(SIBLING, driver="snd_hda_intel", group=14)
    kernel.group_flags = uapi.GroupFlag(0)
    shared = r"IOMMU group 14 is shared with 0000:00:04\.1 \(snd_hda_intel\)"
    refused(machine, HostError, rf"{shared}, .*; run: uspace bind 0000:00:04\.1$")


def test_group_that_a_bridge_keeps_says_how_to_free_it(
    machine: FakeMachine, kernel: FakeVfio
) -> None:
    machine.file(f"{machine.function(SIBLING, driver='shpchp', group=14)}/class", "0x060400\n")
    kernel.group_flags = uapi.GroupFlag(0)
    unbind = r"/sys/bus/pci/devices/0000:00:04\.1/driver/unbind"
    refused(machine, HostError, rf".*; run: echo 0000:00:04\.1 \| sudo tee {unbind}$")


@pytest.mark.parametrize("driver", [None, "pcieport", "vfio-pci"])
def test_harmless_siblings_are_not_blamed(
    machine: FakeMachine, kernel: FakeVfio, driver: str | None
) -> None:
    machine.function(SIBLING, driver=driver, group=14)
    kernel.group_flags = uapi.GroupFlag(0)
    refused(machine, HostError, "IOMMU group 14 is shared with a device of the host")


def test_another_process_has_it(machine: FakeMachine, backend: VfioDevice) -> None:
    refused(machine, BusyError, r".* has it; close that driver first")


def test_kernel_of_another_age(machine: FakeMachine, kernel: FakeVfio) -> None:
    kernel.version = 1
    with pytest.raises(UnsupportedError, match="/dev/vfio/vfio: VFIO version 1; expected 0"):
        open_vfio(EDU, machine.bus)


def test_kernel_without_type1(machine: FakeMachine, kernel: FakeVfio) -> None:
    kernel.has_type1 = False
    refused(machine, UnsupportedError, ".*no type1v2 IOMMU; run: sudo modprobe vfio_iommu_type1")


def test_no_interrupt_remapping(machine: FakeMachine, kernel: FakeVfio) -> None:
    kernel.fails[Request.SET_IOMMU.name] = errno.EPERM
    refused(machine, HostError, "the IOMMU cannot remap interrupts.*allow_unsafe_interrupts=1")


@pytest.mark.parametrize("request_", [*Request, *Type1Request])
def test_whatever_fails_leaves_nothing_open(
    machine: FakeMachine, kernel: FakeVfio, request_: Request | Type1Request
) -> None:
    kernel.fails[request_.name] = errno.EINVAL
    try:
        open_vfio(EDU, machine.bus).close()
    except HostError as error:
        assert f"VFIO_{request_.name}: Invalid argument" in str(error)  # noqa: PT017


@pytest.mark.parametrize("number", [errno.ENODEV, errno.EIO])
def test_device_that_the_kernel_lost(device: Device, kernel: FakeVfio, number: int) -> None:
    kernel.fails[Request.DEVICE_RESET.name] = number
    with pytest.raises(DeviceGone, match=WHERE + "VFIO_DEVICE_RESET: "):
        device.reset()


def test_too_little_lockable_memory(
    device: Device, kernel: FakeVfio, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.dma.alloc(np.uint8, 0x2000)
    kernel.fails[Type1Request.IOMMU_MAP_DMA.name] = errno.ENOMEM
    monkeypatch.setattr(resource, "getrlimit", lambda _: (0x3000, 0x3000))
    monkeypatch.setattr(container, "locked_memory", lambda: 0x2000)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)  # root is not held to it
    expected = (
        r"cannot map 0x4000 bytes for DMA: that makes 0x6000 bytes, and this process may lock "
        rf"0x3000 \(RLIMIT_MEMLOCK\); run: sudo prlimit --pid {os.getpid()} --memlock=24576"
    )
    with pytest.raises(HostError, match=WHERE + expected) as caught:
        device.dma.alloc(np.uint8, 0x4000)
    assert caught.value.errno == errno.ENOMEM


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOMEM, "the machine has too little free memory to pin"),
        (errno.ENOSPC, r".*vfio_iommu_type1\.dma_entry_limit"),
        (errno.EEXIST, ".*VFIO_IOMMU_MAP_DMA: File exists"),
    ],
)
def test_mapping_that_the_kernel_refuses(
    device: Device, kernel: FakeVfio, monkeypatch: pytest.MonkeyPatch, number: int, text: str
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    kernel.fails[Type1Request.IOMMU_MAP_DMA.name] = number
    with pytest.raises(HostError, match=f"cannot map 0x1000 bytes for DMA: {text}"):
        device.dma.alloc(np.uint8)


def test_limits_of_the_iommu_are_read(machine: FakeMachine, kernel: FakeVfio) -> None:
    kernel.iommu_info = iommu_info([(0, 0x1FFF), (0x8000, 0x9FFF)], avail=2)
    backend = open_vfio(EDU, machine.bus)
    dma = Device(backend).dma
    assert [dma.alloc(np.uint8).iova, dma.alloc(np.uint8).iova] == [0x1000, 0x8000]
    with pytest.raises(HostError, match="the kernel allows 2"):
        dma.alloc(np.uint8)
    dma.close()
    backend.close()


def test_old_kernel_says_nothing_of_ranges(machine: FakeMachine, kernel: FakeVfio) -> None:
    kernel.iommu_info = bytes(24)
    backend = open_vfio(EDU, machine.bus)
    ranges = backend.dma.ranges
    assert ranges is not None
    assert [(each.start, each.end) for each in ranges] == [(0, 0xFEDF_FFFF)]
    backend.close()


@pytest.mark.parametrize(
    ("direction", "flags"),
    [(Direction.TO_DEVICE, 1), (Direction.FROM_DEVICE, 2), (Direction.BOTH, 3)],
)
def test_directions(device: Device, kernel: FakeVfio, direction: Direction, flags: int) -> None:
    buffer = device.dma.alloc(np.uint8, 1, direction)
    assert kernel.mapped == {0x1000: (0x1000, flags)}
    buffer.close()
    assert kernel.mapped == {}


def test_unmap_of_less_than_all(device: Device, kernel: FakeVfio) -> None:
    buffer = device.dma.alloc(np.uint8)
    kernel.mapped.clear()
    with pytest.raises(DeviceError, match="unmapped 0x0 of 0x1000 bytes at 0x1000"):
        buffer.close()


ON = IrqAction.DATA_EVENTFD | IrqAction.TRIGGER
OFF = IrqAction.DATA_NONE | IrqAction.TRIGGER


def test_interrupts_are_switched_on_and_off_one_by_one(device: Device, kernel: FakeVfio) -> None:
    device.irq(0)
    device.irq(2)
    device.irq(1).close()
    device.close()
    msi = IrqIndex.MSI
    assert kernel.signals == [
        (msi, ON, 0, [1]),
        (msi, ON, 2, [1]),
        (msi, ON, 1, [1]),
        (msi, ON, 1, [-1]),
        (msi, ON, 2, [-1]),
        (msi, OFF, 0, []),
    ]


def test_fixed_set_of_vectors_is_made_anew(machine: FakeMachine, kernel: FakeVfio) -> None:
    kernel.irq_flags |= IrqFlag.NORESIZE
    backend = open_vfio(EDU, machine.bus)
    device = Device(backend)
    device.irq(1)
    device.irq(0)
    device.irq(3)
    kinds = [(flags, fds) for _, flags, _, fds in kernel.signals]
    assert kinds == [(ON, [-1, 1]), (ON, [1]), (OFF, []), (ON, [1, 1, -1, 1])]
    device.close()
    backend.close()


def test_fewer_vectors_than_asked_for_is_an_error(device: Device, kernel: FakeVfio) -> None:
    """The kernel then answers how many there are, and switches on none."""
    kernel.vectors_to_be_had = 1
    with pytest.raises(HostError, match=r"1 of 3 msi vectors can be had; use fewer interrupts"):
        device.irq(2)
    assert device.irq(0).poll() == 0


def test_vectors_survive_one_that_cannot_be_added(machine: FakeMachine, kernel: FakeVfio) -> None:
    kernel.irq_flags |= IrqFlag.NORESIZE
    backend = open_vfio(EDU, machine.bus)
    device = Device(backend)
    device.irq(0)
    kernel.vectors_to_be_had = 1
    with pytest.raises(HostError, match="1 of 3 msi vectors"):
        device.irq(2)
    assert kernel.signals[-1][1:] == (ON, 0, [1])
    device.close()
    backend.close()


def test_interrupt_that_cannot_be_switched_on(device: Device, kernel: FakeVfio) -> None:
    kernel.fails[Request.DEVICE_SET_IRQS.name] = errno.ENOSPC
    with pytest.raises(HostError, match="VFIO_DEVICE_SET_IRQS: No space left"):
        device.irq(0)
    kernel.fails.clear()
    assert device.irq(0).poll() == 0


def test_messages_cannot_be_masked_and_levels_can(backend: VfioDevice, kernel: FakeVfio) -> None:
    line = backend.irq_line(IrqKind.MSI, 0)
    line.unmask()
    with pytest.raises(UnsupportedError, match="VFIO cannot mask msi; INTx can be masked"):
        line.mask()
    with pytest.raises(BusyError, match=r"0000:00:04\.0: msi 0 is on already"):
        backend.irq_line(IrqKind.INTX, 0)
    line.close()
    level = backend.irq_line(IrqKind.INTX, 0)
    level.mask()
    level.unmask()
    flags = [flags for _, flags, _, _ in kernel.signals[-2:]]
    assert flags == [IrqAction.DATA_NONE | IrqAction.MASK, IrqAction.DATA_NONE | IrqAction.UNMASK]
    level.close()
    level.close()


def test_parts_of_the_device(device: Device, backend: VfioDevice, kernel: FakeVfio) -> None:
    assert device.bar_sizes == {0: 0x1000}
    device.bar(0).write32(0x10, 5)
    assert device.bar(0).read32(0x10) == 5
    assert device.config.read32(0x10) == 0
    assert backend.irq_counts == {IrqKind.INTX: 1, IrqKind.MSI: 4}
    device.reset()
    assert kernel.resets == 1


def test_device_without_a_reset(machine: FakeMachine, kernel: FakeVfio) -> None:
    kernel.device_flags = DeviceFlag.PCI
    backend = open_vfio(EDU, machine.bus)
    assert not backend.can_reset
    backend.close()
    backend.close()

"""What only a real kernel's VFIO can show. Runs in the guest, on QEMU's edu device, by each way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from uspace_drivers.edu import Edu, EduModel
from uspace_drv import BusyError, Direction, HostError, UnsupportedError, attach
from uspace_drv.backends.vfio import VfioDevice
from uspace_drv.backends.vfio.ways import nodes_of
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.binding import UIO, VFIO, bind, restore
from uspace_drv.pci.capabilities import capabilities
from uspace_drv.pci.config import ConfigHeader
from uspace_drv.pci.sysfs import IommuGroup, PciBus, PciFunction
from uspace_drv.port import IrqKind, Window
from uspace_drv.testing import Target

pytestmark = pytest.mark.via("vfio")

NOBODY = 65534


@pytest.fixture
def address(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--device"))


@pytest.fixture
def target(request: pytest.FixtureRequest) -> Target:
    """The device, by the way that the run is about."""
    option = request.config.getoption
    unsafe = option("--unsafe-dma-without-iommu")
    return Target(None, option("--device"), option("--via"), None, unsafe)


@pytest.fixture
def edu(target: Target) -> Iterator[Edu]:
    with target.attach(Edu) as driver:
        yield driver


@pytest.fixture
def iommu(address: str) -> IommuGroup:
    """The device's group, for tests of what an IOMMU does."""
    group = PciBus().function(address).group
    if group is None or group.is_noiommu:
        pytest.skip("the machine has no IOMMU")
    return group


with_iommu = pytest.mark.usefixtures("iommu")


def find_function(vendor: int, device: int) -> PciFunction:
    functions = PciBus().functions()
    return next(f for f in functions if (f.ids.vendor, f.ids.device) == (vendor, device))


def test_matches_the_installed_driver(target: Target) -> None:
    with attach(target.open()) as driver:
        assert isinstance(driver, Edu)
        assert target.via in {"vfio", driver.device.via}
        assert driver.device.irq_kind is IrqKind.MSI


def test_bus_master_is_on_only_while_attached(target: Target) -> None:
    with target.attach(Edu) as driver:
        assert ConfigHeader(driver.device.config).command.read().bus_master_enable
    backend = target.open()
    assert backend.config is not None
    assert not ConfigHeader(backend.config).command.read().bus_master_enable
    backend.close()


@with_iommu
def test_iovas_lie_in_the_reach_of_the_device(edu: Edu) -> None:
    buffers = [edu.device.dma.alloc(np.uint8, 3 * 4096) for _ in range(8)]
    ends = [buffer.iova + 3 * 4096 for buffer in buffers]
    assert max(ends) <= 1 << edu.dma_bits
    assert all(end <= buffer.iova for end, buffer in zip(ends, buffers[1:], strict=False))


@with_iommu
def test_the_iommu_stops_the_device_after_close(edu: Edu) -> None:
    """The device writes to where memory was: the array, ordinary memory by now, keeps its zeros."""
    edu.store(b"\xaa" * 64)
    buffer = edu.device.dma.alloc(np.uint8, 64, Direction.FROM_DEVICE)
    iova, array = buffer.iova, buffer.array
    buffer.close()
    edu.registers.dma_source.write(0x40000)
    edu.registers.dma_destination.write(iova)
    edu.registers.dma_count.write(64)
    edu.registers.dma_command.write(run=True, to_memory=True)
    edu.registers.dma_command.wait(run=False, timeout=5.0)
    assert not array.any()


@with_iommu
def test_read_only_memory_is_not_written(edu: Edu) -> None:
    edu.store(b"\xbb" * 64)
    with edu.device.dma.alloc(np.uint8, 64, Direction.TO_DEVICE) as buffer:
        edu.registers.dma_source.write(0x40000)
        edu.registers.dma_destination.write(buffer.iova)
        edu.registers.dma_count.write(64)
        edu.registers.dma_command.write(run=True, to_memory=True)
        edu.registers.dma_command.wait(run=False, timeout=5.0)
        assert not buffer.array.any()


@with_iommu
def test_the_same_array_is_mapped_again(edu: Edu) -> None:
    buffer = edu.device.dma.alloc(np.uint32, 16)
    buffer.array[:] = 7
    buffer.close()
    with edu.device.dma.map(buffer.array) as again:
        assert again.array.sum() == 7 * 16


def test_a_second_attach_is_refused(address: str, target: Target) -> None:
    with target.attach(Edu), pytest.raises(BusyError, match=rf"{address}: process \d+ .* has it"):
        target.attach(Edu)


def test_binding_is_refused_while_attached(address: str, target: Target) -> None:
    with target.attach(Edu), pytest.raises(BusyError, match="has it"):
        restore(PciAddress.parse(address))


def test_unbound_function_says_how_to_bind(address: str, target: Target) -> None:
    restore(PciAddress.parse(address))
    try:
        with pytest.raises(HostError, match=rf"not to vfio-pci; run: uspace bind {address}"):
            target.attach(Edu)
    finally:
        bind(PciAddress.parse(address), VFIO)


@with_iommu
def test_uio_refuses_dma_while_the_iommu_translates(address: str) -> None:
    where = PciAddress.parse(address)
    bind(where, UIO)
    try:
        with attach(address, Edu, unsafe_dma_without_iommu=True) as edu:
            assert edu.device.via == "uio"
            assert edu.factorial(5) == 120  # registers and INTx work all the same
            with pytest.raises(UnsupportedError, match=r"an IOMMU translates .* Use VFIO"):
                edu.store(b"x")
    finally:
        bind(where, VFIO)


@with_iommu
def test_group_that_is_not_viable_names_the_sibling() -> None:
    """Two functions behind one conventional bridge share a group; the kernel keeps one."""
    sibling = find_function(0x8086, 0x100E)
    assert sibling.driver == "e1000"
    assert sibling.group is not None
    member = next(f for f in sibling.group.members if PciBus().function(f).ids.vendor == 0x1234)
    binding = bind(member, VFIO)
    try:
        assert any(str(sibling.address) in note for note in binding.notes)
        with pytest.raises(HostError, match=rf"is shared with .*{sibling.address} \(e1000\)"):
            attach(str(member), Edu)
    finally:
        restore(member)


@with_iommu
def test_restore_brings_the_kernel_driver_back() -> None:
    sibling = find_function(0x8086, 0x100E)
    bind(sibling.address, VFIO)
    assert PciBus().function(sibling.address).driver == VFIO
    restore(sibling.address)
    after = PciBus().function(sibling.address)
    assert (after.driver, after.driver_override) == ("e1000", None)


@pytest.fixture
def as_nobody(tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Run Python in a process without any rights.

    It imports first: nobody may not even read where a developer's Python is installed.
    """
    lock_down = textwrap.dedent(f"""
        import os, resource
        import numpy
        from uspace_drv import attach
        from uspace_drv.plugins import installed_plugins
        installed_plugins()
        os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
    """)

    def run(code: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", lock_down + textwrap.dedent(code)],
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )

    return run


@pytest.fixture
def nodes(address: str, target: Target) -> Iterator[None]:
    """The nodes that the way takes, owned by nobody for the test."""
    with closing(target.open()) as backend:
        way = backend.via
    paths = [Path(path) for path in nodes_of(PciBus().function(address))[way]]
    owners = [path.stat() for path in paths]
    for path in paths:
        os.chown(path, NOBODY, NOBODY)
    yield
    for path, owner in zip(paths, owners, strict=True):
        os.chown(path, owner.st_uid, owner.st_gid)


@with_iommu
def test_no_permission_on_the_node(
    address: str, target: Target, as_nobody: Callable[[str], subprocess.CompletedProcess[str]]
) -> None:
    ran = as_nobody(f"attach('{address}', via='{target.via}')")
    assert "Permission denied; run: sudo chown 65534 /dev/vfio/" in ran.stderr


@with_iommu
def test_ordinary_user_needs_only_the_node(
    address: str,
    target: Target,
    nodes: None,
    as_nobody: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    ran = as_nobody(f"""
        with attach('{address}', via='{target.via}') as edu:
            edu.self_test()
            print(edu.factorial(6))
    """)
    assert (ran.stdout, ran.stderr) == ("720\n", "")


@with_iommu
def test_too_little_lockable_memory(
    address: str,
    target: Target,
    nodes: None,
    as_nobody: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    ran = as_nobody(f"""
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 16, 1 << 16))
        with attach('{address}', via='{target.via}') as edu:
            edu.device.dma.alloc('u1', 1 << 16).close()
            edu.device.dma.alloc('u1', 1 << 20)
    """)
    assert "may lock 0x10000 " in ran.stderr
    assert "(RLIMIT_MEMLOCK)" in ran.stderr
    assert "sudo prlimit --pid" in ran.stderr


KILLED = """
    import time
    from uspace_drv import attach
    from uspace_drivers.edu import Edu
    class Telling(Edu):
        def remove(self):
            print('left', flush=True)
            super().remove()
    attachment = attach({address!r}, Telling, via={via!r}, unsafe_dma_without_iommu={unsafe!r})
    buffer = attachment.driver.device.dma.alloc('u1', 1 << 16)
    print('ready', flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("end", "last_words"),
    [(signal.SIGKILL, b""), (signal.SIGTERM, b"left\n"), (signal.SIGINT, b"left\n")],
)
def test_a_killed_process_leaves_the_device_free(
    target: Target, end: signal.Signals, last_words: bytes
) -> None:
    code = textwrap.dedent(KILLED).format(
        address=target.address, via=target.via, unsafe=target.unsafe_dma_without_iommu
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(end)
        assert process.stdout.read() == last_words
        process.wait(30)
    with target.attach(Edu) as edu:
        assert edu.factorial(4) == 24


def test_interrupts_are_those_of_the_model(target: Target) -> None:
    backend = target.open()
    assert dict(backend.irq_counts) == dict(EduModel.irqs)
    assert backend.bar_sizes == {0: EduModel.bars[0].size}
    backend.close()


@pytest.fixture
def rng(target: Target) -> Iterator[VfioDevice]:
    """QEMU's virtio-rng: two MSI-X vectors and a function-level reset, which edu does not have."""
    cards = [f for f in PciBus().functions() if (f.ids.vendor, f.ids.device) == (0x1AF4, 0x1044)]
    function = next(
        card for card in cards if card.address.bus
    )  # the one on the root bus has no reset
    bind(function.address, VFIO)
    backend = replace(target, address=str(function.address)).open()
    assert isinstance(backend, VfioDevice)
    yield backend
    backend.close()
    restore(function.address)


def fire(backend: VfioDevice, index: int) -> None:
    """Let the kernel signal a vector, as if the device had."""
    backend.trigger(IrqKind.MSIX, [index])


def test_each_vector_signals_its_own_line(rng: VfioDevice) -> None:
    assert rng.irq_counts[IrqKind.MSIX] == 2
    lines = [rng.irq_line(IrqKind.MSIX, index) for index in (1, 0)]  # one allocation for both
    for index, line in zip((1, 0), lines, strict=True):
        fire(rng, index)
        assert [each.take() for each in lines] == [int(each is line) for each in lines]
    for line in lines:
        line.close()


def test_vectors_that_are_on_stay_on_when_more_are_asked_for(rng: VfioDevice) -> None:
    first = rng.irq_line(IrqKind.MSIX, 0)
    second = rng.irq_line(IrqKind.MSIX, 1)
    fire(rng, 0)
    fire(rng, 1)
    assert (first.take(), second.take()) == (1, 1)
    second.close()
    fire(rng, 0)
    assert first.take() == 1
    again = rng.irq_line(IrqKind.MSIX, 1)
    fire(rng, 1)
    assert again.take() == 1
    first.close()
    again.close()


def test_a_vector_too_many_leaves_the_others_on(rng: VfioDevice) -> None:
    line = rng.irq_line(IrqKind.MSIX, 0)
    with pytest.raises(HostError, match="SET_IRQS"):
        rng.irq_line(IrqKind.MSIX, 5000)
    fire(rng, 0)
    assert line.take() == 1
    line.close()


def common_configuration(config: Window) -> tuple[int, int]:
    """BAR and offset (Virtio 1.2, section 4.1.4: cfg_type at 3, bar at 4, offset at 8)."""
    places = [each.offset for each in capabilities(config) if each.id == 9]  # vendor-specific
    place = next(place for place in places if config.read8(place + 3) == 1)
    return config.read8(place + 4), config.read32(place + 8)


def test_function_level_reset(rng: VfioDevice) -> None:
    """Virtio 1.2, section 4.1.4.3: the device status is 0 after a reset."""
    number, offset = common_configuration(rng.config)
    status = offset + 20
    with closing(rng.bar(number)) as bar:
        bar.write8(status, 1)
        assert bar.read8(status) == 1
        assert rng.can_reset
        rng.reset()
        assert bar.read8(status) == 0

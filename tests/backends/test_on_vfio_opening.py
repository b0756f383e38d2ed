"""The ways into a device through VFIO, on a real kernel. Runs in the guest, on an edu device."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from uspace_drivers.edu import Edu
from uspace_drv import Direction, HostError, UnsupportedError, attach
from uspace_drv.backends.vfio import WAYS, Handover, Options, VfioDevice, resume
from uspace_drv.backends.vfio.ways import nodes_of
from uspace_drv.errors import DeviceError
from uspace_drv.iommufd import Iommufd
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.binding import VFIO, bind, restore
from uspace_drv.pci.sysfs import DEVICES, PciBus
from uspace_drv.port import Iova
from uspace_drv.testing import Target

pytestmark = pytest.mark.via("vfio")

IGB = (0x8086, 0x10C9)
TOKEN = "2ab74924-c335-45f4-9b16-8569e5b08258"


@pytest.fixture
def address(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--device"))


@pytest.fixture
def target(request: pytest.FixtureRequest) -> Target:
    """The device, by the way that the run is about."""
    option = request.config.getoption
    unsafe = option("--unsafe-dma-without-iommu")
    return Target(None, option("--device"), option("--via"), None, unsafe)


def test_a_way_that_the_machine_does_not_have(address: str, target: Target) -> None:
    function = PciBus().function(address)
    others = set(WAYS) - set(nodes_of(function)) - {"vfio-type1v1"}
    assert others
    for via in others:
        with pytest.raises(UnsupportedError, match=f"^{address}: .*(--via|needs Linux)"):
            replace(target, via=via).open()


def test_attached_right_after_it_was_bound(address: str, target: Target) -> None:
    """The kernel still registers the device while its node can be seen already."""
    where = PciAddress.parse(address)
    for _ in range(3):
        restore(where)
        bind(where, VFIO)
        with target.attach(Edu) as edu:
            assert edu.factorial(3) == 6


def test_another_opening_goes_on_with_it(address: str, target: Target) -> None:
    """As in another process, to which the descriptors went through a socket."""
    bus = PciBus()
    backend = target.open()
    via = backend.via
    backend.close()
    options = Options(unsafe_dma_without_iommu=target.unsafe_dma_without_iommu)
    opening = WAYS[via](bus.function(address), bus, options)
    given = opening.handover()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        socket.send_fds(ours, [given.kind.encode()], given.fds)
        kind, fds, _, _ = socket.recv_fds(theirs, 100, len(given.fds))
    again = resume(Handover(kind.decode(), tuple(fds), given.data), address)
    with attach(VfioDevice.from_opening(address, again), Edu) as edu:
        edu.store(b"handed over")
        assert edu.load(11) == b"handed over"
    opening.close()
    with target.attach(Edu) as edu:
        assert edu.factorial(4) == 24


@pytest.mark.via("vfio-compat")
def test_container_calls_go_to_an_address_space(address: str) -> None:
    bus = PciBus()
    opening = WAYS["vfio-compat"](bus.function(address), bus, Options())
    iommufd = Iommufd(address, os.dup(opening.handover().fds[1]))
    number = iommufd.vfio_ioas
    assert number is not None
    iommufd.vfio_ioas = None
    assert iommufd.vfio_ioas is None
    iommufd.vfio_ioas = number
    os.close(opening.open_device())
    iommufd.close()
    opening.close()


@pytest.mark.via("vfio-type1v1")
def test_the_first_kind_of_type1_unmaps_part_of_a_mapping(address: str) -> None:
    bus = PciBus()
    opening = WAYS["vfio-type1v1"](bus.function(address), bus, Options())
    memory = opening.dma.memory(0x4000, 1 << 32)
    place = np.frombuffer(memory, np.uint8).ctypes.data
    opening.dma.map(place, 0x4000, Iova(0x10000), Direction.BOTH)
    with suppress(DeviceError):  # it may unmap more than was asked for, and says so
        opening.dma.unmap(Iova(0x11000), 0x1000)
    opening.close()


@pytest.mark.via("vfio-noiommu-cdev")
def test_the_kernel_pins_ordinary_pages(target: Target) -> None:
    """Two pages that need not be neighbours: each has its place, which is below the last byte."""
    backend = target.open()
    with closing(backend):
        pages = backend.dma.memory(0x1000, (1 << 64) - 1)
        place = np.frombuffer(pages, np.uint8).ctypes.data
        first = backend.dma.map(place, 0x1000, None, Direction.BOTH)
        assert first % 0x1000 == 0
        assert backend.dma.map(place, 0x1000, None, Direction.BOTH) == first
        backend.dma.unmap(first, 0x1000)
        backend.dma.unmap_all()


def test_token_for_what_takes_none(target: Target) -> None:
    with pytest.raises(HostError, match="takes no VF token"):
        replace(target, address=f"{target.address}?vf_token={TOKEN}").open()


@pytest.fixture
def virtual_function(target: Target) -> Iterator[str]:
    """One of QEMU's igb, whose physical function is at VFIO too and has set TOKEN."""
    functions = PciBus().functions()
    igb = next((f.address for f in functions if (f.ids.vendor, f.ids.device) == IGB), None)
    if igb is None:
        pytest.skip("the machine has no igb: --qemu newest --device igb,bus=root-port")
    Path("/sys/module/vfio_pci/parameters/enable_sriov").write_text("Y")
    bind(igb, VFIO)
    folder = Path(f"{DEVICES}/{igb}")
    (folder / "sriov_numvfs").write_text("1")
    backend = replace(target, address=str(igb)).open()
    assert isinstance(backend, VfioDevice)
    with closing(backend):
        backend.features.set_vf_token(uuid.UUID(TOKEN))
    yield (folder / "virtfn0").readlink().name
    (folder / "sriov_numvfs").write_text("0")
    restore(igb)


@pytest.mark.via("vfio-cdev", "vfio-type1", "vfio-compat", "vfio-type1v1")  # igb is in those guests
def test_virtual_function_takes_the_token_of_its_owner(
    target: Target, virtual_function: str
) -> None:
    for query, seen in (
        ("", "none was given"),
        (f"?vf_token={uuid.UUID(int=1)}", "is not the one"),
    ):
        with pytest.raises(HostError, match=seen):
            replace(target, address=virtual_function + query).open()
    owned = replace(target, address=f"{virtual_function}?vf_token={TOKEN}").open()
    with closing(owned):
        assert owned.config is not None
        assert owned.config.read32(0x10) & 1 == 0  # memory, as VFIO shows it: all BARs of a VF are

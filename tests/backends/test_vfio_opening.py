"""Every way into a function through VFIO, on a kernel made up: what it asks, refuses, returns."""

from __future__ import annotations

import errno
import logging
import os
import uuid
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.backends.fake_vfio import PHYSICAL, FakeVfio, open_vfio
from tests.unit.pci.fake_sysfs import EDU, FakeMachine
from uspace_drv.backends.vfio import WAYS, Handover, Options, nodes, resume
from uspace_drv.device import Device
from uspace_drv.errors import BusyError, HostError, NoDevice, UnsupportedError, UspaceError
from uspace_drv.iommufd.uapi import memory
from uspace_drv.opening import VIAS, open_backend
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.sysfs import DEVICES
from uspace_drv.port import Direction, Iova

TOKEN = "2ab74924-c335-45f4-9b16-8569e5b08258"
UNSAFE = Options(unsafe_dma_without_iommu=True)
SIBLING = PciAddress(0, 0, 4, 1)
WHERE = r"^0000:00:04\.0: "

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    """edu bound to vfio-pci, in group 14; the kernel makes no device files."""
    machine = FakeMachine(tmp_path)
    machine.function(EDU, driver="vfio-pci", group=14)
    return machine


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeVfio:
    monkeypatch.setattr(nodes, "SETTLE_TIMEOUT", 0.0)
    return FakeVfio(monkeypatch)


def add_device_file(machine: FakeMachine, name: str = "vfio0") -> None:
    machine.file(f"{DEVICES}/{EDU}/vfio-dev/{name}/dev", "511:0\n")


def remove_iommu(machine: FakeMachine) -> None:
    machine.file("/sys/kernel/iommu_groups/14/name", "vfio-noiommu\n")


@pytest.fixture(params=list(WAYS))
def via(request: pytest.FixtureRequest, machine: FakeMachine) -> str:
    """Each way, on a machine that has it."""
    way = str(request.param)
    if "noiommu" in way:
        remove_iommu(machine)
    if way.endswith("cdev"):
        add_device_file(machine, "noiommu-vfio0" if "noiommu" in way else "vfio0")
    return way


def test_each_way_opens_a_device(via: str, machine: FakeMachine, kernel: FakeVfio) -> None:
    with closing(open_vfio(EDU, machine.bus, via, UNSAFE)) as backend:
        assert backend.via == via
        assert Device(backend).bar(0).read32(0) == 0
    backend.close()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENODEV])
def test_whatever_fails_leaves_nothing_open(
    via: str, machine: FakeMachine, kernel: FakeVfio, number: int
) -> None:
    """Each request that the way makes fails once."""
    function = machine.bus.function(EDU)
    opening = WAYS[via](function, machine.bus, Options())
    asked = set(kernel.requests)
    opening.close()
    for name in asked:
        kernel.fails = {name: number}
        with pytest.raises(UspaceError) as caught:
            WAYS[via](function, machine.bus, Options())
        assert str(caught.value).startswith(f"{EDU}: ")


@pytest.mark.parametrize("has_files", [False, True])
@pytest.mark.parametrize("has_iommu", [False, True])
def test_the_best_way_is_taken(
    machine: FakeMachine,
    kernel: FakeVfio,
    caplog: pytest.LogCaptureFixture,
    has_files: bool,
    has_iommu: bool,
) -> None:
    if not has_iommu:
        remove_iommu(machine)
    if has_files:
        add_device_file(machine, "vfio0" if has_iommu else "noiommu-vfio0")
    best = {
        (False, False): "vfio-noiommu",
        (False, True): "vfio-type1",
        (True, False): "vfio-noiommu-cdev",
        (True, True): "vfio-cdev",
    }[has_files, has_iommu]
    with (
        caplog.at_level(logging.INFO, "uspace_drv"),
        closing(open_vfio(EDU, machine.bus, "vfio")) as backend,
    ):
        assert backend.via == best
    assert f"{EDU}: opened via {best}" in caplog.messages


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES])
@pytest.mark.parametrize(
    ("missing", "taken"),
    [
        (["/dev/vfio/devices/vfio0"], "vfio-type1"),
        (["/dev/iommu"], "vfio-type1"),
        (["/dev/vfio/devices/vfio0", "/dev/vfio/vfio"], "vfio-compat"),
    ],
)
def test_what_may_not_be_opened_is_passed_over(
    machine: FakeMachine, kernel: FakeVfio, number: int, missing: list[str], taken: str
) -> None:
    add_device_file(machine)
    kernel.missing = dict.fromkeys(missing, number)
    with closing(open_vfio(EDU, machine.bus, "vfio")) as backend:
        assert backend.via == taken


def test_no_right_to_any_way_names_the_best(machine: FakeMachine, kernel: FakeVfio) -> None:
    add_device_file(machine)
    files = ("/dev/vfio/devices/vfio0", "/dev/iommu", "/dev/vfio/14", "/dev/vfio/vfio")
    kernel.missing = dict.fromkeys(files, errno.EACCES)
    cure = f"run: sudo chown {os.getuid()} /dev/vfio/devices/vfio0"
    with pytest.raises(HostError, match=f"{WHERE}cannot open .*denied; {cure}"):
        open_vfio(EDU, machine.bus, "vfio")


@pytest.mark.parametrize(
    ("way", "prepare", "text"),
    [
        ("vfio-cdev", None, r"needs Linux 6\.6 with CONFIG_VFIO_DEVICE_CDEV; this is "),
        ("vfio-cdev", "noiommu-vfio0", "has no IOMMU.*use --via vfio-noiommu-cdev"),
        ("vfio-noiommu-cdev", "vfio0", "CONFIG_IOMMUFD_NOIOMMU.*use --via vfio"),
        ("vfio-noiommu", None, "has an IOMMU.*use --via vfio"),
    ],
)
def test_a_way_that_the_machine_does_not_have(
    machine: FakeMachine, kernel: FakeVfio, way: str, prepare: str | None, text: str
) -> None:
    if prepare:
        add_device_file(machine, prepare)
    with pytest.raises(UnsupportedError, match=WHERE + ".*" + text):
        open_vfio(EDU, machine.bus, way)


def test_an_iommu_is_asked_for_where_there_is_none(machine: FakeMachine, kernel: FakeVfio) -> None:
    remove_iommu(machine)
    with pytest.raises(UnsupportedError, match=r"has no IOMMU.*use --via vfio-noiommu"):
        open_vfio(EDU, machine.bus, "vfio-type1")


def test_compat_joins_an_iommufd(machine: FakeMachine, kernel: FakeVfio) -> None:
    with closing(open_vfio(EDU, machine.bus, "vfio-compat")) as backend:
        assert kernel.opened == ["/dev/vfio/14", "/dev/iommu"]
        # An iommufd knows the reserved ranges of a device only once it is open.
        ranges = backend.dma.ranges
        assert ranges
        device_opened = kernel.requests.index("GROUP_GET_DEVICE_FD")
        assert kernel.requests.index("IOMMU_GET_INFO") > device_opened
    assert kernel.requests[-1] == "GROUP_UNSET_CONTAINER"


def test_cdev_is_bound_attached_and_detached(machine: FakeMachine, kernel: FakeVfio) -> None:
    add_device_file(machine)
    with closing(open_vfio(EDU, machine.bus, "vfio-cdev")) as backend:
        assert kernel.opened == ["/dev/vfio/devices/vfio0", "/dev/iommu"]
        assert kernel.bind_size == 16  # what a kernel before 6.18 takes
        device = Device(backend)
        buffer = device.dma.alloc(np.uint8, 1, Direction.FROM_DEVICE)
        assert kernel.mapped == {buffer.iova: (0x1000, 1 | 2)}
        device.close()
        assert not kernel.mapped
    assert kernel.requests[-1] == "DEVICE_DETACH_IOMMUFD_PT"


def test_memory_of_a_file_through_an_iommufd(machine: FakeMachine, kernel: FakeVfio) -> None:
    add_device_file(machine)
    with (
        closing(open_vfio(EDU, machine.bus, "vfio-cdev")) as backend,
        os.fdopen(os.memfd_create("dma"), "rb") as file,
    ):
        fd = file.fileno()
        assert backend.dma.map_file(fd, 0, 0x2000, Iova(0x3000), Direction.TO_DEVICE) == 0x3000
        assert kernel.mapped == {0x3000: (0x2000, 1 | 4)}
        backend.dma.unmap_all()
        assert not kernel.mapped
        with pytest.raises(HostError, match="a mapping through VFIO needs an IOVA"):
            backend.dma.map(0x1000, 0x1000, None, Direction.BOTH)
        with pytest.raises(HostError, match="unmapped 0x0 of 0x1000 bytes at 0x9000"):
            backend.dma.unmap(Iova(0x9000), 0x1000)


def test_without_an_iommu_dma_takes_the_opt_in(
    via: str, machine: FakeMachine, kernel: FakeVfio
) -> None:
    with closing(open_vfio(EDU, machine.bus, via)) as backend:
        if "noiommu" not in via:
            assert backend.dma.ranges is not None
            return
        with pytest.raises(UnsupportedError, match=WHERE + ".*unsafe_dma_without_iommu=True"):
            _ = backend.dma


def test_the_kernel_tells_where_pinned_memory_is(machine: FakeMachine, kernel: FakeVfio) -> None:
    add_device_file(machine, "noiommu-vfio0")
    with closing(open_vfio(EDU, machine.bus, "vfio-noiommu-cdev", UNSAFE)) as backend:
        dma = backend.dma
        assert dma.ranges is None
        pages = dma.memory(0x1000, (1 << 64) - 1)
        first, second = (dma.map(0x1000, 0x1000, None, Direction.BOTH) for _ in range(2))
        assert first == PHYSICAL + 0x10_0000
        assert len(kernel.mapped) == 2
        dma.unmap(first, 0x1000)
        dma.unmap(second, 0x1000)
        assert not kernel.mapped
        kernel.contiguous = 0x1000
        with pytest.raises(UnsupportedError, match="only 0x1000 of 0x2000 bytes lie in one piece"):
            dma.map(0x1000, 0x2000, None, Direction.BOTH)
        assert not kernel.mapped
        dma.map(0x1000, 0x1000, None, Direction.BOTH)
        dma.unmap_all()
        assert not kernel.mapped
        pages.close()


def test_the_same_pinned_memory_in_two_sizes(
    machine: FakeMachine, kernel: FakeVfio, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell(argument: memory.IoasNoiommuGetPa) -> None:
        argument.out_phys = PHYSICAL

    monkeypatch.setattr(kernel, "ioas_noiommu_get_pa", tell)
    add_device_file(machine, "noiommu-vfio0")
    with closing(open_vfio(EDU, machine.bus, "vfio-noiommu-cdev", UNSAFE)) as backend:
        whole = backend.dma.map(0x1000, 0x2000, None, Direction.BOTH)
        backend.dma.map(0x1000, 0x1000, None, Direction.BOTH)
        backend.dma.unmap(whole, 0x2000)
        assert [size for size, _ in kernel.mapped.values()] == [0x1000]


@pytest.mark.parametrize(
    ("way", "request_"),
    [("vfio-compat", "GROUP_GET_DEVICE_FD"), ("vfio-cdev", "DEVICE_BIND_IOMMUFD")],
)
def test_an_iommufd_without_interrupt_remapping(
    machine: FakeMachine, kernel: FakeVfio, way: str, request_: str
) -> None:
    add_device_file(machine)
    kernel.fails[request_] = errno.EPERM
    with pytest.raises(HostError, match=WHERE + ".*iommufd.allow_unsafe_interrupts=1"):
        open_vfio(EDU, machine.bus, way)


@pytest.mark.parametrize("way", ["vfio-type1", "vfio-cdev"])
def test_vf_token(machine: FakeMachine, kernel: FakeVfio, way: str) -> None:
    add_device_file(machine)
    with closing(open_vfio(EDU, machine.bus, way, Options(vf_token=TOKEN))):
        if way == "vfio-cdev":
            assert kernel.token == uuid.UUID(TOKEN).bytes
            assert kernel.bind_size == 24
        else:
            assert kernel.device_name == f"0000:00:04.0 vf_token={TOKEN}"


@pytest.mark.parametrize(
    ("way", "request_"),
    [("vfio-type1", "GROUP_GET_DEVICE_FD"), ("vfio-cdev", "DEVICE_BIND_IOMMUFD")],
)
@pytest.mark.parametrize(
    ("number", "token", "text"),
    [
        (errno.EACCES, None, r"none was given; .*'0000:00:04\.0\?vf_token=UUID'"),
        (errno.EACCES, TOKEN, f"{TOKEN} is not the one"),
        (errno.EINVAL, TOKEN, "takes no VF token"),
        (errno.EINVAL, None, "Invalid argument"),
    ],
)
def test_vf_token_that_does_not_fit(
    machine: FakeMachine,
    kernel: FakeVfio,
    way: str,
    request_: str,
    number: int,
    token: str | None,
    text: str,
) -> None:
    add_device_file(machine)
    kernel.fails[request_] = number
    with pytest.raises(HostError, match=WHERE + ".*" + text):
        open_vfio(EDU, machine.bus, way, Options(vf_token=token))


def test_group_that_another_process_has_open(machine: FakeMachine, kernel: FakeVfio) -> None:
    add_device_file(machine)
    kernel.fails["DEVICE_BIND_IOMMUFD"] = errno.EBUSY
    with pytest.raises(BusyError, match=WHERE + "another process has its IOMMU group open"):
        open_vfio(EDU, machine.bus, "vfio-cdev")


def test_sibling_at_a_driver_of_the_kernel(machine: FakeMachine, kernel: FakeVfio) -> None:
    add_device_file(machine)
    machine.function(SIBLING, driver="snd_hda_intel", group=14)
    shared = r"group 14 is shared with 0000:00:04\.1 \(snd_hda_intel\).*bind 0000:00:04\.1$"
    with pytest.raises(HostError, match=WHERE + ".*" + shared):
        open_vfio(EDU, machine.bus, "vfio-cdev")
    assert not kernel.opened


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV, errno.EBUSY])
def test_races_right_after_a_binding(
    via: str,
    machine: FakeMachine,
    kernel: FakeVfio,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    """Node and device are not ready at first: they are asked again, with a deadline."""
    monkeypatch.setattr(nodes, "SETTLE_TIMEOUT", 30.0)
    cdev = via.endswith("cdev")
    path = f"/dev/vfio/{'noiommu-' if 'noiommu' in via else ''}14"
    if cdev:
        path = f"/dev/vfio/devices/{'noiommu-' if 'noiommu' in via else ''}vfio0"
    request = "DEVICE_BIND_IOMMUFD" if cdev else "GROUP_GET_DEVICE_FD"
    kernel.missing[path] = number
    kernel.fails[request] = number
    kernel.passing = {path: 2, request: 3}
    with closing(open_vfio(EDU, machine.bus, via)) as backend:
        assert backend.via == via
    assert kernel.passing == {path: -1, request: -1}


def test_other_failures_are_not_waited_for(
    machine: FakeMachine, kernel: FakeVfio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "SETTLE_TIMEOUT", 30.0)
    kernel.missing["/dev/vfio/14"] = errno.EACCES
    kernel.passing["/dev/vfio/14"] = 1
    with pytest.raises(HostError, match="Permission denied"):
        open_vfio(EDU, machine.bus)


def test_a_forked_copy_does_not_keep_us_from_leaving(
    machine: FakeMachine, kernel: FakeVfio, caplog: pytest.LogCaptureFixture
) -> None:
    backend = open_vfio(EDU, machine.bus)
    kernel.fails["GROUP_UNSET_CONTAINER"] = errno.EBUSY
    backend.close()
    assert "a process forked from this one still has it open" in caplog.text


def test_another_failure_to_leave_is_told(machine: FakeMachine, kernel: FakeVfio) -> None:
    backend = open_vfio(EDU, machine.bus)
    kernel.fails["GROUP_UNSET_CONTAINER"] = errno.ENOMEM
    with pytest.raises(HostError, match="VFIO_GROUP_UNSET_CONTAINER: Cannot allocate memory"):
        backend.close()


def test_a_group_that_the_host_took_out_is_left(machine: FakeMachine, kernel: FakeVfio) -> None:
    """Its last device was unbound meanwhile, and the kernel has nothing to take out any more."""
    backend = open_vfio(EDU, machine.bus)
    kernel.fails["GROUP_UNSET_CONTAINER"] = errno.EINVAL
    backend.close()


def test_another_process_goes_on(via: str, machine: FakeMachine, kernel: FakeVfio) -> None:
    """What was handed over opens the device again, with the same options."""
    function = machine.bus.function(EDU)
    opening = WAYS[via](function, machine.bus, UNSAFE)
    given = opening.handover()
    assert given.kind == via
    copy = Handover(given.kind, tuple(os.dup(fd) for fd in given.fds), given.data)
    opening.close()
    kernel.requests.clear()
    again = resume(copy, str(EDU))
    os.close(again.open_device())
    assert again.via == via
    assert again.dma.page_size == 0x1000
    assert len(again.reset_fds) == (0 if via.endswith("cdev") else 1)
    again.close()
    # Whoever opened it takes it apart.
    assert not {"GROUP_UNSET_CONTAINER", "DEVICE_DETACH_IOMMUFD_PT"} & set(kernel.requests)


def test_a_handover_of_the_future(kernel: FakeVfio) -> None:
    with pytest.raises(UnsupportedError, match=r"handed over as 'vfio-2030'.* there are vfio-cdev"):
        resume(Handover("vfio-2030", (), {}), str(EDU))


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("0000:00:04.0?vf_token=1", "vf_token=1 is not a UUID like"),
        ("0000:00:04.0?token=1", "option 'token' is unknown; a PCI function has vf_token"),
    ],
)
def test_options_of_an_address(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch, address: str, text: str
) -> None:
    monkeypatch.setattr("uspace_drv.opening.PciBus", lambda: machine.bus)
    with pytest.raises(NoDevice, match=text):
        open_backend(address)


def test_an_address_says_the_token(
    machine: FakeMachine, kernel: FakeVfio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uspace_drv.opening.PciBus", lambda: machine.bus)
    with closing(open_backend(f"{EDU}?vf_token={TOKEN.upper()}", via="vfio-type1")):
        assert kernel.device_name.endswith(f" vf_token={TOKEN}")


def test_an_unknown_way_lists_all(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uspace_drv.opening.PciBus", lambda: machine.bus)
    with pytest.raises(UnsupportedError, match="no backend is called 'vfi'") as caught:
        open_backend(str(EDU), via="vfi")
    assert all(via in str(caught.value) for via in VIAS)

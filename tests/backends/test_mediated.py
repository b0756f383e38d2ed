"""Mediated devices as sysfs shows them: types, making and removing one, and what is not there."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path

import pytest

from uspace_drv.backends.vfio.mediated import (
    create_mediated,
    mediated_devices,
    mediated_types,
    open_mediated,
    remove_mediated,
)
from uspace_drv.errors import HostError, NoDevice, UnsupportedError
from uspace_drv.opening import open_backend
from uspace_drv.pci.address import DeviceAddress, Scheme
from uspace_drv.pci.host import Host

TYPES = "/sys/class/mdev_bus/mtty/mdev_supported_types"
DEVICES = "/sys/bus/mdev/devices"
IDENTITY = uuid.UUID("83b8f4f2-509f-382f-3c1e-e6bfe0fa1001")


class FakeParent(Host):
    """One parent with a type of one port, of which there are `available`."""

    def __init__(self, root: Path, available: int = 24) -> None:
        super().__init__(root)
        self.file(f"{TYPES}/mtty-1/name", "Single port serial\n")
        self.file(f"{TYPES}/mtty-1/device_api", "vfio-pci\n")
        self.file(f"{TYPES}/mtty-1/available_instances", f"{available}\n")
        self.file(f"{TYPES}/mtty-1/create", "")

    def file(self, path: str, text: str) -> None:
        self.path(path).parent.mkdir(parents=True, exist_ok=True)
        self.path(path).write_text(text)

    def write(self, path: str, text: str) -> None:
        """What drivers/vfio/mdev/mdev_sysfs.c does."""
        folder, _, name = path.rpartition("/")
        if name == "remove":
            assert text == "1"
            self.path(path).unlink()
            self.path(folder).rmdir()
            return
        assert name == "create"
        if self.exists(f"{DEVICES}/{text}"):
            raise HostError(path, cause=OSError(errno.EEXIST, os.strerror(errno.EEXIST)))
        self.file(f"{DEVICES}/{text}/remove", "")


@pytest.fixture
def host(tmp_path: Path) -> FakeParent:
    return FakeParent(tmp_path)


def test_types(host: FakeParent) -> None:
    (kind,) = mediated_types(host)
    assert (kind.parent, kind.name, kind.title) == ("mtty", "mtty-1", "Single port serial")
    assert (kind.available, kind.api, kind.path) == (24, "vfio-pci", f"{TYPES}/mtty-1")


def test_comes_and_goes(host: FakeParent) -> None:
    assert create_mediated("mtty-1", IDENTITY, host=host) == IDENTITY
    other = create_mediated("mtty-1", host=host)
    assert set(mediated_devices(host)) == {IDENTITY, other}
    remove_mediated(IDENTITY, host=host)
    assert mediated_devices(host) == [other]


def test_twice(host: FakeParent) -> None:
    create_mediated("mtty-1", IDENTITY, host=host)
    with pytest.raises(HostError, match=f"{IDENTITY}: there is such a mediated device"):
        create_mediated("mtty-1", IDENTITY, host=host)


def test_no_such_type(host: FakeParent) -> None:
    with pytest.raises(NoDevice, match=r"mtty-9: no such type .*; there are mtty-1"):
        create_mediated("mtty-9", host=host)


def test_no_types(tmp_path: Path) -> None:
    with pytest.raises(NoDevice, match="there are none: load the driver of a parent"):
        create_mediated("mtty-1", host=Host(tmp_path))


def test_no_more_of_them(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="mtty-1: mtty makes no more of them"):
        create_mediated("mtty-1", host=FakeParent(tmp_path, available=0))


def test_no_such_device(host: FakeParent) -> None:
    create_mediated("mtty-1", IDENTITY, host=host)
    other = uuid.UUID(int=5)
    for verb in (open_mediated, remove_mediated):
        with pytest.raises(NoDevice, match=f"mdev:{other}: no such .*; there are {IDENTITY}"):
            verb(other, host=host)


def test_device_that_no_driver_took(host: FakeParent) -> None:
    create_mediated("mtty-1", IDENTITY, host=host)
    with pytest.raises(HostError, match=f"mdev:{IDENTITY}: is in no IOMMU group"):
        open_mediated(IDENTITY, host=host)


def test_way_that_is_not_one_of_a_group(host: FakeParent) -> None:
    create_mediated("mtty-1", IDENTITY, host=host)
    with pytest.raises(UnsupportedError, match=f"mdev:{IDENTITY}: is not opened via vfio-cdev; "):
        open_mediated(IDENTITY, via="vfio-cdev", host=host)


def test_address() -> None:
    address = DeviceAddress.parse(f"mdev:{IDENTITY}")
    assert (address.scheme, address.rest) == (Scheme.MEDIATED, str(IDENTITY))
    with pytest.raises(NoDevice, match="mdev:UUID"):
        DeviceAddress.parse("mdev:mtty")
    with pytest.raises(NoDevice, match=f"mdev:{IDENTITY}: no such mediated device"):
        open_backend(str(address))

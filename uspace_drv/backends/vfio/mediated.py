"""Mediated devices: devices that a driver of the kernel makes on demand, without PCI hardware.

Linux Documentation/driver-api/vfio-mediated-device.rst, Documentation/ABI/testing/
sysfs-bus-vfio-mdev.
"""

from __future__ import annotations

import errno
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from uspace_drv.backends.vfio.device import VfioDevice
from uspace_drv.backends.vfio.group import GroupOpening
from uspace_drv.backends.vfio.opening import Options
from uspace_drv.errors import HostError, NoDevice, UnsupportedError
from uspace_drv.pci.host import Host
from uspace_drv.pci.sysfs import IommuGroup, PciBus

_PARENTS = "/sys/class/mdev_bus"
_DEVICES = "/sys/bus/mdev/devices"
_WAYS: Mapping[str | None, str] = {
    None: "vfio-type1",
    "vfio": "vfio-type1",
    "vfio-type1": "vfio-type1",
    "vfio-compat": "vfio-compat",
}


@dataclass(frozen=True)
class MediatedType:
    """One kind of device that a parent can make; `available` is how many more of them.

    `api` is what VFIO will show, 'vfio-pci' for a device with BARs and configuration space.
    """

    parent: str
    name: str
    title: str
    available: int
    api: str

    @property
    def path(self) -> str:
        """Its folder in sysfs."""
        return f"{_PARENTS}/{self.parent}/mdev_supported_types/{self.name}"


def mediated_types(host: Host | None = None) -> list[MediatedType]:
    """Return all that the drivers of this machine can make, by parent and name."""
    host = host or Host()
    places = [
        (parent, name)
        for parent in host.names(_PARENTS)
        for name in host.names(f"{_PARENTS}/{parent}/mdev_supported_types")
    ]
    return [_read_type(host, *place) for place in places]


def mediated_devices(host: Host | None = None) -> list[uuid.UUID]:
    """Return the names of those that have been made."""
    return [uuid.UUID(name) for name in (host or Host()).names(_DEVICES)]


def create_mediated(
    name: str, identity: uuid.UUID | None = None, *, host: Host | None = None
) -> uuid.UUID:
    """Make a device of the type `name` ('mtty-1') and return its name; takes root.

    `NoDevice` lists the types that there are; `HostError` where the parent has no more of them or
    there is one of that identity already.
    """
    host = host or Host()
    types = mediated_types(host)
    if (kind := next((each for each in types if each.name == name), None)) is None:
        there = ", ".join(each.name for each in types) or "none: load the driver of a parent"
        raise NoDevice(f"{name}: no such type of mediated device; there are {there}")
    if not kind.available:
        raise HostError(f"{name}: {kind.parent} makes no more of them; remove one first")
    identity = identity or uuid.uuid4()
    try:
        host.write(f"{kind.path}/create", f"{identity}")
    except HostError as error:
        if error.errno != errno.EEXIST:
            raise
        raise HostError(f"{identity}: there is such a mediated device", cause=error) from error
    return identity


def remove_mediated(identity: uuid.UUID, *, host: Host | None = None) -> None:
    """Remove it; takes root. The kernel waits until nobody has it open. `NoDevice`: none such."""
    host = host or Host()
    folder = _folder(identity, host)
    host.write(f"{folder}/remove", "1")


@dataclass(frozen=True)
class _Member:
    address: uuid.UUID
    group: IommuGroup


def open_mediated(
    identity: uuid.UUID, *, via: str | None = None, host: Host | None = None
) -> VfioDevice:
    """Open a mediated device by its group; the caller closes it.

    `via` is 'vfio-type1', which is also 'vfio' and None, or 'vfio-compat'; others raise
    `UnsupportedError`. DMA is checked by the device's driver in the kernel, which needs no IOMMU
    for that. `NoDevice` lists those that there are.
    """
    host = host or Host()
    name = f"mdev:{identity}"
    way = _WAYS.get(via)
    if way is None:
        raise UnsupportedError(
            f"{name}: is not opened via {via}; a mediated device is by its group: vfio-type1 or "
            "vfio-compat"
        )
    number = host.link(f"{_folder(identity, host)}/iommu_group")
    if number is None:
        raise HostError(f"{name}: is in no IOMMU group: no driver of VFIO has taken it")
    # Its group is named like one without an IOMMU and is none (drivers/vfio/group.c).
    member = _Member(identity, IommuGroup(int(number), type=None, members=()))
    opening = GroupOpening.open(way, member, PciBus(host=host), Options())
    return VfioDevice.from_opening(name, opening)


def _folder(identity: uuid.UUID, host: Host) -> str:
    """Return its folder in sysfs; `NoDevice` lists those that there are."""
    folder = f"{_DEVICES}/{identity}"
    if not host.exists(folder):
        there = ", ".join(map(str, mediated_devices(host))) or "none"
        raise NoDevice(
            f"mdev:{identity}: no such mediated device; there are {there}. "
            "The types in /sys/class/mdev_bus/*/mdev_supported_types can be made"
        )
    return folder


def _read_type(host: Host, parent: str, name: str) -> MediatedType:
    folder = f"{_PARENTS}/{parent}/mdev_supported_types/{name}"
    return MediatedType(
        parent=parent,
        name=name,
        title=host.read(f"{folder}/name") or name,
        available=host.read_int(f"{folder}/available_instances") or 0,
        api=host.read(f"{folder}/device_api") or "",
    )

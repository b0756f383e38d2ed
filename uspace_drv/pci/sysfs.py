"""The machine's PCI functions as Linux shows them (Documentation/ABI/testing/sysfs-bus-pci)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path

from uspace_drv.errors import HostError, NoDevice
from uspace_drv.native import Window
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.config import HEADER_SIZE
from uspace_drv.pci.host import Host
from uspace_drv.pci.ids import FunctionIds

DEVICES = "/sys/bus/pci/devices"
_GROUPS = "/sys/kernel/iommu_groups"
_SHOWN = 16
_BRIDGES = 0x06  # PCI Code and ID Assignment Specification, section 1.7


class ResourceFlag(IntFlag):
    """Flags in the third column of `resource` (Linux include/linux/ioport.h)."""

    IO = 0x100
    MEM = 0x200
    PREFETCH = 0x2000
    MEM_64 = 0x100000


@dataclass(frozen=True)
class Resource:
    """One BAR (0 to 5) or the expansion ROM (6): bus address and size in bytes."""

    number: int
    start: int
    size: int
    flags: ResourceFlag

    @property
    def is_io(self) -> bool:
        """Whether it is made of I/O ports rather than memory."""
        return ResourceFlag.IO in self.flags

    def __str__(self) -> str:
        kind = "io ports" if self.is_io else "memory"
        kind += ", 64-bit" if ResourceFlag.MEM_64 in self.flags else ""
        kind += ", prefetchable" if ResourceFlag.PREFETCH in self.flags else ""
        name = "rom" if self.number == 6 else f"bar {self.number}"
        return f"{name}: {self.start:#x}, {self.size:#x} bytes, {kind}"


@dataclass(frozen=True)
class IommuGroup:
    """The functions that the IOMMU cannot tell apart; `type` is 'DMA', 'DMA-FQ', 'identity' ...

    `members` are in order and include the function itself; `is_noiommu` marks a group that VFIO
    made up because there is no IOMMU.
    """

    number: int
    type: str | None
    members: tuple[PciAddress, ...]
    is_noiommu: bool = False

    @property
    def node(self) -> str:
        """The VFIO node of the group."""
        return f"/dev/vfio/{'noiommu-' if self.is_noiommu else ''}{self.number}"


@dataclass(frozen=True)
class PciFunction:
    """What sysfs said of one function at one moment; None is what the kernel does not tell."""

    address: PciAddress
    ids: FunctionIds
    driver: str | None
    driver_override: str | None
    group: IommuGroup | None
    resources: tuple[Resource, ...]
    uio: str | None
    irq: int | None
    numa_node: int | None
    enabled: bool
    reset_methods: tuple[str, ...]
    cdev: str | None = None
    """The name of its own VFIO node, 'vfio0', where the kernel has such nodes (Linux 6.6)."""

    @property
    def is_bridge(self) -> bool:
        """Whether functions sit behind it (base class 06h): such a one is never handed over."""
        return self.ids.class_code >> 16 == _BRIDGES

    @property
    def is_translated(self) -> bool:
        """Whether an IOMMU stands between the function and memory (physical addresses fail)."""
        group = self.group
        return group is not None and not group.is_noiommu and group.type != "identity"


class PciBus:
    """Finds PCI functions in sysfs. `root` (or `host`) puts another file tree under it."""

    def __init__(self, root: Path = Path("/"), *, host: Host | None = None) -> None:
        self.host = host or Host(root)

    def addresses(self) -> list[PciAddress]:
        """Where there are functions, in order."""
        return sorted(PciAddress.parse(name) for name in self.host.names(DEVICES))

    def functions(self) -> list[PciFunction]:
        """All functions in order; one that vanishes while it is read is left out."""
        found = (self._read(address) for address in self.addresses())
        return [function for function in found if function is not None]

    def function(self, address: PciAddress | str) -> PciFunction:
        """Return that one function, or `NoDevice` with the list of those that are there."""
        wanted = PciAddress.parse(address) if isinstance(address, str) else address
        if (function := self._read(wanted)) is not None:
            return function
        there = [str(item) for item in self.addresses()]
        more = f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else ""
        seen = f"there are {', '.join(there[:_SHOWN])}{more}" if there else "there are none"
        raise NoDevice(f"{wanted}: no such PCI function in {self.host.path(DEVICES)}; {seen}")

    def driver_of(self, address: PciAddress) -> str | None:
        """The name of the driver that the function is bound to now, without all the rest of it.

        Raises as `function` does where there is no such function.
        """
        driver = self.host.link(f"{DEVICES}/{address}/driver")
        return self.function(address).driver if driver is None else driver

    @contextmanager
    def config(self, address: PciAddress) -> Iterator[Window]:
        """Open configuration space through the kernel, whatever driver is bound; for looking."""
        path = self.host.path(f"{DEVICES}/{address}/config")
        try:
            file = path.open("rb", buffering=0)
        except OSError as error:
            raise HostError(f"{address}: cannot open {path}: {error.strerror}", cause=error) from (
                error
            )
        with file:
            fd, size = file.fileno(), path.stat().st_size
            # Without CAP_SYS_ADMIN the kernel shows the header alone (drivers/pci/pci-sysfs.c).
            size = size if os.pread(fd, 1, HEADER_SIZE) else HEADER_SIZE
            window = Window.over_file(f"{address} config", fd, 0, size)
            try:
                yield window
            finally:
                window.close()

    def _read(self, address: PciAddress) -> PciFunction | None:
        ids = self._ids(address)
        if ids is None:
            return None
        folder, host = f"{DEVICES}/{address}", self.host
        override = host.read(f"{folder}/driver_override")
        node = host.read_int(f"{folder}/numa_node")
        return PciFunction(
            address=address,
            ids=ids,
            driver=host.link(f"{folder}/driver"),
            driver_override=None if override in ("", "(null)") else override,
            group=self._group(address),
            resources=self._resources(address),
            uio=next(iter(host.names(f"{folder}/uio")), None),
            irq=host.read_int(f"{folder}/irq"),
            numa_node=None if node == -1 else node,
            enabled=bool(host.read_int(f"{folder}/enable")),
            reset_methods=tuple((host.read(f"{folder}/reset_method") or "").split()),
            cdev=self._cdev(folder),
        )

    def _cdev(self, folder: str) -> str | None:
        """Name of the node below /dev/vfio/devices; without a number in `dev` there is none."""
        names = self.host.names(f"{folder}/vfio-dev")
        return next((n for n in names if self.host.exists(f"{folder}/vfio-dev/{n}/dev")), None)

    def _ids(self, address: PciAddress) -> FunctionIds | None:
        names = ("vendor", "device", "subsystem_vendor", "subsystem_device", "class", "revision")
        numbers = [self.host.read_int(f"{DEVICES}/{address}/{name}") for name in names]
        if numbers[0] is None or numbers[1] is None:
            return None
        return FunctionIds(*(number or 0 for number in numbers))

    def _resources(self, address: PciAddress) -> tuple[Resource, ...]:
        lines = (self.host.read(f"{DEVICES}/{address}/resource") or "").splitlines()
        rows = [[int(word, 16) for word in line.split()] for line in lines[:7]]
        return tuple(
            Resource(number, start, end - start + 1, ResourceFlag(flags))
            for number, (start, end, flags) in enumerate(rows)
            if flags and end > start
        )

    def _group(self, address: PciAddress) -> IommuGroup | None:
        number = self.host.link(f"{DEVICES}/{address}/iommu_group")
        if number is None or not number.isdecimal():
            return None
        folder = f"{_GROUPS}/{number}"
        return IommuGroup(
            number=int(number),
            type=self.host.read(f"{folder}/type"),
            members=self._members(folder),
            is_noiommu=self.host.read(f"{folder}/name") == "vfio-noiommu",
        )

    def _members(self, group: str) -> tuple[PciAddress, ...]:
        # A group may hold platform devices too; only PCI functions can be bound here.
        names = self.host.names(f"{group}/devices")
        return tuple(sorted(PciAddress.parse(name) for name in names if name.count(":") == 2))

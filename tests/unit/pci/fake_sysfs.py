"""A machine in a temporary folder: PCI functions, disks and networks, and a kernel that reacts.

The reactions to bind, unbind, driver_override and drivers_probe follow drivers/base/bus.c and
drivers/pci/pci-driver.c of Linux.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from uspace_drv.errors import HostError
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.host import Host
from uspace_drv.pci.sysfs import PciBus

EDU = PciAddress(0, 0, 4, 0)


class Killed(BaseException):
    """What a process that is killed in the middle of its work looks like in a test."""


class FakeMachine(Host):
    """Builds the tree, and answers writes below /sys/bus/pci as the kernel would."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.writes: list[tuple[str, str]] = []
        self.changes = 0
        self.lives: int | None = None
        """How many changes the process makes before it is killed; None for all."""
        self.owners: dict[str, int] = {}
        self.has_cdevs = False
        self.refusing: set[str] = set()
        self.nodeless: set[str] = set()
        self.open_nodes: set[str] = set()
        self.readonly = False
        self.native: dict[str, str] = {}
        self.file("/proc/self/mountinfo", "22 1 0:21 / /proc rw - proc proc rw\n")
        for driver in ("vfio-pci", "uio_pci_generic"):
            self.driver(driver)

    @property
    def bus(self) -> PciBus:
        return PciBus(host=self)

    # building

    def file(self, path: str, text: str = "") -> None:
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def symlink(self, path: str, to: str) -> None:
        link, target = self.path(path), self.path(to)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(target, link.parent.resolve()))

    def driver(self, name: str) -> None:
        self.file(f"/sys/bus/pci/drivers/{name}/bind")
        self.file(f"/sys/bus/pci/drivers/{name}/unbind")

    def function(
        self,
        address: PciAddress,
        *,
        vendor: int = 0x1234,
        device: int = 0x11E8,
        driver: str | None = None,
        group: int | None = None,
        behind: PciAddress | None = None,
        resource: str = "",
    ) -> str:
        """A function in sysfs; returns its real folder."""
        above = f"{self.resolve(f'/sys/bus/pci/devices/{behind}')}" if behind else ""
        folder = f"{above or '/sys/devices/pci0000:00'}/{address}"
        numbers = {"vendor": vendor, "device": device, "subsystem_vendor": 0x1AF4}
        numbers |= {"subsystem_device": 0x1100, "class": 0x00FF00, "revision": 0x10}
        for name, value in numbers.items():
            self.file(f"{folder}/{name}", f"{value:#06x}\n")
        self.file(f"{folder}/resource", resource)
        self.file(f"{folder}/driver_override", "(null)\n")
        self.file(f"{folder}/numa_node", "-1\n")
        self.file(f"{folder}/irq", "11\n")
        self.file(f"{folder}/enable", "1\n")
        self.file(f"{folder}/reset_method", "flr bus\n")
        self.file(f"{folder}/config")
        self.path(f"{folder}/config").write_bytes(bytes(64))
        self.symlink(f"/sys/bus/pci/devices/{address}", folder)
        if driver is not None:
            self.driver(driver)
            self.native[str(address)] = driver
            self._attach(str(address), driver)
        if group is not None:
            self.group(address, group)
        return folder

    def group(self, address: PciAddress, number: int, kind: str = "DMA-FQ") -> None:
        folder = f"/sys/kernel/iommu_groups/{number}"
        self.file(f"{folder}/type", f"{kind}\n")
        self.symlink(f"{folder}/devices/{address}", f"/sys/bus/pci/devices/{address}")
        self.symlink(f"/sys/bus/pci/devices/{address}/iommu_group", folder)

    def disk(self, name: str, folder: str, number: str) -> str:
        """A block device below a sysfs folder; returns its own folder."""
        path = f"{folder}/block/{name}"
        self.file(f"{path}/dev", f"{number}\n")
        self.block(name, path, number)
        return path

    def block(self, name: str, path: str, number: str) -> None:
        self.file(f"{path}/dev", f"{number}\n")
        self.symlink(f"/sys/class/block/{name}", path)
        self.symlink(f"/sys/dev/block/{number}", path)
        self.file(f"/dev/{name}")

    def mounts(self, *lines: str) -> None:
        self.file("/proc/self/mountinfo", "".join(f"{line}\n" for line in lines))

    def interface(self, name: str, folder: str, flags: int = 0x1003) -> None:
        self.file(f"{folder}/net/{name}/flags", f"{flags:#x}\n")
        self.symlink(f"/sys/class/net/{name}", f"{folder}/net/{name}")

    # the kernel's side

    def may_write(self, path: str) -> bool:
        return not self.readonly and self.exists(path)

    def opener(self, node: str) -> str | None:
        return "another process" if node in self.open_nodes else None

    def owner(self, path: str) -> int | None:
        return self.owners.get(path, 0) if self.exists(path) else None

    def _live(self) -> None:
        """Count a change, or die before it."""
        if self.lives is not None and self.changes >= self.lives:
            raise Killed
        self.changes += 1

    def write_file(self, path: str, text: str) -> None:
        self._live()
        super().write_file(path, text)

    def remove_file(self, path: str) -> None:
        self._live()
        super().remove_file(path)

    def write_bytes(self, path: str, offset: int, data: bytes) -> None:
        self._live()
        super().write_bytes(path, offset, data)

    def set_owner(self, path: str, user: int) -> None:
        self._live()
        if not self.exists(path):
            raise HostError(path, cause=OSError(errno.ENOENT, "No such file"))
        self.owners[path] = user

    def write(self, path: str, text: str) -> None:
        self._live()
        self.writes.append((path, text))
        folder, _, name = path.rpartition("/")
        if name == "driver_override":
            self.file(path, f"{text.strip() or '(null)'}\n")
        elif name == "unbind":
            self._detach(text)
        elif name == "bind":
            self._bind(text, Path(folder).name)
        elif name == "drivers_probe":
            self._probe(text)
        elif name == "sriov_numvfs":
            self._set_vfs(Path(folder).name, int(text))
        elif name == "sriov_drivers_autoprobe":
            self.file(path, f"{text}\n")
        elif name != "reset":
            raise AssertionError(f"no such attribute: {path}")

    def _override(self, address: str) -> str | None:
        text = self.read(f"/sys/bus/pci/devices/{address}/driver_override")
        return None if text == "(null)" else text

    def _probe(self, address: str) -> None:
        driver = self._override(address) or self.native.get(address)
        if driver is not None:
            self._bind(address, driver)

    def _bind(self, address: str, driver: str) -> None:
        if driver != (self._override(address) or self.native.get(address)):
            raise HostError("bind", cause=OSError(errno.ENODEV, "No such device"))
        if driver in self.refusing:
            raise HostError("bind", cause=OSError(errno.EINVAL, "Invalid argument"))
        self._attach(address, driver)

    def _attach(self, address: str, driver: str) -> None:
        folder = f"/sys/bus/pci/devices/{address}"
        self.symlink(f"{folder}/driver", f"/sys/bus/pci/drivers/{driver}")
        group = self.link(f"{folder}/iommu_group")
        if driver == "vfio-pci" and driver not in self.nodeless:
            if group:
                self._node(f"/dev/vfio/{group}")
            if self.has_cdevs:
                self._announce(folder, group)
        if driver == "uio_pci_generic":
            self.path(f"{folder}/uio/uio0").mkdir(parents=True)
            if driver not in self.nodeless:
                self._node("/dev/uio0")
        if driver == self.native.get(address):
            self.set_bus_master(address, True)

    def _announce(self, folder: str, group: str | None) -> None:
        """A kernel with nodes of functions and nodes of groups."""
        number = len(self.names("/dev/vfio/devices"))
        self.file(f"{folder}/vfio-dev/vfio{number}/dev", "510:0\n")
        self._node(f"/dev/vfio/devices/vfio{number}")
        if group:
            self.path(f"/sys/class/vfio/{group}").mkdir(parents=True, exist_ok=True)

    def _node(self, path: str) -> None:
        if not self.exists(path):
            self.file(path)
            self.owners.pop(path, None)

    def _detach(self, address: str) -> None:
        folder = f"/sys/bus/pci/devices/{address}"
        driver = self.link(f"{folder}/driver")
        self.path(f"{folder}/driver").unlink()
        if driver == "uio_pci_generic":
            self.path(f"{folder}/uio/uio0").rmdir()
            self.path("/dev/uio0").unlink(missing_ok=True)
        if driver == "vfio-pci":
            self._withdraw(folder)
        self.set_bus_master(address, False)

    def _withdraw(self, folder: str) -> None:
        for name in self.names(f"{folder}/vfio-dev"):
            self.path(f"{folder}/vfio-dev/{name}/dev").unlink()
            self.path(f"{folder}/vfio-dev/{name}").rmdir()
            self.path(f"/dev/vfio/devices/{name}").unlink()
        group = self.link(f"{folder}/iommu_group")
        members = self.names(f"/sys/kernel/iommu_groups/{group}/devices")
        drivers = {self.link(f"/sys/bus/pci/devices/{member}/driver") for member in members}
        if "vfio-pci" not in drivers:
            self.path(f"/dev/vfio/{group}").unlink(missing_ok=True)

    # configuration space and virtual functions

    def set_bus_master(self, address: str, on: bool) -> None:
        path = self.path(f"/sys/bus/pci/devices/{address}/config")
        data = bytearray(path.read_bytes())
        data[4] = data[4] & ~4 | on << 2
        path.write_bytes(data)

    def sriov(self, address: PciAddress, total: int) -> None:
        """Make it a physical function; its virtual ones appear in the next slots."""
        folder = f"/sys/bus/pci/devices/{address}"
        self.file(f"{folder}/sriov_totalvfs", f"{total}\n")
        self.file(f"{folder}/sriov_numvfs", "0\n")
        self.file(f"{folder}/sriov_drivers_autoprobe", "1\n")

    def _set_vfs(self, name: str, count: int) -> None:
        folder, address = f"/sys/bus/pci/devices/{name}", PciAddress.parse(name)
        now = int(self.read(f"{folder}/sriov_numvfs") or "0")
        if now and count:
            raise HostError("sriov_numvfs", cause=OSError(errno.EBUSY, "Device or resource busy"))
        if self.link(f"{folder}/driver") not in ("igb", "vfio-pci"):
            raise HostError("sriov_numvfs", cause=OSError(errno.ENOENT, "No such file"))
        for number in range(count or now):
            virtual = PciAddress(address.domain, address.bus + 1, number, 0)
            if count:
                probing = self.read(f"{folder}/sriov_drivers_autoprobe") == "1"
                self.function(virtual, driver="igbvf" if probing else None, group=90 + number)
                self.native[str(virtual)] = "igbvf"
                self.symlink(f"{folder}/virtfn{number}", f"/sys/bus/pci/devices/{virtual}")
            else:
                self.path(f"{folder}/virtfn{number}").unlink()
                self.unplug(virtual)
        self.file(f"{folder}/sriov_numvfs", f"{count}\n")

    def unplug(self, address: PciAddress) -> None:
        if self.link(f"/sys/bus/pci/devices/{address}/driver"):
            self._detach(str(address))
        group = self.link(f"/sys/bus/pci/devices/{address}/iommu_group")
        if group:
            self.path(f"/sys/kernel/iommu_groups/{group}/devices/{address}").unlink()
        shutil.rmtree(self.path(f"/sys/bus/pci/devices/{address}").resolve())
        self.path(f"/sys/bus/pci/devices/{address}").unlink()

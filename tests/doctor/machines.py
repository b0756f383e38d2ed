"""Machines as a doctor finds them: files with their content, links with where they lead."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

from uspace_drv.doctor import Observer

Files = dict[str, str | bytes]
SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
EDU = "0000:00:04.0"
SIBLING = "0000:00:04.1"
PCI = "/sys/bus/pci/devices"
DRIVERS = "/sys/bus/pci/drivers"
TYPE1 = "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"


class Machine(Observer):
    """A tree of files; nodes in `closed` are not for this user."""

    def __init__(self, root: Path, files: Files, *more: Files) -> None:
        super().__init__(root)
        self.closed: set[str] = set()
        self.add(files, *more)

    def add(self, *layers: Files) -> None:
        for layer in layers:
            for path, content in layer.items():
                target = self.path(path)
                target.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(content, str) and content.startswith("->"):
                    to = self.path(content[2:])
                    to.mkdir(parents=True, exist_ok=True)
                    target.symlink_to(os.path.relpath(to, target.parent.resolve()))
                else:
                    data = content.encode() if isinstance(content, str) else content
                    target.write_bytes(data)

    def may_use(self, path: str) -> bool:
        return path not in self.closed and super().may_use(path)


def config(*options: str) -> bytes:
    """/proc/config.gz with these options: 'VFIO=m'."""
    return gzip.compress("".join(f"CONFIG_{option}\n" for option in options).encode())


def function(address: str, *, group: int | None = None, driver: str | None = None) -> Files:
    folder = f"/sys/devices/pci0000:00/{address}"
    header = bytearray(64)
    header[0x3D] = 1
    files: Files = {
        f"{folder}/vendor": "0x1234",
        f"{folder}/device": "0x11e8",
        f"{folder}/class": "0x00ff00",
        f"{folder}/irq": "11",
        f"{folder}/resource": "0xfea00000 0xfeafffff 0x40200\n",
        f"{folder}/resource0": "",
        f"{folder}/config": bytes(header),
        f"{PCI}/{address}": f"->{folder}",
    }
    if driver is not None:
        files[f"{folder}/driver"] = f"->{DRIVERS}/{driver}"
    if group is not None:
        place = f"/sys/kernel/iommu_groups/{group}"
        files[f"{folder}/iommu_group"] = f"->{place}"
        files[f"{place}/type"] = "DMA-FQ\n"
        files[f"{place}/devices/{address}"] = f"->{folder}"
    return files


def kernel(release: str, command_line: str = "", **more: str | bytes) -> Files:
    return {
        "/proc/sys/kernel/osrelease": f"{release}\n",
        "/proc/sys/kernel/arch": "x86_64\n",
        "/proc/cmdline": f"BOOT_IMAGE=/vmlinuz {command_line}\n",
        "/proc/devices": more.get("devices", "Character devices:\n  1 mem\n"),
        "/proc/meminfo": "HugePages_Free:        4\nHugepagesize:       2048 kB\n",
    }


ROOT: Files = {
    "/proc/self/status": "Name:\tpython\nUid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n",
    "/proc/self/limits": "Max locked memory         unlimited            unlimited   bytes\n",
}
NOBODY: Files = {
    "/proc/self/status": "Name:\tpython\nUid:\t65534\t65534\t65534\t65534\nCapEff:\t0\n",
    "/proc/self/limits": "Max locked memory         8388608              8388608    bytes\n",
}
TOOLS: Files = {
    **{f"/usr/bin/{name}": "" for name in ("qemu-system-x86_64", "setpriv", "dpkg-deb")},
    "/usr/bin/apt-get": "",
    "/etc/default/grub": 'GRUB_CMDLINE_LINUX=""\n',
}
INTEL: Files = {"/proc/cpuinfo": "vendor_id\t: GenuineIntel\nflags\t\t: fpu vme\n"}
VIRTUAL: Files = {"/proc/cpuinfo": "vendor_id\t: GenuineIntel\nflags\t\t: fpu hypervisor lahf_lm\n"}
REMAPPING: Files = {"/proc/interrupts": " 0:  8  IR-IO-APIC  2-edge  timer\n"}
NO_REMAPPING: Files = {"/proc/interrupts": " 0:  8  IO-APIC  2-edge  timer\n"}

MICROVM: Files = {
    **ROOT,
    **kernel("6.18.44-fc", "reboot=k nomodule rdinit=/x -- --firecracker-init"),
    **VIRTUAL,
    "/proc/config.gz": config("PCI=y", "HUGETLBFS=y"),
}

DEBIAN_MODULES = ("vfio-pci", "vfio_iommu_type1", "uio_pci_generic")
DEBIAN: Files = {
    **ROOT,
    **INTEL,
    **TOOLS,
    **kernel("6.1.0-30-amd64", "intel_iommu=on"),
    **REMAPPING,
    "/proc/modules": "",
    "/boot/config-6.1.0-30-amd64": "".join(
        f"CONFIG_{name}=m\n" for name in ("VFIO", "VFIO_PCI", "VFIO_IOMMU_TYPE1", "UIO_PCI_GENERIC")
    )
    + "CONFIG_INTEL_IOMMU=y\n# CONFIG_IOMMUFD is not set\n",
    "/lib/modules/6.1.0-30-amd64/modules.dep": "".join(
        f"kernel/drivers/{name}.ko.xz: kernel/x.ko\n" for name in DEBIAN_MODULES
    ),
    "/sys/firmware/acpi/tables/DMAR": "",
    "/sys/class/iommu/dmar0/devices/x": "",
    **function(EDU, group=14),
}

LOADED: Files = {
    "/proc/devices": "Character devices:\n  1 mem\n242 vfio\n",
    f"{DRIVERS}/vfio-pci/bind": "",
    f"{DRIVERS}/uio_pci_generic/bind": "",
    TYPE1: "N\n",
    "/dev/vfio/vfio": "",
}

MODERN: Files = {
    **LOADED,
    "/proc/sys/kernel/osrelease": "7.3.4-uspace\n",
    "/proc/devices": "Character devices:\n242 vfio\n243 vfio-dev\n",
    "/proc/config.gz": config(
        *("VFIO_PCI=y", "IOMMUFD=y", "VFIO_NOIOMMU=y", "IOMMUFD_NOIOMMU=y", "UIO_PCI_GENERIC=y")
    ),
    "/sys/module/iommufd/parameters/allow_unsafe_interrupts": "N\n",
    "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode": "N\n",
    "/dev/iommu": "",
}


def without(files: Files, *starts: str) -> Files:
    """The same without what is below these paths."""
    return {path: each for path, each in files.items() if not path.startswith(starts)}


LAPTOP: Files = {
    **without(DEBIAN, "/sys/kernel", "/sys/class/iommu", "/sys/firmware", "/sys/devices", PCI),
    **kernel("6.1.0-30-amd64"),
    **NO_REMAPPING,
    **function(EDU),
    "/sys/firmware/efi/runtime": "",
    SECURE_BOOT: bytes([6, 0, 0, 0, 0]),
    "/usr/bin/systemctl": "",
}

LOCKED: Files = {
    **DEBIAN,
    **LOADED,
    SECURE_BOOT: bytes([6, 0, 0, 0, 1]),
    "/sys/kernel/security/lockdown": "none [integrity] confidentiality\n",
}

CONTAINER: Files = {
    **without(DEBIAN, "/lib/modules", "/boot", "/etc/default"),
    "/.dockerenv": "",
    "/proc/self/mountinfo": "500 499 0:21 / /sys ro,nosuid - sysfs sysfs ro\n",
}

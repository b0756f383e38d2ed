"""The machine around the kernel: real or virtual, in a container or not, locked down, whose user.

systemd-detect-virt(1) looks at the same files; Linux kernel_lockdown(7), proc(5), capabilities(7),
UEFI specification 2.10, section 3.3 (SecureBoot).
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from enum import IntEnum

from uspace_drv.doctor.observer import Observer
from uspace_drv.pci.nodes import user_name

_SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_LOCKDOWN = "/sys/kernel/security/lockdown"
_CONTAINERS = ("docker", "podman", "libpod", "lxc", "kubepods", "containerd", "garden")
_VENDORS = {
    "QEMU": "QEMU",
    "KVM": "KVM",
    "Amazon EC2": "Amazon EC2",
    "Google": "Google Cloud",
    "VMware": "VMware",
    "innotek": "VirtualBox",
    "Xen": "Xen",
    "Microsoft": "Hyper-V",
    "DigitalOcean": "DigitalOcean",
    "Hetzner": "Hetzner",
    "OpenStack": "OpenStack",
    "Parallels": "Parallels",
}


class Capability(IntEnum):
    """Bits of a process's capabilities (Linux include/uapi/linux/capability.h)."""

    SYS_RAWIO = 17
    SYS_ADMIN = 21


@dataclass(frozen=True)
class User:
    """Who asks; `memlock` are the soft and the hard limit in bytes, None where there is none."""

    number: int
    name: str
    capabilities: int
    memlock: tuple[int | None, int | None]

    @property
    def word(self) -> str:
        """The name as it goes into a command line."""
        return shlex.quote(self.name)

    @property
    def is_root(self) -> bool:
        """Whether commands need no sudo."""
        return self.number == 0

    def has(self, capability: Capability) -> bool:
        """Whether this process has it now."""
        return bool(self.capabilities >> capability & 1)


@dataclass(frozen=True)
class Machine:
    """`virtual` and `container` are kinds, None where it is neither; `lockdown` its level or None.

    `secure_boot` is None without UEFI. In a `sealed` container /sys is read-only: drivers are the
    host's matter. `free_huge_pages` counts those of `huge_page_size` bytes.
    """

    architecture: str
    processor: str
    virtual: str | None
    container: str | None
    sealed: bool
    lockdown: str | None
    secure_boot: bool | None
    huge_page_size: int
    free_huge_pages: int
    has_kvm: bool


def read_user(host: Observer) -> User:
    """Gather what the kernel says of this process."""
    status = dict(
        line.split(":", 1) for line in (host.read("/proc/self/status") or "").splitlines() if line
    )
    number = int((status.get("Uid") or "0 0").split()[1])
    limits = re.search(
        r"^Max locked memory +(\S+) +(\S+)", _text(host, "/proc/self/limits"), re.MULTILINE
    )
    soft, hard = limits.groups() if limits else ("unlimited", "unlimited")
    return User(
        number=number,
        name=user_name(number),
        capabilities=int(status.get("CapEff", "0").strip() or "0", 16),
        memlock=(_limit(soft), _limit(hard)),
    )


def read_machine(host: Observer) -> Machine:
    """Gather it."""
    cpu = _text(host, "/proc/cpuinfo")
    memory = _text(host, "/proc/meminfo")
    return Machine(
        architecture=host.read("/proc/sys/kernel/arch") or "unknown",
        processor=next(iter(re.findall(r"^vendor_id\s*:\s*(\S+)", cpu, re.MULTILINE)), "unknown"),
        virtual=_virtual(host, cpu),
        container=_container(host),
        sealed=_is_read_only(host, "/sys"),
        lockdown=_lockdown(host),
        secure_boot=_secure_boot(host),
        huge_page_size=_number(memory, "Hugepagesize") << 10,
        free_huge_pages=_number(memory, "HugePages_Free"),
        has_kvm=host.exists("/dev/kvm"),
    )


def _virtual(host: Observer, cpu: str) -> str | None:
    """The hypervisor, by what DMI calls the machine; a microVM has none."""
    folder = "/sys/class/dmi/id"
    told = " ".join(
        _text(host, f"{folder}/{name}") for name in ("sys_vendor", "product_name", "bios_vendor")
    )
    has_flag = re.search(r"^flags\s*:.*\bhypervisor\b", cpu, re.MULTILINE) is not None
    kind = host.read("/sys/hypervisor/type")
    if not (has_flag or kind):
        return None
    if not host.exists(folder):
        fire = "firecracker" in _text(host, "/proc/cmdline").lower()
        return "Firecracker microVM" if fire else "unknown hypervisor"
    named = (name for word, name in _VENDORS.items() if word.lower() in told.lower())
    return next(named, kind or told.strip() or "unknown hypervisor")


def _container(host: Observer) -> str | None:
    if host.exists("/.dockerenv"):
        return "docker"
    if host.exists("/run/.containerenv"):
        return "podman"
    if kind := host.read("/run/systemd/container") or host.read("/run/host/container-manager"):
        return kind
    if host.exists("/proc/vz") and not host.exists("/proc/bc"):
        return "openvz"
    groups = _text(host, "/proc/1/cgroup")
    return next((name for name in _CONTAINERS if name in groups), None)


def _is_read_only(host: Observer, point: str) -> bool:
    """Whether the last mount there is; nothing is tried out."""
    lines = (line.split() for line in _text(host, "/proc/self/mountinfo").splitlines())
    options = [words[5].split(",") for words in lines if len(words) > 5 and words[4] == point]
    return bool(options) and "ro" in options[-1]


def _lockdown(host: Observer) -> str | None:
    """The level in brackets: '[none] integrity confidentiality'."""
    found = re.search(r"\[(\w+)\]", _text(host, _LOCKDOWN))
    return found[1] if found and found[1] != "none" else None


def _secure_boot(host: Observer) -> bool | None:
    if not host.exists("/sys/firmware/efi"):
        return None
    data = host.data(_SECURE_BOOT, 5)
    return None if data is None or len(data) < 5 else data[4] == 1


def _limit(word: str) -> int | None:
    return int(word) if word.isdecimal() else None


def _number(text: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else 0


def _text(host: Observer, path: str) -> str:
    return host.read(path) or ""

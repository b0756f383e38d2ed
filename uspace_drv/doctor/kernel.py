"""The kernel: its options, what drivers it has or could load, and why it could not.

Options are read where distributions leave them (proc(5), config.gz); what a running kernel shows
(/proc/devices, module parameters) counts for more. modprobe.d(5) and Linux Documentation/
admin-guide/kernel-parameters.txt tell what keeps a module out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath

from uspace_drv.doctor.observer import Observer

_RULES = (
    "/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d",
    "/lib/modprobe.d",
)  # fmt: skip
_OPTION = re.compile(r"^CONFIG_(\w+)=(.+)$", re.MULTILINE)
NOIOMMU = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"


class ModuleState(StrEnum):
    """What is known of a driver."""

    PRESENT = "present"
    LOADABLE = "loadable"
    BLOCKED = "blocked by a rule"
    UNINSTALLED = "not installed"
    UNLOADABLE = "cannot be loaded"
    ABSENT = "not in this kernel"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Module:
    """A driver: `sign` is a path that only a kernel has that runs it, `option` what builds it."""

    name: str
    option: str
    sign: str


MODULES = (
    Module("vfio-pci", "VFIO_PCI", "/sys/bus/pci/drivers/vfio-pci"),
    Module("vfio_iommu_type1", "VFIO_IOMMU_TYPE1", "/sys/module/vfio_iommu_type1"),
    Module("iommufd", "IOMMUFD", "/sys/module/iommufd"),
    Module("uio_pci_generic", "UIO_PCI_GENERIC", "/sys/bus/pci/drivers/uio_pci_generic"),
    Module("uio_pdrv_genirq", "UIO_PDRV_GENIRQ", "/sys/bus/platform/drivers/uio_pdrv_genirq"),
)
OPTIONS = {module.name: module.option for module in MODULES}


@dataclass(frozen=True)
class Kernel:
    """What there is of it for our purposes; `parts` are options that no module of its own makes.

    `no_modules` says why nothing can be loaded; None where it can. `options_from` is the file that
    tells its options, None where nobody does; a part is then None too, unless the kernel shows it.
    """

    release: str
    options_from: str | None
    no_modules: str | None
    modules: Mapping[str, ModuleState]
    parts: Mapping[str, bool | None]
    command_line: tuple[str, ...]

    @property
    def version(self) -> tuple[int, ...]:
        """The first two numbers of the release."""
        return _version(self.release)


def read_kernel(host: Observer) -> Kernel:
    """Gather it."""
    release = host.read("/proc/sys/kernel/osrelease") or "unknown"
    command_line = tuple(host.words("/proc/cmdline"))
    source, options = _options(host, release)
    no_modules = _why_no_modules(host, release, command_line)
    files = _files(host, release)
    blocked = _blocked(host, command_line)

    def state(module: Module) -> ModuleState:
        option = options.get(module.option, "n") if source else None
        name = _plain(module.name)
        if host.exists(module.sign) or option == "y":
            return ModuleState.PRESENT
        if name in files and no_modules is None:
            return ModuleState.BLOCKED if name in blocked else ModuleState.LOADABLE
        if option == "n" or (option is None and files and no_modules is None):
            return ModuleState.ABSENT
        if no_modules is not None:
            return ModuleState.UNLOADABLE
        return ModuleState.UNINSTALLED if option == "m" else ModuleState.UNKNOWN

    return Kernel(
        release=release,
        options_from=source,
        no_modules=no_modules,
        modules={module.name: state(module) for module in MODULES},
        parts=_parts(host, release, options if source else None),
        command_line=command_line,
    )


def _options(host: Observer, release: str) -> tuple[str | None, Mapping[str, str]]:
    """The file and what is in it; options that are off are in none."""
    texts = {"/proc/config.gz": host.unpacked("/proc/config.gz")}
    for path in (f"/boot/config-{release}", f"/lib/modules/{release}/config"):
        texts[path] = host.read(path)
    for path, text in texts.items():
        if text:
            return path, dict(_OPTION.findall(text))
    return None, {}


def _parts(
    host: Observer, release: str, options: Mapping[str, str] | None
) -> Mapping[str, bool | None]:
    """Whether it has each of them; a kernel that runs VFIO shows it, another one's options do."""
    kinds = {line.split()[-1] for line in (host.read("/proc/devices") or "").splitlines() if line}
    runs = {"vfio", "vfio-dev"} & kinds or host.exists("/sys/bus/pci/drivers/vfio-pci")
    shown = {
        "VFIO_GROUP": "vfio" in kinds,
        "VFIO_DEVICE_CDEV": "vfio-dev" in kinds,
        "VFIO_NOIOMMU": host.exists(NOIOMMU),
    }
    found: dict[str, bool | None] = {}
    for name, there in shown.items():
        told = None if options is None else options.get(name) == "y"
        found[name] = there if runs else told
    if options is not None and _version(release) < (6, 2):
        found["VFIO_GROUP"] = "VFIO" in options  # it is no option of its own before Linux 6.2
    told = None if options is None else options.get("IOMMUFD_NOIOMMU") == "y"
    needs = (found["VFIO_NOIOMMU"], found["VFIO_DEVICE_CDEV"])
    found["IOMMUFD_NOIOMMU"] = False if False in needs else told
    return found


def _why_no_modules(host: Observer, release: str, command_line: tuple[str, ...]) -> str | None:
    if not host.exists("/proc/modules"):
        return "the kernel was built without loadable modules (CONFIG_MODULES)"
    if "nomodule" in command_line:
        return "'nomodule' on the kernel's command line keeps it from loading modules"
    if host.read("/proc/sys/kernel/modules_disabled") == "1":
        return "loading modules is switched off until the next start (kernel.modules_disabled)"
    if not host.exists(f"/lib/modules/{release}"):
        return f"there is no /lib/modules/{release}: its modules are not installed here"
    return None


def _files(host: Observer, release: str) -> set[str]:
    """Names of the modules that lie on disk for this kernel."""
    lines = (host.read(f"/lib/modules/{release}/modules.dep") or "").splitlines()
    paths = (PurePosixPath(line.partition(":")[0]) for line in lines)
    return {_plain(path.name.partition(".")[0]) for path in paths}


def _blocked(host: Observer, command_line: tuple[str, ...]) -> set[str]:
    """Names that not even `modprobe NAME` loads; a mere `blacklist` does not keep it from that."""
    found = {_plain(line.split()[1]) for line in _rules(host) if _is_refusal(line)}
    for word in command_line:
        name, _, names = word.partition("=")
        if name == "module_blacklist":
            found |= {_plain(each) for each in names.split(",")}
    return found


def _rules(host: Observer) -> Iterator[str]:
    """Their lines; of files with the same name the first one counts, though it be empty."""
    paths: dict[str, str] = {}
    for folder in _RULES:
        for name in host.names(folder):
            if name.endswith(".conf"):
                paths.setdefault(name, f"{folder}/{name}")
    for path in paths.values():
        yield from (host.read(path) or "").splitlines()


def _is_refusal(line: str) -> bool:
    words = line.split()
    return len(words) > 2 and words[0] == "install" and words[2] in _NOTHING


_NOTHING = {"/bin/false", "/bin/true", "/usr/bin/false", "/usr/bin/true", "false", "true", ":"}


def _version(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", release)[:2])


def _plain(name: str) -> str:
    return name.replace("-", "_")

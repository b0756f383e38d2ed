"""The machine in words: what its figures depend on, and nothing that says whose it is.

Linux Documentation/admin-guide/kernel-parameters.txt and Documentation/ABI/testing/sysfs-*. Results
are published, so there are no names of hosts or users, no paths, serial numbers or MAC addresses.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from uspace_drv.bench.results import Machine
from uspace_drv.doctor.iommu import GROUPS, read_iommu
from uspace_drv.doctor.machine import read_machine
from uspace_drv.doctor.observer import Observer

TIMEOUT = 10.0
"""Seconds for a program to say its version; a guest without KVM needs some."""

_CPU = "/sys/devices/system/cpu"
_OPTIONS = re.compile(
    r"(mitigations|spec\w+|spectre\w*|no(spec|spectre)\w*|l1tf|mds|tsx\w*|retbleed|srbds|pti|nopti"
    r"|mmio_stale_data|gather_data_sampling|isolcpus|nohz|nohz_full|rcu_nocbs|irqaffinity|nosmt"
    r"|maxcpus|nr_cpus|mem|idle|nohlt|tsc|clocksource|hpet|highres|preempt|threadirqs|skew_tick"
    r"|\w*watchdog|numa_balancing|transparent_hugepage|(default_)?hugepagesz|hugepages|hugetlb_\w+"
    r"|(intel_|amd_)?iommu|intremap|swiotlb|nox2apic|pcie_aspm|intel_pstate|amd_pstate"
    r"|(iommu|intel_idle|processor|cpufreq|cpuidle|cpuidle_haltpoll|haltpoll|nvme|nvme_core|vfio"
    r"|vfio_\w+|kvm|kvm_\w+|rcupdate|rcutree|workqueue)\.\w+)(=[\w.,:+-]*)?"
)
"""Words of the kernel's command line that figures depend on; others may tell whose it is."""


def fingerprint(device: str | None = None, *, host: Observer | None = None) -> Machine:
    """Gather the facts; one that this machine does not tell is left out. Nothing here fails.

    `device` is the address of a PCI function whose ids, link and driver, the one that has it
    now, belong to them.
    """
    seen = host or Observer()
    facts = {
        "processor": _processor(seen),
        "processors": _processors(seen),
        "memory": _memory(seen),
        "frequency governor": _governor(seen),
        "clock source": _line(
            seen, "/sys/devices/system/clocksource/clocksource0/current_clocksource"
        ),
        "virtualisation": _virtualisation(seen),
        "kernel": f"{platform.system()} {platform.release()} {platform.version()}",
        "kernel options": " ".join(filter(_OPTIONS.fullmatch, seen.words("/proc/cmdline"))),
        "mitigations": _mitigations(seen),
        "IOMMU": _iommu(seen),
        "huge pages": _huge_pages(seen),
        "device": _device(seen, device) if device else "",
        "libc": " ".join(platform.libc_ver()).strip(),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "uspace_drv": " ".join(filter(None, (_version("uspace-drv"), _commit()))),
        "numpy": _version("numpy"),
        "QEMU": _program("qemu-system-x86_64", r"version (\S+)"),
        "fio": _program("fio", r"fio-(\S+)"),
    }
    return Machine(facts={name: fact for name, fact in facts.items() if fact})


def _processor(host: Observer) -> str:
    info = host.read("/proc/cpuinfo") or ""
    told = dict(re.findall(r"^([^:\t]+?)\s*:[ \t]*(.*)$", info, re.MULTILINE))
    names = ("cpu family", "model", "stepping", "microcode", "CPU implementer", "CPU part")
    more = ", ".join(f"{name} {told[name]}" for name in names if told.get(name))
    name = told.get("model name", platform.machine())
    return f"{name} ({more})" if more else name


def _processors(host: Observer) -> str:
    words = [f"{len(os.sched_getaffinity(0))} of {os.cpu_count()}"]
    if host.read(f"{_CPU}/smt/active") == "1":
        words.append("two threads a core")
    if isolated := host.read(f"{_CPU}/isolated"):
        words.append(f"isolated: {isolated}")
    if nodes := host.read("/sys/devices/system/node/online"):
        words.append(f"NUMA nodes: {nodes}")
    return ", ".join(words)


def _memory(host: Observer) -> str:
    found = re.search(r"^MemTotal:\s+(\d+) kB", host.read("/proc/meminfo") or "", re.MULTILINE)
    return f"{int(found[1]) / 2**20:.1f} GiB" if found else ""


def _governor(host: Observer) -> str:
    folder = f"{_CPU}/cpu0/cpufreq"
    words = [host.read(f"{folder}/scaling_governor"), host.read(f"{folder}/scaling_driver")]
    if (
        host.read(f"{_CPU}/intel_pstate/no_turbo") == "1"
        or host.read(f"{_CPU}/cpufreq/boost") == "0"
    ):
        words.append("no turbo")
    return ", ".join(filter(None, words))


def _virtualisation(host: Observer) -> str:
    machine = read_machine(host)
    inside = f"in a container ({machine.container})" if machine.container else ""
    return ", ".join(filter(None, (machine.virtual, inside))) or "none"


def _mitigations(host: Observer) -> str:
    folder = f"{_CPU}/vulnerabilities"
    told = {name: host.read(f"{folder}/{name}") or "" for name in host.names(folder)}
    return " | ".join(f"{name}: {text}" for name, text in told.items() if text != "Not affected")


def _iommu(host: Observer) -> str:
    iommu = read_iommu(host, host.words("/proc/cmdline"))
    if not iommu.is_on:
        return "none"
    kinds = sorted({unit.rstrip("0123456789") for unit in iommu.units})
    found = {host.read(f"{GROUPS}/{group}/type") for group in host.names(GROUPS)}
    return ", ".join([*kinds, *sorted(filter(None, found))])


def _huge_pages(host: Observer) -> str:
    folder = "/sys/kernel/mm/hugepages"
    words = []
    for name in host.names(folder):
        count = host.read(f"{folder}/{name}/nr_hugepages")
        if count and count != "0":
            words.append(f"{count} of {name.removeprefix('hugepages-')}")
    chosen = re.search(r"\[(\w+)\]", host.read("/sys/kernel/mm/transparent_hugepage/enabled") or "")
    if chosen:
        words.append(f"transparent: {chosen[1]}")
    return ", ".join(words)


def _device(host: Observer, device: str) -> str:
    """What the function is; an address that is none of a PCI function here says nothing."""
    full = device if device.count(":") > 1 else f"0000:{device}"
    folder = f"/sys/bus/pci/devices/{full}"
    if not re.fullmatch(r"[0-9a-fA-F:.]+", full) or not host.exists(folder):
        return ""
    names = ("vendor", "device", "class", "revision", "current_link_speed", "current_link_width")
    told = [(name, _line(host, f"{folder}/{name}")) for name in names]
    told.append(("driver", host.link(f"{folder}/driver") or ""))
    return ", ".join(f"{name.replace('_', ' ')} {text}" for name, text in told if text)


def _line(host: Observer, path: str) -> str:
    return host.read(path) or ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _commit() -> str:
    """The commit of the checkout that this is run from, if it is one; without its tags' names."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists() or (git := shutil.which("git")) is None:
        return ""
    words = ("describe", "--always", "--dirty= + changes", "--abbrev=12", "--exclude=*")
    told = _output([git, "-c", "safe.directory=*", "-C", str(root), *words])
    return told if re.fullmatch(r"[0-9a-f]+( \+ changes)?", told) else ""


def _program(name: str, pattern: str) -> str:
    path = shutil.which(name)
    found = re.search(pattern, _output([path, "--version"])) if path else None
    return found[1] if found else ""


def _output(words: list[str]) -> str:
    """Return what a program prints; nothing if it fails or takes too long."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=TIMEOUT, check=True, env=environment
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return done.stdout.strip()

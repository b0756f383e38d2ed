"""The IOMMU: whether the firmware shows one, whether the kernel runs it, and how to switch it on.

ACPI tables DMAR, IVRS, VIOT and IORT name it; Linux Documentation/ABI/testing/sysfs-class-iommu and
sysfs-kernel-iommu_groups show what runs, kernel-parameters.txt the words (intel_iommu=, iommu=).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from uspace_drv.doctor.observer import Observer

_TABLES = ("DMAR", "IVRS", "VIOT", "IORT")
_SELFTEST = "iommufd_selftest_iommu"  # a mock that a kernel for tests has beside none
_OFF = ("intel_iommu=off", "amd_iommu=off", "iommu=off")
_ABOUT = ("intel_iommu=", "amd_iommu=", "iommu=", "iommu.", "arm-smmu", "intremap=")
GROUPS = "/sys/kernel/iommu_groups"


@dataclass(frozen=True)
class Iommu:
    """`tables` are the firmware's, `units` what the kernel runs, `words` what it was told.

    `groups` counts those with PCI functions. `remaps_interrupts` is None where that cannot be told.
    """

    tables: tuple[str, ...]
    units: tuple[str, ...]
    words: tuple[str, ...]
    groups: int
    remaps_interrupts: bool | None
    allows_unsafe_interrupts: tuple[str, ...]

    @property
    def is_on(self) -> bool:
        """Whether it translates for PCI functions."""
        return bool(self.units) and self.groups > 0


def read_iommu(host: Observer, command_line: Sequence[str]) -> Iommu:
    """Gather it; only names of tables are looked at, their content is root's."""
    tables = host.names("/sys/firmware/acpi/tables")
    units = [name for name in host.names("/sys/class/iommu") if not name.startswith(_SELFTEST)]
    modules = ("vfio_iommu_type1", "iommufd")
    return Iommu(
        tables=tuple(name for name in _TABLES if name in tables),
        units=tuple(units),
        words=tuple(word for word in command_line if word.startswith(_ABOUT)),
        groups=sum(_has_functions(host, number) for number in host.names(GROUPS)),
        remaps_interrupts=_remaps(host) if units else None,
        allows_unsafe_interrupts=tuple(
            name for name in modules if host.read(unsafe_interrupts(name)) == "Y"
        ),
    )


def unsafe_interrupts(module: str) -> str:
    """The parameter that lets a device in though it could forge interrupts."""
    return f"/sys/module/{module}/parameters/allow_unsafe_interrupts"


def switch_on(host: Observer, iommu: Iommu, processor: str, sudo: str) -> tuple[str, ...]:
    """Command lines after which the kernel runs it, if the firmware shows one by then."""
    off = [word for word in iommu.words if word in _OFF]
    is_intel = "DMAR" in iommu.tables or processor == "GenuineIntel"
    add = "intel_iommu=on" if is_intel and "intel_iommu=on" not in iommu.words else None
    if not off and add is None:
        return ()
    if host.program("grubby"):
        words = [f'--remove-args="{" ".join(off)}"'] if off else []
        words += [f"--args={add}"] if add else []
        return (f"{sudo}grubby --update-kernel=ALL {' '.join(words)}",)
    if _takes_edits(host.read("/etc/default/grub") or "", off, add):
        edits = [rf"s/ *\b{word}\b//" for word in off]  # iommu=off is no part of intel_iommu=off
        edits += [f's/^GRUB_CMDLINE_LINUX="/&{add} /'] if add else []
        program = " ".join(f"-e '{edit}'" for edit in edits)
        return (f"{sudo}sed -i {program} /etc/default/grub", _make_grub(host, sudo))
    words = [f"without {word}" for word in off] + ([f"with {add}"] if add else [])
    return (f"# start the kernel {' and '.join(words)} on its command line",)


def _takes_edits(grub: str, off: Sequence[str], add: str | None) -> bool:
    """Whether the file has what the edits look for; they change nothing without a word of it."""
    has_line = add is None or re.search(r'^GRUB_CMDLINE_LINUX="', grub, re.MULTILINE)
    return bool(grub and has_line) and all(word in grub for word in off)


def _make_grub(host: Observer, sudo: str) -> str:
    if host.exists("/boot/grub2") and not host.program("update-grub"):
        return f"{sudo}grub2-mkconfig -o /boot/grub2/grub.cfg"
    return f"{sudo}update-grub"


def _has_functions(host: Observer, number: str) -> bool:
    folder = f"{GROUPS}/{number}"
    members = host.names(f"{folder}/devices")
    # VFIO without an IOMMU makes up groups of its own.
    made_up = host.read(f"{folder}/name") == "vfio-noiommu"
    return not made_up and any(name.count(":") == 2 for name in members)


def _remaps(host: Observer) -> bool | None:
    """An x86 kernel puts 'IR-' before the name of each controller whose interrupts it remaps."""
    controllers = host.words("/proc/interrupts")
    if any(word.startswith("IR-") for word in controllers):
        return True
    return False if "IO-APIC" in controllers else None

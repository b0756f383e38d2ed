"""One PCI function as a patient: who has it, what stands on it, who shares its IOMMU group.

Linux Documentation/driver-api/vfio.rst (groups), PCI 3.0 section 6.2.4 (Interrupt Pin).
"""

from __future__ import annotations

from dataclasses import dataclass

from uspace_drv.backends.vfio.nodes import blockers_of
from uspace_drv.doctor.iommu import GROUPS
from uspace_drv.doctor.observer import Observer
from uspace_drv.errors import NoDevice
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.config import HEADER_SIZE, ConfigHeader
from uspace_drv.pci.in_use import uses_of
from uspace_drv.pci.sysfs import DEVICES, PciBus, PciFunction

_PIN = ConfigHeader.interrupt_pin.offset


@dataclass(frozen=True)
class Sibling:
    """A member of the group whose driver keeps VFIO from handing the group out."""

    address: str
    driver: str
    uses: tuple[str, ...]
    is_bridge: bool


@dataclass(frozen=True)
class Subject:
    """`uses` are what of this machine would be lost with the function; then it is left alone.

    `pin` is the INTx pin (1 to 4), 0 for none, None where that cannot be read. `needs_identity`
    marks one that the firmware wants mapped one to one (RMRR), which VFIO refuses.
    """

    function: PciFunction
    uses: tuple[str, ...]
    siblings: tuple[Sibling, ...]
    pin: int | None
    needs_identity: bool

    @property
    def address(self) -> str:
        """The PCI address."""
        return str(self.function.address)

    @property
    def folder(self) -> str:
        """Where sysfs has it."""
        return f"{DEVICES}/{self.address}"

    @property
    def files(self) -> tuple[str, ...]:
        """What a driver without VFIO opens of it: configuration space and BARs."""
        bars = (bar.number for bar in self.function.resources if bar.number < 6)
        return tuple(
            f"{self.folder}/{name}" for name in ("config", *(f"resource{n}" for n in bars))
        )

    @property
    def has_iommu(self) -> bool:
        """Whether it is in a group of a real IOMMU."""
        group = self.function.group
        return group is not None and not group.is_noiommu

    @property
    def is_candidate(self) -> bool:
        """Whether it could be handed to user space without harm."""
        return not self.function.is_bridge and not self.uses


def read_subject(host: Observer, address: PciAddress) -> Subject:
    """Examine it; `NoDevice` where there is no such function."""
    bus = PciBus(host=host)
    function = bus.function(address)
    blockers = blockers_of(function.group, bus) if function.group else []
    others = [each for each in blockers if each.address != function.address]
    header = host.data(f"{DEVICES}/{address}/config", HEADER_SIZE) or b""
    return Subject(
        function=function,
        uses=_uses(host, address),
        siblings=tuple(
            Sibling(str(each.address), each.driver or "", _uses(host, each.address), each.is_bridge)
            for each in others
        ),
        pin=header[_PIN] if len(header) > _PIN else None,
        needs_identity=_needs_identity(host, function),
    )


def read_candidates(host: Observer) -> tuple[tuple[str, ...], int]:
    """The addresses of those that could be handed over, and how many functions there are."""
    bus = PciBus(host=host)
    found, count = [], 0
    for address in bus.addresses():
        try:
            subject = read_subject(host, address)
        except NoDevice:
            continue  # gone meanwhile
        count += 1
        if subject.is_candidate:
            found.append(subject.address)
    return tuple(found), count


def read_shared_groups(host: Observer) -> dict[int, tuple[str, ...]]:
    """The groups of several functions that VFIO would refuse, with those that are in the way."""
    bus = PciBus(host=host)
    groups = {each.group.number: each.group for each in bus.functions() if each.group}
    found = {}
    for number, group in sorted(groups.items()):
        blockers = tuple(f"{each.address} ({each.driver})" for each in blockers_of(group, bus))
        if blockers and not group.is_noiommu:
            found[number] = blockers
    return found


def _uses(host: Observer, address: PciAddress) -> tuple[str, ...]:
    return tuple(use.what for use in uses_of(address, host))


def _needs_identity(host: Observer, function: PciFunction) -> bool:
    """A region of type 'direct' (Documentation/ABI/testing/sysfs-kernel-iommu_groups)."""
    if function.group is None:
        return False
    regions = host.read(f"{GROUPS}/{function.group.number}/reserved_regions") or ""
    return any(line.split()[2:] == ["direct"] for line in regions.splitlines())

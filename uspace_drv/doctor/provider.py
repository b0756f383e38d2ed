"""What to ask those for who own the machine below this one, in one paragraph.

Names of settings are those of QEMU's manual (intel-iommu), VMware's and Amazon's documentation.
"""

from __future__ import annotations

from collections.abc import Sequence

from uspace_drv.doctor.facts import Facts
from uspace_drv.doctor.kernel import ModuleState
from uspace_drv.doctor.verdict import State, Verdict


def request_to_provider(facts: Facts, verdicts: Sequence[Verdict]) -> str | None:
    """The paragraph; None for a real machine, or where VFIO works with an IOMMU."""
    machine = facts.machine
    served = any(
        verdict.state is not State.CANNOT and "noiommu" not in verdict.way
        for verdict in verdicts
        if verdict.way.startswith("vfio-") and verdict.is_real
    )
    spared = facts.subject is None or facts.subject.is_candidate
    if served or not spared or not (machine.virtual or machine.container):
        return None
    wishes = [*_wishes(facts)]
    *most, last = wishes
    listed = f"{'; '.join(most)}; and {last}" if most else last
    return (
        "I write a device driver that runs in user space (Linux VFIO). For that I need "
        f"{listed}. If that cannot be had in this plan: which of your plans is a machine of its "
        "own (bare metal), where I can switch the IOMMU on myself?"
    )


def _wishes(facts: Facts) -> list[str]:
    machine, kernel = facts.machine, facts.kernel
    wishes = []
    if machine.virtual and not facts.iommu.is_on:
        wishes.append(
            "an IOMMU with interrupt remapping that my virtual machine can see (QEMU: -machine "
            "q35,kernel-irqchip=split -device intel-iommu,intremap=on; VMware: 'Expose IOMMU to "
            "the guest OS'; Amazon: a .metal instance)"
        )
    if kernel.modules["vfio-pci"] is not ModuleState.PRESENT and (
        kernel.no_modules or kernel.modules["vfio-pci"] is ModuleState.ABSENT
    ):
        wishes.append(
            "a kernel of my own choice, or yours with loadable modules and CONFIG_VFIO_PCI, "
            "CONFIG_IOMMUFD, CONFIG_VFIO_DEVICE_CDEV and CONFIG_UIO_PCI_GENERIC"
        )
    if machine.sealed:
        wishes.append(
            "a virtual machine instead of a container, or the container started with the nodes "
            "below /dev/vfio of a device that you bound to vfio-pci"
        )
    if facts.subject is None and not facts.candidates:
        wishes.append(
            "the device passed through as a PCI function of its own: all that I have now are "
            "those that the machine runs on"
        )
    return wishes or ["a device in an IOMMU group of its own, bound to vfio-pci"]

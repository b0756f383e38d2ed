"""Judges the five ways through VFIO, with an IOMMU and without.

Linux Documentation/driver-api/vfio.rst; what each refusal of the kernel means is in
drivers/vfio/vfio_iommu_type1.c, drivers/vfio/group.c and drivers/iommu/iommufd/device.c.
"""

from __future__ import annotations

from collections.abc import Mapping

from uspace_drv.backends.vfio.ways import nodes_of
from uspace_drv.doctor.facts import Facts
from uspace_drv.doctor.iommu import switch_on, unsafe_interrupts
from uspace_drv.doctor.kernel import NOIOMMU
from uspace_drv.doctor.machine import Capability
from uspace_drv.doctor.subject import Subject
from uspace_drv.doctor.verdict import Case, Verdict
from uspace_drv.pci.nodes import VFIO
from uspace_drv.pci.sysfs import DEVICES

MODULES: Mapping[str, str | None] = {
    "vfio-cdev": "iommufd",
    "vfio-type1": "vfio_iommu_type1",
    "vfio-compat": "iommufd",
    "vfio-noiommu-cdev": "iommufd",
    "vfio-noiommu": None,
}
"""By way the module that it needs beside vfio-pci."""

_PARTS = {
    "vfio-cdev": ("VFIO_DEVICE_CDEV",),
    "vfio-type1": ("VFIO_GROUP",),
    "vfio-compat": ("VFIO_GROUP",),
    "vfio-noiommu-cdev": ("VFIO_NOIOMMU", "VFIO_DEVICE_CDEV", "IOMMUFD_NOIOMMU"),
    "vfio-noiommu": ("VFIO_NOIOMMU", "VFIO_GROUP"),
}
_SINCE = {"VFIO_DEVICE_CDEV": ((6, 6), "Linux 6.6 with "), "IOMMUFD_NOIOMMU": ((7,), "")}


def judge_vfio(way: str, facts: Facts) -> Verdict:
    """Say what can be of it, for the function that was asked about or for any."""
    case = facts.case(way)
    without = "noiommu" in way
    _check_kernel(case, way, facts)
    _check_iommu(case, facts, without=without)
    if facts.subject is None:
        check_candidates(case, facts)
    else:
        check_use(case, facts.subject)
        _check_group(case, facts.subject, facts)
    if without:
        _check_without(case, facts)
    else:
        _check_interrupts(case, way, facts)
    if facts.subject is not None and not case.is_hopeless:
        _check_binding(case, way, facts.subject, facts)
    if way == "vfio-type1" and not facts.user.is_root:
        _note_memory(case, facts)
    return case.verdict()


def check_candidates(case: Case, facts: Facts) -> None:
    """Without a function that could be spared there is nothing to open."""
    if not facts.function_count:
        case.cannot("this machine has no PCI functions")
    elif not facts.candidates:
        case.cannot("the machine itself lives on every PCI function that it has")


def check_use(case: Case, subject: Subject) -> None:
    """What the machine needs is never handed over."""
    if subject.function.is_bridge:
        case.cannot("a bridge stays with the kernel: ask about the functions behind it")
    for use in subject.uses:
        case.cannot(f"never: this machine lives on it: {use}")


def bind_line(facts: Facts, subject: Subject, driver: str) -> str:
    """The command line that hands the function to that driver, and to this user."""
    default = VFIO if subject.function.group is not None else "uio_pci_generic"
    choice = "" if driver == default else f" --driver {driver}"
    user = "" if facts.user.is_root else f" --user {facts.user.word}"
    return f"{facts.sudo}uspace bind {subject.address}{choice}{user}"


def _check_kernel(case: Case, way: str, facts: Facts) -> None:
    facts.require_module(case, VFIO)
    if case.is_hopeless:
        return
    module = MODULES[way]
    if module is not None:
        facts.require_module(case, module)
    for part in _PARTS[way]:
        there = facts.kernel.parts[part]
        version, words = _SINCE.get(part, ((0, 0), ""))
        if there is False or (there is None and facts.kernel.version < version):
            case.cannot(f"needs {words}CONFIG_{part}; this is {facts.kernel.release}")
        elif there is None:
            case.needs(
                f"nothing here tells whether the kernel has CONFIG_{part} until VFIO is loaded",
                f"{facts.sudo}modprobe {VFIO}",
                "uspace doctor",
            )


def _check_iommu(case: Case, facts: Facts, *, without: bool) -> None:
    """A way without an IOMMU is for functions that have none, and the other way round."""
    subject = facts.subject
    has_iommu = facts.iommu.is_on if subject is None else subject.has_iommu
    if without and has_iommu:
        case.cannot("there is an IOMMU, so VFIO opens nothing without it; take a way above")
    elif not without and not has_iommu:
        _explain_missing(case, facts)


def _explain_missing(case: Case, facts: Facts) -> None:
    """Why there is no IOMMU, and what switches it on."""
    iommu, machine = facts.iommu, facts.machine
    if iommu.is_on:
        case.cannot("the IOMMU of this machine does not cover the function: it is in no group")
        return
    lines = switch_on(facts.host, iommu, machine.processor, facts.sudo)
    if iommu.tables and lines:
        words = ", ".join(iommu.tables)
        case.needs(
            f"there is an IOMMU ({words}), and the kernel was not told to use it",
            *lines,
            f"{facts.sudo}reboot",
        )
    elif iommu.tables or iommu.units:
        case.cannot(
            "the firmware shows an IOMMU, but the kernel does not use it: it was built without "
            "(CONFIG_INTEL_IOMMU, CONFIG_AMD_IOMMU, CONFIG_VIRTIO_IOMMU), or see dmesg"
        )
    elif machine.virtual:
        case.cannot(f"no IOMMU: the hypervisor shows none to this machine ({machine.virtual})")
    elif machine.architecture not in ("x86_64", "unknown"):
        case.cannot("no IOMMU: neither the device tree nor the firmware shows one")
    else:
        case.needs(
            "no IOMMU: the firmware shows none; switch on VT-d (Intel) or AMD-Vi (IOMMU) there",
            *lines,
            _setup_line(facts),
        )


def _setup_line(facts: Facts) -> str:
    if facts.host.exists("/sys/firmware/efi") and facts.host.program("systemctl"):
        return f"{facts.sudo}systemctl reboot --firmware-setup"
    return f"{facts.sudo}reboot  # and enter the firmware's setup"


def _check_group(case: Case, subject: Subject, facts: Facts) -> None:
    group = subject.function.group
    if group is None:
        return
    if subject.needs_identity:
        case.cannot(
            f"the firmware wants group {group.number} mapped one to one (RMRR), which VFIO refuses"
        )
    for sibling in subject.siblings:
        named = f"group {group.number} is shared with {sibling.address} ({sibling.driver})"
        if sibling.is_bridge:
            # shpchp, say. pcieport may stay: it leaves alone what the bridge itself does to memory.
            unbind = f"{DEVICES}/{sibling.address}/driver/unbind"
            case.needs(
                f"{named}, a bridge whose driver has to let go of it; the bridge goes on working",
                f"echo {sibling.address} | {facts.sudo}tee {unbind}",
            )
        elif sibling.uses:
            case.cannot(f"{named}, on which this machine lives: {sibling.uses[0]}")
        else:
            case.needs(
                f"{named}, which must be handed over too",
                f"{facts.sudo}uspace bind {sibling.address}",
            )


def _check_interrupts(case: Case, way: str, facts: Facts) -> None:
    """Without remapping a device could raise any interrupt by a write to memory."""
    module = MODULES[way]
    unsafe = facts.iommu.allows_unsafe_interrupts
    if facts.iommu.remaps_interrupts is not False or module is None or module in unsafe:
        return
    case.needs(
        "the IOMMU does not remap interrupts, so a device could forge them: only for one you trust",
        facts.setting("1", unsafe_interrupts(module)),
    )


def _check_without(case: Case, facts: Facts) -> None:
    case.note("RISK: nothing keeps the device from any memory; the kernel is marked as tainted")
    if not facts.user.has(Capability.SYS_RAWIO):
        case.cannot(
            "only root (CAP_SYS_RAWIO) opens a function without an IOMMU: ask again as root, or "
            "let root lend the device: uspace broker"
        )
    if facts.host.read(NOIOMMU) != "Y":
        case.needs(
            "the kernel does not allow it yet (a risk: see the note)",
            facts.setting("1", NOIOMMU),
        )


def _check_binding(case: Case, way: str, subject: Subject, facts: Facts) -> None:
    """Bound, its nodes there, and ours to open."""
    function = subject.function
    bind = bind_line(facts, subject, VFIO)
    if function.driver != VFIO and function.cdev is None:
        case.needs(f"bound to {function.driver or 'no driver'}, not to {VFIO}", bind)
        return
    nodes = nodes_of(function).get(way)
    if nodes is None:
        case.cannot(f"it is bound to {function.driver}, and the kernel made no node for this way")
        return
    for node in nodes:
        if not facts.host.exists(node):
            inside = facts.machine.container
            cure = f": start the container with --device {node}" if inside else ""
            case.cannot(f"there is no {node}{cure}")
        elif not facts.host.may_use(node):
            case.needs(f"{facts.user.name} may not open {node}", *_open_up(node, bind, facts))


def _open_up(node: str, bind: str, facts: Facts) -> tuple[str, ...]:
    """What gives the user a node; the container's is for all, and binding does not touch it."""
    if node == "/dev/vfio/vfio":
        return (bind, f"{facts.sudo}chmod 666 {node}")
    return (bind,)


def _note_memory(case: Case, facts: Facts) -> None:
    soft = facts.user.memlock[0]
    if soft is not None:
        case.note(
            f"DMA memory of at most {soft >> 10} KiB (memlock); more: "
            f"sudo prlimit --pid $$ --memlock=unlimited"
        )

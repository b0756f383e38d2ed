"""Judges the ways without VFIO: UIO, sysfs, and those that lead to models instead of hardware.

Linux Documentation/driver-api/uio-howto.rst and PCI/sysfs-pci.rst; kernel_lockdown(7).
"""

from __future__ import annotations

from uspace_drv.doctor.facts import Facts
from uspace_drv.doctor.kernel import ModuleState
from uspace_drv.doctor.machine import Capability
from uspace_drv.doctor.subject import Subject
from uspace_drv.doctor.verdict import Case, Verdict
from uspace_drv.doctor.vfio_ways import bind_line, check_candidates, check_use
from uspace_drv.pci.nodes import UIO
from uspace_drv.testing.guest.initramfs import is_static
from uspace_drv.testing.guest.programs import PACKAGES

_UIO_PLATFORM = "uio_pdrv_genirq"
_GUEST = ("qemu-system-x86_64", "busybox", "setpriv", "dpkg-deb", "apt-get")


def judge_uio(facts: Facts) -> Verdict:
    """A PCI function through uio_pci_generic."""
    case = facts.case("uio")
    facts.require_module(case, UIO)
    _check_lockdown(case, facts)
    subject = facts.subject
    if subject is None:
        check_candidates(case, facts)
        _note_dma(case, facts, translated=facts.iommu.is_on)
        return case.verdict()
    check_use(case, subject)
    function, bind = subject.function, bind_line(facts, subject, UIO)
    if function.driver != UIO:
        case.needs(f"bound to {function.driver or 'no driver'}, not to {UIO}", bind)
    else:
        for path in (f"/dev/{function.uio}", *subject.files):
            if not facts.host.may_use(path):
                case.needs(f"{facts.user.name} may not open {path}", bind)
    if subject.pin == 0 or not function.irq:
        case.note("no INTx, the one interrupt that UIO knows: poll")
    _note_dma(case, facts, translated=function.is_translated)
    return case.verdict()


def judge_platform(facts: Facts) -> Verdict:
    """A device of the board that some driver of the kernel shows through UIO."""
    case = facts.case("uio-platform")
    nodes = facts.nodes if facts.node is None else [facts.node]
    for node in nodes:
        if not facts.host.exists(node.path):
            case.cannot(f"there is no {node.path}: start the container with --device {node.path}")
        elif not facts.host.may_use(node.path):
            chown = f"{facts.sudo}chown {facts.user.word} {node.path}"
            case.needs(f"{facts.user.name} may not open {node.path} ({node.name})", chown)
        else:
            case.note(f"uio:{node.node} ({node.name})")
    if nodes:
        return case.verdict()
    state = facts.kernel.modules[_UIO_PLATFORM]
    if state in (ModuleState.PRESENT, ModuleState.LOADABLE):
        case.cannot(
            "no device of the board is shown through UIO: a device tree or an ACPI table has to "
            f"give one to {_UIO_PLATFORM}"
        )
    else:
        facts.require_module(case, _UIO_PLATFORM)
    return case.verdict()


def judge_sysfs(facts: Facts) -> Verdict:
    """The files of a function without a driver: registers, polling, no DMA."""
    case = facts.case("sysfs")
    _check_lockdown(case, facts)
    case.note("registers only: no interrupts, no DMA")
    subject = facts.subject
    if subject is None:
        check_candidates(case, facts)
        if not facts.user.is_root:
            case.note("the files belong to root")
        return case.verdict()
    check_use(case, subject)
    function = subject.function
    if function.driver is not None:
        unbind = f"echo {subject.address} | {facts.sudo}tee {subject.folder}/driver/unbind"
        case.needs(f"{function.driver} has it", unbind)
    _check_files(case, subject, facts)
    return case.verdict()


def judge_vfio_user(facts: Facts) -> Verdict:
    """A model in a process of its own."""
    return _of_models("vfio-user", "a device model in another process: uspace serve edu SOCKET")


def judge_virtual(facts: Facts) -> Verdict:
    """A model in this process."""
    return _of_models("virtual", "a device model in this process: uspace demo")


def judge_guest(facts: Facts) -> Verdict:
    """A machine in QEMU, which has all of the above: for tests with a real kernel."""
    case = Case("guest", is_real=False)
    if facts.machine.architecture not in ("x86_64", "unknown"):
        case.cannot(f"guests run on x86-64 only; this is {facts.machine.architecture}")
    missing = [name for name in _GUEST if facts.host.program(name) is None]
    shell = facts.host.program("busybox")
    if shell is not None and not is_static(facts.host.data(shell) or bytes(64)):
        missing.append("busybox")  # one that needs libraries cannot run alone
    if "apt-get" in missing:
        case.cannot("kernels and programs for guests are Debian's, and there is no apt-get")
    elif missing:
        packages = " ".join(PACKAGES[name] for name in missing)
        line = f"{facts.sudo}apt-get install {packages}"
        case.needs(f"not installed: {', '.join(missing)}", line)
    case.note(
        "QEMU in software; KVM is not used" + (", though it is there" * facts.machine.has_kvm)
    )
    return case.verdict()


def _of_models(way: str, what: str) -> Verdict:
    case = Case(way, is_real=False)
    case.note(what)
    return case.verdict()


def _check_lockdown(case: Case, facts: Facts) -> None:
    """A locked kernel lets nobody write configuration space or map a BAR, except through VFIO."""
    machine = facts.machine
    if machine.lockdown is not None:
        because = ", as Secure Boot wants it" if machine.secure_boot else ""
        case.cannot(
            f"the kernel is locked down ({machine.lockdown}{because}): BARs are for VFIO alone"
        )


def _check_files(case: Case, subject: Subject, facts: Facts) -> None:
    closed = [path for path in subject.files if not facts.host.may_use(path)]
    if closed:
        case.needs(
            f"its files do not belong to {facts.user.name}",
            f"{facts.sudo}chown {facts.user.word} {' '.join(subject.files)}",
        )


def _note_dma(case: Case, facts: Facts, *, translated: bool) -> None:
    if translated:
        case.note("no DMA: the IOMMU translates, and UIO cannot tell it where memory is")
        return
    case.note("RISK: nothing keeps the device from any memory")
    wants = []
    if not facts.user.has(Capability.SYS_ADMIN):
        wants.append("root (CAP_SYS_ADMIN)")
    if not facts.machine.free_huge_pages:
        wants.append(f"huge pages ({facts.setting('8', '/proc/sys/vm/nr_hugepages')})")
    if wants:
        case.note(f"DMA takes {' and '.join(wants)}")

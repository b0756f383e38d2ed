"""All that is known before anything is judged, and how commands begin for this user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from uspace_drv.backends.uio_node import UioNode, find_node, uio_nodes
from uspace_drv.doctor.iommu import Iommu, read_iommu
from uspace_drv.doctor.kernel import OPTIONS, Kernel, ModuleState, read_kernel
from uspace_drv.doctor.machine import Machine, User, read_machine, read_user
from uspace_drv.doctor.observer import Observer
from uspace_drv.doctor.subject import Subject, read_candidates, read_shared_groups, read_subject
from uspace_drv.doctor.verdict import Case
from uspace_drv.errors import UnsupportedError
from uspace_drv.pci.address import DeviceAddress, PciAddress, Scheme


@dataclass(frozen=True)
class Facts:
    """`subject` or `node` is what was asked about; neither for the machine as a whole.

    `candidates` are functions that could be handed over, of `function_count` that there are.
    """

    host: Observer
    kernel: Kernel
    machine: Machine
    user: User
    iommu: Iommu
    candidates: Sequence[str]
    function_count: int
    nodes: Sequence[UioNode]
    subject: Subject | None = None
    node: UioNode | None = None
    rights: Mapping[str, bool] = field(default_factory=dict)
    """Nodes that are there, and whether this user may open them for reading and writing."""
    shared_groups: Mapping[int, Sequence[str]] = field(default_factory=dict)
    """Groups that VFIO does not hand out, and 'address (driver)' of each member in the way."""

    @property
    def sudo(self) -> str:
        """How a command begins that takes root."""
        return "" if self.user.is_root else "sudo "

    def case(self, way: str) -> Case:
        """Open a case for a way to hardware."""
        sealed = "this container may not; run on its host" if self.machine.sealed else None
        return Case(way, sealed=sealed)

    def setting(self, value: str, path: str) -> str:
        """Return the command line that writes a value to a file of root's."""
        return f"echo {value} | {self.sudo}tee {path}"

    def require_module(self, case: Case, name: str) -> None:
        """Note down what it takes that the kernel has this driver."""
        option, state = f"CONFIG_{OPTIONS[name]}", self.kernel.modules[name]
        if state is ModuleState.PRESENT:
            return
        load = f"{self.sudo}modprobe {name}"
        if state is ModuleState.LOADABLE:
            case.needs(f"the module {name} is not loaded", load)
        elif state is ModuleState.BLOCKED:
            case.cannot(f"a rule in /etc/modprobe.d or on the command line keeps {name} out")
        elif state is ModuleState.UNINSTALLED:
            case.cannot(f"the module {name} is not installed, though this kernel was built with it")
        elif state is ModuleState.UNKNOWN:
            case.needs(f"nothing here tells whether the kernel has {name}: try it", load)
        elif state is ModuleState.UNLOADABLE:
            case.cannot(f"{name} ({option}) is not loaded, and {self.kernel.no_modules}")
        else:
            case.cannot(f"this kernel was built without {name} ({option})")


def gather(host: Observer, where: DeviceAddress | None) -> Facts:
    """Look at everything once.

    `NoDevice` where there is nothing at that address, `UnsupportedError` where it is no address of
    this machine's hardware.
    """
    kernel = read_kernel(host)
    node, address = _target(host, where)
    candidates, count = read_candidates(host) if where is None else ((), 0)
    return Facts(
        host=host,
        kernel=kernel,
        machine=read_machine(host),
        user=read_user(host),
        iommu=read_iommu(host, kernel.command_line),
        candidates=candidates,
        function_count=count,
        nodes=[each for each in uio_nodes(host) if each.function is None],
        subject=None if address is None else read_subject(host, address),
        node=node,
        rights={path: host.may_use(path) for path in _nodes(host)},
        shared_groups=read_shared_groups(host) if where is None else {},
    )


def _nodes(host: Observer) -> list[str]:
    """What there is below /dev for drivers in user space, and for virtual machines."""
    fixed = [path for path in ("/dev/iommu", "/dev/kvm") if host.exists(path)]
    folders = ("/dev/vfio", "/dev/vfio/devices")
    vfio = [f"{folder}/{name}" for folder in folders for name in host.names(folder)]
    uio = [f"/dev/{name}" for name in host.names("/dev") if name.startswith("uio")]
    return fixed + [path for path in vfio if path not in folders] + uio


def _target(
    host: Observer, where: DeviceAddress | None
) -> tuple[UioNode | None, PciAddress | None]:
    if where is None:
        return None, None
    if where.scheme is Scheme.PCI:
        return None, where.pci
    if where.scheme is Scheme.UIO:
        node = find_node(where.rest, host)
        return (node, None) if node.function is None else (None, node.function)
    raise UnsupportedError(
        f"{where}: is no hardware of this machine; give a PCI address or uio:NAME, or nothing"
    )

"""The ways into a PCI function that is bound to VFIO, best first, and which of them to take.

Linux Documentation/driver-api/vfio.rst. With an IOMMU always before without, a device's own file
before a group: it hands over one function alone, and later kernels may have nothing else.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from functools import partial

from uspace_drv.backends.vfio import cdev, group
from uspace_drv.backends.vfio.cdev import CdevOpening
from uspace_drv.backends.vfio.group import GroupOpening
from uspace_drv.backends.vfio.nodes import IOMMUFD, device_file, is_without_iommu
from uspace_drv.backends.vfio.opening import Handover, Opening, Options
from uspace_drv.errors import HostError, UnsupportedError
from uspace_drv.pci.binding import VFIO
from uspace_drv.pci.sysfs import PciBus, PciFunction

_log = logging.getLogger(__name__)

Opener = Callable[[PciFunction, PciBus, Options], Opening]

WAYS: Mapping[str, Opener] = {
    cdev.WITH_IOMMU: partial(CdevOpening.open, cdev.WITH_IOMMU),
    "vfio-type1": partial(GroupOpening.open, "vfio-type1"),
    "vfio-compat": partial(GroupOpening.open, "vfio-compat"),
    cdev.WITHOUT_IOMMU: partial(CdevOpening.open, cdev.WITHOUT_IOMMU),
    "vfio-noiommu": partial(GroupOpening.open, "vfio-noiommu"),
    "vfio-type1v1": partial(GroupOpening.open, "vfio-type1v1"),
}
"""By name, best first; the last one only serves old programs' way to unmap, and must be named."""

BEST = "vfio"
"""The name that leaves the choice to us."""


def open_function(via: str, function: PciFunction, bus: PciBus, options: Options) -> Opening:
    """Open the function by the way of that name, or by the best one that this machine has.

    Raises `HostError` where it is not bound to VFIO or a node may not be opened, `BusyError`, and
    `UnsupportedError` where the kernel does not have that way.
    """
    _require_bound(function)
    chosen = _best(function) if via == BEST else via
    opening = WAYS[chosen](function, bus, options)
    _log.info("%s: opened via %s", function.address, chosen)
    return opening


def resume(handover: Handover, address: str) -> Opening:
    """Go on with an opening of another process, whose descriptors have arrived in this one."""
    if handover.kind in {cdev.WITH_IOMMU, cdev.WITHOUT_IOMMU}:
        return CdevOpening.resume(handover, address)
    if handover.kind in group.WAYS:
        return GroupOpening.resume(handover, address)
    raise UnsupportedError(
        f"{address}: was handed over as {handover.kind!r}, which this version does not know; "
        f"there are {', '.join(WAYS)}"
    )


def nodes_of(function: PciFunction) -> Mapping[str, tuple[str, ...]]:
    """Return the nodes that each way opens, without those ways that cannot be for this function."""
    nodes: dict[str, tuple[str, ...]] = {}
    path = device_file(function)
    if path is not None:
        way = cdev.WITHOUT_IOMMU if is_without_iommu(path) else cdev.WITH_IOMMU
        nodes[way] = (path, IOMMUFD)
    if function.group is not None:
        names = ["vfio-noiommu"] if function.group.is_noiommu else ["vfio-type1", "vfio-compat"]
        nodes |= {name: (function.group.node, group.WAYS[name].node) for name in names}
    return {name: nodes[name] for name in WAYS if name in nodes}


def _best(function: PciFunction) -> str:
    """The first way whose nodes are there and ours to open; else the first that is there at all.

    Its error then says what is missing.
    """
    nodes = nodes_of(function)
    if not nodes:
        raise HostError(
            f"{function.address}: no IOMMU group: switch the IOMMU on in the firmware and on the "
            "kernel's command line (intel_iommu=on), or use UIO: "
            f"uspace bind {function.address} --driver uio_pci_generic"
        )
    for mode in (os.R_OK | os.W_OK, os.F_OK):
        for name, paths in nodes.items():
            if all(os.access(path, mode) for path in paths):
                return name
    return next((name for name in nodes if name != cdev.WITH_IOMMU), cdev.WITH_IOMMU)


def _require_bound(function: PciFunction) -> None:
    """Bound to vfio-pci, or to one of the drivers that VFIO has for some makers' devices."""
    if function.driver == VFIO or function.cdev is not None:
        return
    bound = f"bound to {function.driver}" if function.driver else "bound to no driver"
    cure = f"run: uspace bind {function.address}"
    if function.group is None:  # then `uspace bind` would choose UIO
        cure = (
            f"there is no IOMMU here; for what works without run: uspace doctor {function.address}"
        )
    raise HostError(f"{function.address}: {bound}, not to {VFIO}; {cure}")

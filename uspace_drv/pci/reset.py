"""How the kernel resets a PCI function alone: which of the ways that it has, in which order.

Linux Documentation/ABI/testing/sysfs-bus-pci, "reset_method" and "reset".
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from uspace_drv.errors import HostError, RegisterValueError, UnsupportedError
from uspace_drv.pci.address import PciAddress
from uspace_drv.pci.sysfs import DEVICES, PciBus

METHODS = ("device_specific", "acpi", "flr", "af_flr", "pm", "bus", "cxl_bus")
"""Every way that Linux knows, best first; `bus` resets a bus on which the function is alone."""


def reset_methods(address: PciAddress, *, bus: PciBus | None = None) -> tuple[str, ...]:
    """Return the ways that are on, in the order in which they are tried; none: no reset."""
    return (bus or PciBus()).function(address).reset_methods


def choose_reset_methods(
    address: PciAddress, methods: Sequence[str], *, bus: PciBus | None = None
) -> tuple[str, ...]:
    """Let only these ways be used, in this order, and return those that are on then.

    No method switches reset off, `["default"]` brings back the kernel's choice. It holds for every
    reset of the function, VFIO's too, until somebody chooses again or the machine starts anew.
    Takes root. `UnsupportedError` where the function has not all of them, or Linux is before 5.15.
    """
    bus = bus or PciBus()
    function = bus.function(address)
    path = f"{DEVICES}/{function.address}/reset_method"
    unknown = [name for name in methods if name not in (*METHODS, "default")]
    if unknown:
        raise RegisterValueError(
            f"{address}: no reset method {', '.join(unknown)}; Linux has {', '.join(METHODS)}"
        )
    if not bus.host.exists(path):
        raise UnsupportedError(
            f"{address}: its reset cannot be chosen: it has none, or Linux is before 5.15"
        )
    try:
        bus.host.write(path, " ".join(methods) + "\n")
    except HostError as error:
        if error.errno != errno.EINVAL:
            raise
        raise UnsupportedError(
            f"{address}: has not all of {', '.join(methods)}; it has "
            f"{', '.join(function.reset_methods) or 'none that is on'}"
        ) from error
    return reset_methods(address, bus=bus)

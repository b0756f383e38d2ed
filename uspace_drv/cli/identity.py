"""Who a device is, in names: from the system's pci.ids, else from the plugin that drives it."""

from __future__ import annotations

from uspace_drv.cli.output import Facts
from uspace_drv.driver import Driver
from uspace_drv.pci.ids import FunctionIds
from uspace_drv.pci.names import PciNames
from uspace_drv.plugins import Installed, plugins_for


def describe_ids(ids: FunctionIds, names: PciNames) -> Facts:
    """Return ids, names and the plugins that match."""
    plugins = plugins_for(ids)
    return {
        "vendor": f"{ids.vendor:#06x}",
        "device": f"{ids.device:#06x}",
        "name": _name(ids, names, plugins[0] if plugins else None),
        "class_code": f"{ids.class_code:#08x}",
        "class": names.class_name(ids.class_code),
        "plugins": [found.name for found in plugins],
    }


def describe_driver(driver: type[Driver]) -> str:
    """Return the first line of what the driver says of itself."""
    return (driver.__doc__ or "").strip().partition("\n")[0]


def _name(ids: FunctionIds, names: PciNames, installed: Installed | None) -> str:
    vendor, device = names.vendor(ids.vendor), names.device(ids.vendor, ids.device)
    if device is None and installed is not None and installed.plugin is not None:
        return describe_driver(installed.plugin.driver).removesuffix(".")
    return " ".join(filter(None, [vendor, device]))

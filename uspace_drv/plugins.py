"""Driver plugins: found by entry point, matched by data, and listed even when they are broken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from uspace_drv.driver import Driver
from uspace_drv.errors import LayoutError, NoDriver
from uspace_drv.models import DeviceModel
from uspace_drv.pci.ids import Identity, Match
from uspace_drv.registers import RegisterBlock

GROUP = "uspace_drv.drivers"
"""The entry-point group; each entry names a `Plugin`."""


@dataclass(frozen=True)
class Plugin:
    """What a plugin package brings: its driver, its registers by BAR, and a model if it has one.

    A driver that is no `Driver`, or a match table of other things, is a `LayoutError`.
    """

    driver: type[Driver]
    registers: Mapping[int, type[RegisterBlock]] = field(default_factory=dict)
    model: type[DeviceModel] | None = None

    def __post_init__(self) -> None:
        _require_subclass("driver", self.driver, Driver)
        if self.model is not None:
            _require_subclass("model", self.model, DeviceModel)
        if not isinstance(self.registers, Mapping):
            raise LayoutError(f"Plugin(registers={self.registers!r}): expected {{bar: table}}")
        for table in self.registers.values():
            _require_subclass("registers", table, RegisterBlock)
        for entry in self.driver.id_table:
            if not isinstance(entry, Match):
                raise LayoutError(
                    f"{self.driver.__name__}.id_table has {entry!r}; "
                    "expected PciId, Modalias or UioName"
                )


def _require_subclass(what: str, given: object, base: type) -> None:
    """Check what foreign code gave, whatever it promised."""
    if not (isinstance(given, type) and issubclass(given, base)):
        raise LayoutError(f"Plugin({what}={given!r}): expected a subclass of {base.__name__}")


@dataclass(frozen=True)
class Installed:
    """An entry point, and the plugin behind it or the reason why there is none."""

    name: str
    origin: str
    plugin: Plugin | None
    reason: str | None


@cache
def installed_plugins() -> Sequence[Installed]:
    """Every plugin that is installed, by name, the broken ones too."""
    return [_load(entry) for entry in _entries()]


def plugin_named(name: str) -> Plugin:
    """The plugin of that name, or `NoDriver` with what there is."""
    named = [_load(entry) for entry in _entries() if entry.name == name]  # no other is imported
    if not named:
        raise NoDriver(f"no driver is called {name!r}; installed: {_names(installed_plugins())}")
    if len(named) > 1:
        origins = " and ".join(found.origin for found in named)
        raise NoDriver(f"{len(named)} drivers are called {name!r}: {origins}; uninstall one")
    if named[0].plugin is None:
        raise NoDriver(f"driver {name} ({named[0].origin}) is broken: {named[0].reason}")
    return named[0].plugin


def plugins_for(ids: Identity) -> Sequence[Installed]:
    """The plugins whose match table fits a PCI function or a UIO node."""
    return [
        found
        for found in installed_plugins()
        if found.plugin and any(entry.matches(ids) for entry in found.plugin.driver.id_table)
    ]


def plugin_for(ids: Identity, address: str) -> Plugin:
    """The first plugin that fits, or `NoDriver` with those that were tried."""
    for found in plugins_for(ids):
        if found.plugin:
            return found.plugin
    raise NoDriver(f"{address}: no driver for {ids}; tried {_names(installed_plugins())}")


def driver_for(ids: Identity, address: str) -> type[Driver]:
    """The driver of `plugin_for`."""
    return plugin_for(ids, address).driver


def _entries() -> list[EntryPoint]:
    return sorted(entry_points(group=GROUP), key=lambda entry: entry.name)


def _load(entry: EntryPoint) -> Installed:
    try:
        plugin = entry.load()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin is foreign code; its reason is shown
        return Installed(entry.name, entry.value, None, f"{type(error).__name__}: {error}")
    if not isinstance(plugin, Plugin):
        reason = f"{entry.value} is a {type(plugin).__name__}, not a uspace_drv.Plugin"
        return Installed(entry.name, entry.value, None, reason)
    return Installed(entry.name, entry.value, plugin, None)


def _names(plugins: Iterable[Installed]) -> str:
    words = (found.name + ("" if found.plugin else " (broken)") for found in plugins)
    return ", ".join(words) or "none"

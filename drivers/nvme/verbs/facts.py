"""What the verbs say of a controller and its namespaces: plain numbers, with their units.

Made from what Identify and the SMART log return (NVM Express Base Specification 1.4, sections 5.15
and 5.14.1.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from uspace_drivers.nvme.control.identity import ControllerIdentity, NamespaceIdentity
from uspace_drivers.nvme.spec.identify import LbaFormat, wide_of
from uspace_drivers.nvme.spec.logs import DATA_UNIT, CriticalWarning
from uspace_drv import Register
from uspace_drv.verbs import Size, Unit

Celsius = Annotated[int, Unit("C")]
Percent = Annotated[int, Unit("%")]
Minutes = Annotated[int, Unit("min")]
Hours = Annotated[int, Unit("h")]

ZERO_CELSIUS = 273
"""In whole kelvins, as the specification counts."""


@dataclass(frozen=True)
class ControllerFacts:
    """Who a controller is, and what it can do beyond reading and writing."""

    model: str
    serial: str
    firmware: str
    version: str
    subsystem: str
    controller_id: int
    largest_namespace: int
    capacity: Size | None
    most_per_command: Size | None
    volatile_write_cache: bool
    io_support: list[str]
    admin_support: list[str]


@dataclass(frozen=True)
class NamespaceFacts:
    """What can be stored in a namespace, and how."""

    id: int
    size: Size
    block_size: Size
    blocks: int
    used: Size
    format: str


@dataclass(frozen=True)
class NamespaceDetails(NamespaceFacts):
    """All that a namespace says of itself; `format` gives the `formats` without metadata."""

    formats: list[str]
    write_protected: bool
    nguid: str | None
    eui64: str | None


@dataclass(frozen=True)
class Health:
    """The SMART log, counted since the controller was made; no `critical_warnings`: all is well."""

    critical_warnings: list[str]
    temperature: Celsius | None
    sensors: list[Celsius]
    spare: Percent
    spare_threshold: Percent
    life_used: Percent
    read: Size
    written: Size
    read_commands: int
    write_commands: int
    busy: Minutes
    power_cycles: int
    power_on: Hours
    unsafe_shutdowns: int
    media_errors: int
    error_log_entries: int
    too_warm: Minutes
    far_too_warm: Minutes


WARNINGS = {
    "spare": "available spare is below its threshold",
    "temperature": "temperature is beyond a threshold",
    "unreliable": "reliability is degraded",
    "read_only": "medium is read-only",
    "backup_failed": "backup of the volatile memory failed",
    "persistent_memory": "persistent memory is read-only or unreliable",
}
"""By field of `CriticalWarning`."""


def controller_facts(found: ControllerIdentity) -> ControllerFacts:
    """Put into words what a controller said of itself."""
    return ControllerFacts(
        model=found.model,
        serial=found.serial,
        firmware=found.firmware,
        version=found.version,
        subsystem=found.subsystem,
        controller_id=found.controller,
        largest_namespace=found.namespaces,
        capacity=found.capacity or None,
        most_per_command=found.transfer_limit,
        volatile_write_cache=found.has_volatile_cache,
        io_support=_set_bits(found.io_support),
        admin_support=_set_bits(found.admin_support),
    )


def namespace_facts(found: NamespaceIdentity) -> NamespaceFacts:
    """Put into words what can be stored in a namespace."""
    return NamespaceFacts(**_storage(found))


def namespace_details(found: NamespaceIdentity) -> NamespaceDetails:
    """Put into words all that a namespace said of itself."""
    return NamespaceDetails(
        **_storage(found),
        formats=[format_words(each) for each in found.formats if each.lbads],
        write_protected=found.write_protected,
        nguid=found.nguid or None,
        eui64=found.eui64 or None,
    )


def format_words(form: LbaFormat) -> str:
    """Say what an LBA format is: `512 B`, or `4096 B + 8 B of metadata`."""
    metadata = f" + {form.ms} B of metadata" if form.ms else ""
    return f"{1 << form.lbads} B{metadata}"


def health(found: Any) -> Health:
    """Put the SMART log into words: degrees Celsius, bytes, and what is wrong."""
    warning = CriticalWarning(int(found["critical_warning"]))
    sensors = [_celsius(kelvin) for kelvin in found["temperature_sensors"]]
    return Health(
        critical_warnings=[words for name, words in WARNINGS.items() if getattr(warning, name)],
        temperature=_celsius(found["composite_temperature"]),
        sensors=[each for each in sensors if each is not None],
        spare=int(found["available_spare"]),
        spare_threshold=int(found["available_spare_threshold"]),
        life_used=int(found["percentage_used"]),
        read=wide_of(found["data_units_read"]) * DATA_UNIT,
        written=wide_of(found["data_units_written"]) * DATA_UNIT,
        read_commands=wide_of(found["host_read_commands"]),
        write_commands=wide_of(found["host_write_commands"]),
        busy=wide_of(found["controller_busy_time"]),
        power_cycles=wide_of(found["power_cycles"]),
        power_on=wide_of(found["power_on_hours"]),
        unsafe_shutdowns=wide_of(found["unsafe_shutdowns"]),
        media_errors=wide_of(found["media_errors"]),
        error_log_entries=wide_of(found["error_log_entries"]),
        too_warm=int(found["warning_temperature_time"]),
        far_too_warm=int(found["critical_temperature_time"]),
    )


def _storage(found: NamespaceIdentity) -> dict[str, Any]:
    """Return the members of `NamespaceFacts`."""
    return {
        "id": found.id,
        "size": found.size,
        "block_size": found.block_size,
        "blocks": found.blocks,
        "used": found.used * found.block_size,
        "format": format_words(found.formats[found.format]),
    }


def _set_bits(value: Register) -> list[str]:
    """Return in words which bits are set."""
    return [name.replace("_", " ") for name in value.FIELDS if getattr(value, name)]


def _celsius(kelvin: Any) -> int | None:
    """Return a temperature; 0 K means that nothing measures it."""
    return int(kelvin) - ZERO_CELSIUS if kelvin else None

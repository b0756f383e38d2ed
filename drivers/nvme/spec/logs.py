"""Log pages, and the events that tell of them (NVM Express Base Specification 1.4).

Section 5.14.1 for the pages, 5.2 for the events. The pages' own words, as they have no short names.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from uspace_drivers.nvme.spec.commands import LogPage
from uspace_drivers.nvme.spec.identify import text_of
from uspace_drv import Layout, Register, bit, field
from uspace_drv.layout import u8, u16, u32, u64


class EventType(IntEnum):
    """What kind of asynchronous event occurred."""

    ERROR = 0
    SMART = 1
    NOTICE = 2
    COMMAND_SET = 6
    VENDOR = 7


class ErrorEvent(IntEnum):
    """AsyncEvent.info of an error."""

    INVALID_DOORBELL_REGISTER = 0
    INVALID_DOORBELL_VALUE = 1
    DIAGNOSTIC_FAILURE = 2
    PERSISTENT_INTERNAL_ERROR = 3
    TRANSIENT_INTERNAL_ERROR = 4
    FIRMWARE_LOAD_ERROR = 5


class SmartEvent(IntEnum):
    """AsyncEvent.info of health."""

    RELIABILITY = 0
    TEMPERATURE = 1
    SPARE = 2


class NoticeEvent(IntEnum):
    """AsyncEvent.info of a notice."""

    NAMESPACE_CHANGED = 0
    FIRMWARE_ACTIVATION = 1
    TELEMETRY_CHANGED = 2
    ANA_CHANGED = 3
    PREDICTABLE_LATENCY = 4
    LBA_STATUS = 5
    ENDURANCE_GROUP = 6


class AsyncEvent(Register):
    """Dword 0 of the completion of Asynchronous Event Request."""

    log = field(23, 16, LogPage, "reading it without RAE lets the next such event come")
    info = field(15, 8, "ErrorEvent, SmartEvent or NoticeEvent")
    type = field(2, 0, EventType)

    @property
    def words(self) -> str:
        """What occurred: `notice: namespace changed`."""
        kinds: dict[int, type[IntEnum]] = {
            EventType.ERROR: ErrorEvent,
            EventType.SMART: SmartEvent,
            EventType.NOTICE: NoticeEvent,
        }
        known = {each.value: each.name for each in kinds.get(self.type, ())}
        info = known.get(self.info, f"{self.info:#04x}")
        kind = self.type.name if isinstance(self.type, EventType) else f"type {self.type}"
        return f"{kind}: {info}".replace("_", " ").lower()


class ErrorLocation(Register, width=16):
    """Which parameter of the command was wrong; 0xffff where none was."""

    bit = field(10, 8)
    byte = field(7, 0)


class ErrorLogEntry(Layout, size=64):
    """An entry of page 01h, newest first; `error_count` 0 marks those not used."""

    error_count = u64(0, "of this error since the controller was made")
    sqid = u16(8)
    cid = u16(10)
    status = u16(12, "bit 0 may be the phase, the rest the status (status.py)")
    location = u16(14, ErrorLocation)
    lba = u64(16)
    nsid = u32(24)
    vendor_page = u8(28)
    transport = u8(29)
    command_specific = u64(32)
    transport_specific = u16(40)


class CriticalWarning(Register, width=8):
    """What is wrong with the controller, by page 02h."""

    persistent_memory = bit(5, "the persistent memory region is read-only or unreliable")
    backup_failed = bit(4, "the volatile memory backup failed")
    read_only = bit(3, "the medium is read-only")
    unreliable = bit(2)
    temperature = bit(1, "above or below a threshold")
    spare = bit(0, "the available spare is below its threshold")


class SmartLog(Layout, size=512, packed=True):
    """Page 02h: health. Wide numbers are two u64, lower half first: `wide_of`."""

    critical_warning = u8(0, CriticalWarning)
    composite_temperature = u16(1, "K")
    available_spare = u8(3, "%")
    available_spare_threshold = u8(4, "%")
    percentage_used = u8(5, "% of the life that was expected, up to 255")
    endurance_group_warning = u8(6)
    data_units_read = u64(32, "in 512000 bytes, rounded up", count=2)
    data_units_written = u64(48, "in 512000 bytes, rounded up", count=2)
    host_read_commands = u64(64, count=2)
    host_write_commands = u64(80, count=2)
    controller_busy_time = u64(96, "minutes", count=2)
    power_cycles = u64(112, count=2)
    power_on_hours = u64(128, count=2)
    unsafe_shutdowns = u64(144, count=2)
    media_errors = u64(160, count=2)
    error_log_entries = u64(176, "since the controller was made", count=2)
    warning_temperature_time = u32(192, "minutes")
    critical_temperature_time = u32(196, "minutes")
    temperature_sensors = u16(200, "K; 0: there is none", count=8)
    thermal_transitions = u32(216, "into light, heavy throttling", count=2)
    thermal_time = u32(224, "s in light, heavy throttling", count=2)


DATA_UNIT = 512_000
"""Bytes that `data_units_read` and `data_units_written` count."""


class ActiveFirmware(Register, width=8):
    """AFI."""

    next = field(6, 4, "slot that a reset activates; 0: not told")
    active = field(2, 0, "slot")


class FirmwareSlotLog(Layout, size=512):
    """Page 03h."""

    afi = u8(0, ActiveFirmware)
    frs = u8(8, "revisions in slots 1 to 7, 8 characters each", count=56)


def revisions_of(log: Any) -> dict[int, str]:
    """Return the firmware revision of each slot (from 1) that holds one, from page 03h."""
    texts = (text_of(log["frs"][8 * slot : 8 * slot + 8]) for slot in range(7))
    return {slot: text for slot, text in enumerate(texts, 1) if text}


class ChangedNamespaceLog(Layout, size=4096):
    """Page 04h: which namespaces changed since it was read last, ended by a zero (`ids_of`)."""

    nsid = u32(0, "the first is ALL_NAMESPACES when there are more than 1024", count=1024)


class CommandEffects(Register):
    """What a command does, by page 05h."""

    uss = bit(19, "takes a UUID index")
    cse = field(18, 16, "1: alone in its namespace, 2: alone in the controller")
    ccc = bit(4, "may change capabilities of the controller")
    nic = bit(3, "may change which namespaces there are")
    ncc = bit(2, "may change capabilities of a namespace")
    lbcc = bit(1, "may change data")
    csupp = bit(0, "supported")


class EffectsLog(Layout, size=4096):
    """Page 05h: the effects of each opcode."""

    acs = u32(0, CommandEffects, "admin commands", count=256)
    iocs = u32(1024, CommandEffects, "I/O commands", count=256)

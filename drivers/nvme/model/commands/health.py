"""What the controller knows of itself: work done, errors, warnings.

NVM Express Base Specification 1.4, sections 5.14.1.1 (error log) and 5.14.1.2 (SMART).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from uspace_drivers.nvme.model.rings.rings import Work
from uspace_drivers.nvme.model.task import Refused, Task
from uspace_drivers.nvme.spec.logs import DATA_UNIT, CriticalWarning, ErrorLogEntry, SmartLog

ERRORS = 64
"""Entries of the error log."""

ROOM_TEMPERATURE = 273 + 38
SPARE_THRESHOLD = 10
HALF = (1 << 64) - 1


class Health:
    """Counts that last as long as the model: no reset clears them."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.temperature = ROOM_TEMPERATURE
        """K"""
        self.warning = CriticalWarning()
        self.spare = 100
        """%"""
        self.used = 0
        """% of the life"""
        self.reads = self.writes = 0
        self.bytes_read = self.bytes_written = 0
        self.power_cycles = 0
        self.unsafe_shutdowns = 0
        self.media_errors = 0
        self.error_count = 0
        self.errors: deque[tuple[int, int, int, Task | None, Refused]] = deque(maxlen=ERRORS)
        self._now = now
        self._born = now()

    def count_read(self, size: int) -> None:
        """A read has moved that many bytes."""
        self.reads += 1
        self.bytes_read += size

    def count_write(self, size: int) -> None:
        """A write has."""
        self.writes += 1
        self.bytes_written += size

    def add(self, work: Work) -> None:
        """Take what the rings have done by themselves."""
        self.reads += work.reads
        self.writes += work.writes
        self.bytes_read += work.bytes_read
        self.bytes_written += work.bytes_written

    def log_error(self, task: Task | None, status: int, refused: Refused) -> None:
        """Remember an error; None: it belongs to no command."""
        self.error_count += 1
        self.errors.appendleft((self.error_count, status, refused.location, task, refused))

    def error_log(self) -> bytes:
        """Page 01h: newest first, unused entries zero."""
        entries = ErrorLogEntry.array(ERRORS)
        for entry, (count, status, location, task, _) in zip(entries, self.errors, strict=False):
            entry["error_count"] = count
            entry["status"] = status << 1
            entry["location"] = location
            entry["sqid"] = task.queue if task else 0xFFFF
            entry["cid"] = task.sent.id if task else 0xFFFF
            if task is not None:
                entry["nsid"] = task.sent.namespace
                entry["lba"] = task.sent.lba if task.queue else 0
        return entries.tobytes()

    def smart_log(self) -> bytes:
        """Page 02h."""
        log = SmartLog.array(1)[0]
        log["critical_warning"] = int(self.warning)
        log["composite_temperature"] = self.temperature
        log["available_spare"] = self.spare
        log["available_spare_threshold"] = SPARE_THRESHOLD
        log["percentage_used"] = self.used
        log["temperature_sensors"][0] = self.temperature
        for name, value in self._counts().items():
            log[name] = value & HALF, value >> 64
        return bytes(log.tobytes())

    def _counts(self) -> dict[str, Any]:
        return {
            "data_units_read": -(-self.bytes_read // DATA_UNIT),
            "data_units_written": -(-self.bytes_written // DATA_UNIT),
            "host_read_commands": self.reads,
            "host_write_commands": self.writes,
            "power_cycles": self.power_cycles,
            "power_on_hours": int((self._now() - self._born) / 3600),
            "unsafe_shutdowns": self.unsafe_shutdowns,
            "media_errors": self.media_errors,
            "error_log_entries": self.error_count,
        }

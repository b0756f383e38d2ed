"""Features of the model: their values, which of them last, and what a change does.

NVM Express Base Specification 1.4, sections 5.13, 5.21 and 7.8.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uspace_drivers.nvme.model.commands.queues import LIMITS
from uspace_drivers.nvme.model.task import DWORD_10, DWORD_11, Refused, Task, invalid_field
from uspace_drivers.nvme.spec.commands import (
    ALL_NAMESPACES,
    FeatureId,
    FeatureSelect,
    FeatureValue,
)
from uspace_drivers.nvme.spec.features import (
    ErrorRecovery,
    InterruptVector,
    NumberOfQueues,
    PowerManagement,
    TemperatureThreshold,
    Threshold,
    Timestamp,
    TimestampOrigin,
    VolatileWriteCache,
)
from uspace_drivers.nvme.spec.status import Status

if TYPE_CHECKING:
    from uspace_drivers.nvme.model.model import NvmeModel

SAVEABLE, PER_NAMESPACE, CHANGEABLE = 1, 2, 4
"""What FeatureValue.CAPABILITIES returns."""

ALL_EVENTS = 0x31F
OVER, UNDER = 273 + 70, 0
POWER_STATES = 1
ANY_SENSOR = 0xF


@dataclass(frozen=True)
class Known:
    """A feature that there is: value after the first power-on, its bits, and what can be done."""

    default: int = 0
    mask: int = 0xFFFF_FFFF
    can: int = CHANGEABLE


KNOWN: Mapping[int, Known] = {
    FeatureId.ARBITRATION: Known(7, 0xFFFF_FF07, SAVEABLE | CHANGEABLE),
    FeatureId.POWER_MANAGEMENT: Known(0, 0xFF),
    FeatureId.TEMPERATURE_THRESHOLD: Known(OVER),
    FeatureId.ERROR_RECOVERY: Known(0, 0x1FFFF, PER_NAMESPACE | CHANGEABLE),
    FeatureId.VOLATILE_WRITE_CACHE: Known(1, 1, SAVEABLE | CHANGEABLE),
    FeatureId.NUMBER_OF_QUEUES: Known(
        NumberOfQueues(ncq=LIMITS.queues - 1, nsq=LIMITS.queues - 1).raw
    ),
    FeatureId.INTERRUPT_COALESCING: Known(0, 0xFFFF, SAVEABLE | CHANGEABLE),
    FeatureId.INTERRUPT_VECTOR: Known(0, 0x1FFFF),
    FeatureId.WRITE_ATOMICITY: Known(0, 1),
    FeatureId.ASYNC_EVENTS: Known(ALL_EVENTS, ALL_EVENTS),
    FeatureId.TIMESTAMP: Known(),
    FeatureId.KEEP_ALIVE: Known(),
    FeatureId.SOFTWARE_PROGRESS: Known(0, 0xFF, SAVEABLE | CHANGEABLE),
}

Key = tuple[int, int]
"""A feature, and what it has several values for: namespace, vector or threshold, else 0."""


class FeatureStore:
    """Current values, saved ones, and defaults."""

    def __init__(self, model: NvmeModel) -> None:
        self._model = model
        self._current: dict[Key, int] = {}
        self._saved: dict[Key, int] = {}
        self._clock: tuple[Timestamp, float] = (Timestamp(), time.monotonic())

    @property
    def queue_count(self) -> int:
        """I/O queues of each kind that the driver was given."""
        return NumberOfQueues(self.current(FeatureId.NUMBER_OF_QUEUES)).nsq + 1

    @property
    def has_write_cache(self) -> bool:
        """Whether the volatile write cache is on."""
        return VolatileWriteCache(self.current(FeatureId.VOLATILE_WRITE_CACHE)).wce

    def current(self, feature: int, part: int = 0) -> int:
        """The value in force."""
        key = feature, part
        return self._current.get(key, self._saved.get(key, self._default(feature, part)))

    def threshold(self, kind: Threshold) -> int:
        """The temperature in K at which the controller warns."""
        part = int(TemperatureThreshold(thsel=kind)) >> 16
        return TemperatureThreshold(self.current(FeatureId.TEMPERATURE_THRESHOLD, part)).tmpth

    def reset(self) -> None:
        """A reset of the controller: what was not saved is as at first."""
        self._current.clear()
        self._clock = Timestamp(), time.monotonic()

    def get(self, task: Task) -> int:
        """Get Features."""
        select = FeatureSelect(task.sent.cdw10 & 0x7FF)
        known = self._known(int(select.fid))
        part = self._part(task, known, select)
        if select.sel == FeatureValue.CAPABILITIES:
            return known.can
        if select.sel == FeatureValue.CURRENT:
            if select.fid == FeatureId.TIMESTAMP:
                self._model.data(task).write(struct.pack("<Q", self._now().raw))
            return self.current(int(select.fid), part)
        if select.sel == FeatureValue.SAVED:
            default = self._default(int(select.fid), part)
            return self._saved.get((int(select.fid), part), default)
        if select.sel == FeatureValue.DEFAULT:
            return self._default(int(select.fid), part)
        raise invalid_field(f"select {select.sel!r}", DWORD_10 + 1)

    def set(self, task: Task) -> int:
        """Set Features."""
        select = FeatureSelect(task.sent.cdw10 & 0x8000_00FF)
        feature, value = int(select.fid), task.sent.cdw11
        known = self._known(feature)
        if select.sv and not known.can & SAVEABLE:
            raise Refused(Status.FEATURE_NOT_SAVEABLE, f"feature {feature:#x}", byte=DWORD_10 + 3)
        if task.sent.namespace not in {0, ALL_NAMESPACES} and not known.can & PER_NAMESPACE:
            self._model.namespaces.find(task.sent.namespace)
            raise Refused(Status.FEATURE_NOT_NAMESPACE_SPECIFIC, f"feature {feature:#x}", byte=4)
        part = self._part(task, known, select)
        result = self._change(feature, part, value & known.mask, task)
        if select.sv:
            self._saved[feature, part] = self.current(feature, part)
        return result

    def _change(self, feature: int, part: int, value: int, task: Task) -> int:
        """Check and take a value; the result of the command."""
        match feature:
            case FeatureId.NUMBER_OF_QUEUES:
                return self._give_queues(NumberOfQueues(value))
            case FeatureId.TIMESTAMP:
                raw = self._model.data(task).read(8)
                given = Timestamp(int.from_bytes(raw, "little") & (1 << 48) - 1)
                self._clock = given.replace(origin=TimestampOrigin.HOST), time.monotonic()
                return 0
            case FeatureId.TEMPERATURE_THRESHOLD:
                return self._set_threshold(TemperatureThreshold(value & 0x3FFFFF))
            case FeatureId.POWER_MANAGEMENT if PowerManagement(value).ps >= POWER_STATES:
                raise invalid_field(f"power state {PowerManagement(value).ps}", DWORD_11)
            case FeatureId.ERROR_RECOVERY if ErrorRecovery(value).dulbe:
                raise invalid_field("reads of deallocated blocks do not fail here", DWORD_11 + 2)
        self._current[feature, part] = value
        self._react(feature, value)
        return 0

    def _react(self, feature: int, value: int) -> None:
        if feature == FeatureId.VOLATILE_WRITE_CACHE and not value:
            self._model.namespaces.flush()
        elif feature == FeatureId.KEEP_ALIVE:
            self._model.admin.keep_alive()

    def _give_queues(self, wished: NumberOfQueues) -> int:
        """Before the first I/O queue the driver may say how many it wants (section 5.21.1.7)."""
        if not self._model.queues.is_empty:
            raise Refused(Status.COMMAND_SEQUENCE_ERROR, "there are I/O queues")
        if 0xFFFF in {wished.ncq, wished.nsq}:
            raise invalid_field("65536 queues", DWORD_11)
        count = min(max(wished.ncq, wished.nsq), LIMITS.queues - 1)
        given = NumberOfQueues(ncq=count, nsq=count).raw
        self._current[FeatureId.NUMBER_OF_QUEUES, 0] = given
        return given

    def _set_threshold(self, value: TemperatureThreshold) -> int:
        if value.thsel not in {Threshold.OVER, Threshold.UNDER}:
            raise invalid_field(f"threshold {value.thsel!r}", DWORD_11 + 2, 4)
        sensors = (0, 1) if value.tmpsel == ANY_SENSOR else (value.tmpsel,)
        if not set(sensors) <= {0, 1}:
            raise invalid_field(f"sensor {value.tmpsel}", DWORD_11 + 2)
        for sensor in sensors:
            part = TemperatureThreshold(thsel=value.thsel, tmpsel=sensor).raw >> 16
            self._current[FeatureId.TEMPERATURE_THRESHOLD, part] = value.tmpth
        self._model.check_temperature()
        return 0

    def _part(self, task: Task, known: Known, select: FeatureSelect) -> int:
        """Which of several values of a feature is meant; refused where there is no such."""
        if known.can & PER_NAMESPACE:
            number = task.sent.namespace
            return 0 if number == ALL_NAMESPACES else self._model.namespaces.active(number).id
        if select.fid == FeatureId.INTERRUPT_VECTOR:
            vector = InterruptVector(task.sent.cdw11 & 0x1FFFF).iv
            if vector >= self._model.vector_count:
                raise invalid_field(f"vector {vector}", DWORD_11)
            return vector
        if select.fid == FeatureId.TEMPERATURE_THRESHOLD:
            return task.sent.cdw11 >> 16 & 0x3F
        return 0

    def _known(self, feature: int) -> Known:
        known = KNOWN.get(feature)
        if known is None:
            raise invalid_field(f"feature {feature:#x}", DWORD_10)
        return known

    def _default(self, feature: int, part: int) -> int:
        if feature == FeatureId.TEMPERATURE_THRESHOLD:
            is_over = TemperatureThreshold(part << 16).thsel == Threshold.OVER
            return OVER if is_over else UNDER
        if feature == FeatureId.INTERRUPT_VECTOR:
            return part
        return KNOWN[feature].default

    def _now(self) -> Timestamp:
        start, set_at = self._clock
        passed = int((time.monotonic() - set_at) * 1000)
        return start.replace(timestamp=start.timestamp + passed & (1 << 48) - 1)

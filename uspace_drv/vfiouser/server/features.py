"""DEVICE_FEATURE: what of the optional features this server has, and getting and setting them.

QEMU docs/interop/vfio-user.rst, "Device Features".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from uspace_drv.models.iommu import Iommu
from uspace_drv.vfio_numbers import FeatureFlag, MigrationFlag
from uspace_drv.vfiouser.numbers import FEATURE_MASK, PAGE, Feature
from uspace_drv.vfiouser.server.dirty import DirtyLog
from uspace_drv.vfiouser.server.migration import Migration
from uspace_drv.vfiouser.server.refusal import invalid, unsupported
from uspace_drv.vfiouser.wire import (
    DeviceState,
    DmaReport,
    FeatureHead,
    MigrationSupport,
    pack,
    size_of,
    split,
    split_logging,
    unpack,
)

METHODS = FeatureFlag.GET | FeatureFlag.SET
FLAGS = int(METHODS | FeatureFlag.PROBE)
Step = Callable[[bytes, int], bytes]


class Features:
    """The features of one model for one client.

    Each takes the data of its request, and how many bytes the client has room for in the reply.
    """

    def __init__(self, migration: Migration, memory: Iommu) -> None:
        self._migration = migration
        self._memory = memory
        self._log: DirtyLog | None = None
        self._steps: dict[tuple[int, FeatureFlag], Step] = {
            (Feature.MIGRATION, FeatureFlag.GET): self._support,
            (Feature.MIG_DEVICE_STATE, FeatureFlag.GET): self._state,
            (Feature.MIG_DEVICE_STATE, FeatureFlag.SET): self._change_state,
            (Feature.DMA_LOGGING_START, FeatureFlag.SET): self._start_log,
            (Feature.DMA_LOGGING_STOP, FeatureFlag.SET): self._stop_log,
            (Feature.DMA_LOGGING_REPORT, FeatureFlag.GET): self._report,
        }

    def handle(self, payload: bytes) -> bytes:
        """Probe, get or set one feature."""
        head, data = split(FeatureHead, payload)
        number, asked = head.flags & FEATURE_MASK, head.flags & ~FEATURE_MASK
        methods = [method for method in METHODS if asked & method]
        is_probe = bool(asked & FeatureFlag.PROBE)
        if asked & ~FLAGS or not (is_probe or len(methods) == 1):
            raise invalid(f"DEVICE_FEATURE: flags {head.flags:#x}, expected GET, SET or PROBE")
        steps = [self._steps.get((number, method)) for method in methods]
        if None in steps or not self._has(number):
            raise unsupported(f"DEVICE_FEATURE: no feature {number} with flags {head.flags:#x}")
        step = steps[0] if steps else None
        if is_probe or step is None:
            return payload
        answer = step(data, head.argsz - size_of(FeatureHead))
        needed = size_of(FeatureHead) + len(answer)
        if methods == [FeatureFlag.GET] and needed > head.argsz:
            answer = b""
        return pack(replace(head, argsz=needed), answer)

    def close(self) -> None:
        """The client is gone: nobody asks for dirty pages."""
        self._log = None
        self._memory.on_write = None

    def _has(self, number: int) -> bool:
        return any(number == feature for feature, _ in self._steps)

    def _support(self, data: bytes, room: int) -> bytes:
        return pack(MigrationSupport(MigrationFlag.STOP_COPY))

    def _state(self, data: bytes, room: int) -> bytes:
        return pack(DeviceState(self._migration.state, 0))

    def _change_state(self, data: bytes, room: int) -> bytes:
        self._migration.change(unpack(DeviceState, data).state)
        return data

    def _start_log(self, data: bytes, room: int) -> bytes:
        head, ranges = split_logging(data)
        if self._log is not None:
            raise invalid("DMA logging is on already")
        self._log = DirtyLog(ranges)
        self._memory.on_write = self._log.mark
        return pack(replace(head, page_size=PAGE), data[size_of(type(head)) :])

    def _stop_log(self, data: bytes, room: int) -> bytes:
        if self._log is None:
            raise invalid("DMA logging is off")
        self.close()
        return data

    def _report(self, data: bytes, room: int) -> bytes:
        if self._log is None:
            raise invalid("DMA logging is off")
        return data + self._log.report(unpack(DmaReport, data), room - len(data))

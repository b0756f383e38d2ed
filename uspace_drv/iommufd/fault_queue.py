"""Page faults of devices, and the answers to them.

Linux include/uapi/linux/iommufd.h, IOMMU_FAULT_QUEUE_ALLOC; PCIe 6.0 specification section 10.4.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from uspace_drv.errors import HostError
from uspace_drv.iommufd.objects import OpenFile
from uspace_drv.iommufd.queue import Queue
from uspace_drv.iommufd.uapi import queues
from uspace_drv.iommufd.uapi.queues import Response
from uspace_drv.iommufd.uapi.requests import Request
from uspace_drv.layout import Layout, Structures, u32, u64

_MOST_FAULTS = 4096
"""A group that does not fit is never handed out: more than a device has outstanding at a time."""


class Fault(Layout, size=40):
    """iommu_hwpt_pgfault: a device wants to reach `addr`, and is waiting.

    `flags` are a `FaultFlag`, `perm` a `FaultAccess`. Faults of one group share a `cookie`, and
    the last one has LAST_PAGE.
    """

    flags = u32(0)
    dev_id = u32(4)
    pasid = u32(8)
    grpid = u32(12, "page request group")
    perm = u32(16)
    reserved = u32(20)
    addr = u64(24)
    length = u32(32, "bytes that the device will want next; 0 if it did not say")
    cookie = u32(36)


class Answer(Layout, size=8):
    """iommu_hwpt_page_response: `code` is a `Response`."""

    cookie = u32(0)
    code = u32(4)


class FaultQueue(Queue):
    """Where page tables report faults that were made with it. Readable while one is there."""

    @classmethod
    def alloc(cls, file: OpenFile) -> FaultQueue:
        """Make a new one."""
        answer = queues.FaultAlloc()
        file.call(Request.FAULT_QUEUE_ALLOC, answer)
        return cls(file, answer.out_fault_id, answer.out_fault_fd)

    def take(self) -> Structures:
        """Every fault that waits, as an array of `Fault`; empty if none does. Never blocks."""
        data = self._read(_MOST_FAULTS * Fault.SIZE)
        return Fault.view(data) if data else Fault.array(0)

    def answer(self, cookies: Iterable[int], response: Response) -> None:
        """Let these groups go on: SUCCESS tries the access again, INVALID fails it.

        Raises `HostError` at the first cookie that nothing waits for; those before are answered.
        """
        self._check_open()
        wanted = list(cookies)
        answers = Answer.array(len(wanted))
        answers["cookie"] = wanted
        answers["code"] = response
        done = self._write(answers.tobytes()) // Answer.SIZE
        if done < len(wanted):
            raise HostError(f"{self._where}: no fault waits for an answer to {wanted[done]}")

    def _write(self, data: bytes) -> int:
        try:
            return os.write(self._fd, data)
        except OSError as error:
            if error.errno == errno.EINVAL:  # the first one is refused already
                return 0
            raise HostError(f"{self._where}: {error.strerror}", cause=error) from error

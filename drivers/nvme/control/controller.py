"""A controller as a driver uses it: admin commands from any thread, I/O queues, and its interrupt.

NVM Express Base Specification 1.4, sections 4.1 and 5. A command that the controller does not
answer, or answers with what cannot be, has it reset; one that it refuses is an error and no more.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from numpy.typing import NDArray

from uspace_drivers.nvme.control.admin_commands import ADMIN_TIMEOUT
from uspace_drivers.nvme.control.life_cycle import LifeCycle
from uspace_drivers.nvme.engine.queue import QueuePair
from uspace_drivers.nvme.spec.command_error import CommandError
from uspace_drv import Deadline, Device, DeviceError, DeviceGone, DeviceTimeout, UspaceError
from uspace_drv.layout import Structures

_log = logging.getLogger(__name__)

ABORT_TIMEOUT = 1.0
"""Seconds that the aborts of all that is in flight in a queue may take."""


class Controller(LifeCycle):
    """The controller of `device`; `start` before anything else, `stop` at the end."""

    def __init__(self, device: Device) -> None:
        self._trouble: tuple[DeviceError, int] | None = None
        self._aborting = threading.Lock()
        """One abort at a time, which no limit (ACL) forbids, from whatever threads."""
        super().__init__(device)

    def admin(
        self, command: Structures, data: NDArray[Any] | None = None, timeout: float = ADMIN_TIMEOUT
    ) -> int:
        """Send one admin `Command` and wait for its end; returns dword 0 of the completion.

        `data` is read or written as the opcode says: contiguous, `data_limit` bytes at most. Any
        thread. A command that is not answered in `timeout` seconds raises `DeviceTimeout`, and the
        controller is reset, since nothing else would tell what it still does with the memory.
        """
        with self._life:
            self._check_open()
        before = self.generation
        try:
            result = self._queue.call(command, data, timeout)
        except (CommandError, DeviceGone):
            raise
        except DeviceError as error:  # no answer, or one that cannot be
            if self._refusal is None:
                self._explain(error)
                self._reset_because(error, before)
            raise
        if not self.device.irq_count and self.changes.may_tell:
            self.events.serve()
        return result

    def serve(self) -> bool:
        """Take what the admin queue has completed, and wake who waits; after interrupt 0.

        True where `follow_up` has something to do, which may wait for the controller.
        """
        try:
            self._queue.collect()
        except DeviceError as error:  # the answer that it was meant to be will never come
            self._trouble = error, self.generation
        self.interrupt.tell()
        return self._trouble is not None or self.events.pending

    def follow_up(self) -> None:
        """Reset a controller that answered what cannot be, and deal with events."""
        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            error, before = trouble
            self._recover(str(error), before)
        self.events.serve()

    def require_own_process(self) -> None:
        """Raise `ClosedError` in a forked child of the process that has attached the driver."""
        self._queue.require_own_process()

    def open_queue(self, queue: QueuePair) -> None:
        """Create an I/O queue pair on the controller."""
        with self.changes.holding(self._life):
            self._check_open()
            try:
                self._announce(queue)
                self.queues[queue.number] = queue
            except UspaceError:
                raise
            except BaseException:  # a signal's handler raised, and it may be there or not
                self._forget(queue)
                raise

    def close_queue(self, queue: QueuePair) -> None:
        """Delete it; what is in flight in it ends as aborted."""
        with self.changes.holding(self._life):
            if self.queues.pop(queue.number, None) is not None and self._refusal is None:
                self._forget(queue)

    def abort_all(self, queue: QueuePair) -> None:
        """Ask for the end of everything in flight in a queue, which is late; some of it may end.

        Kinder to all others than a reset, and what comes first. Each command that ends does so with
        a status of its own. Raises `DeviceGone`; any other trouble is left to `rescue`, as is what
        could not be aborted in `ABORT_TIMEOUT` seconds.
        """
        _log.warning("%s: aborting what is in flight", queue.name)
        deadline, before = Deadline(ABORT_TIMEOUT), self.generation
        for number in queue.ids_in_flight():
            try:
                with self.changes.holding(self._aborting):
                    if deadline.passed or self.generation != before:
                        return
                    self.abort(queue.number, number, deadline.remaining())
            except CommandError as error:
                _log.debug("%s", error)
            except DeviceTimeout:  # and it was reset because of that
                return

    def _explain(self, error: DeviceError) -> None:
        """Say what else is wrong, if the controller says so."""
        try:
            self.check()
        except DeviceGone as gone:
            raise gone from error
        except DeviceError as failure:
            error.add_note(str(failure))

    def _reset_because(self, error: DeviceError, before: int) -> None:
        if self._is_starting or self._refusal or self.changes.is_after_reset:
            return  # one reset is enough
        try:
            self._recover(str(error), before)
        except UspaceError as failure:
            error.add_note(f"and it did not come back from a reset: {failure}")
        else:
            error.add_note("the controller was reset; the next command may work again")

"""A controller from its reset to its shutdown, and back from whatever went wrong in between.

NVM Express Base Specification 1.4, sections 7.6 (initialization and shutdown) and 9 (errors). A
controller that is disabled touches no memory any more; only then is what was in flight ended, for
from that moment on its memory may be used again. One that cannot be disabled is kept off the bus.
"""

from __future__ import annotations

import logging
import mmap
import threading
from collections.abc import Callable
from contextlib import suppress

from uspace_drivers.nvme.control.admin import DATA_LIMIT, AdminQueue
from uspace_drivers.nvme.control.admin_commands import command
from uspace_drivers.nvme.control.changes import Changes
from uspace_drivers.nvme.control.events import Events
from uspace_drivers.nvme.control.handshake import Handshake
from uspace_drivers.nvme.control.management import Management
from uspace_drivers.nvme.engine.interrupts import SharedInterrupt
from uspace_drivers.nvme.engine.queue import QueuePair
from uspace_drivers.nvme.spec.command_error import CommandError
from uspace_drivers.nvme.spec.commands import AdminOpcode
from uspace_drivers.nvme.spec.registers import NvmeRegisters
from uspace_drivers.nvme.spec.status import Status
from uspace_drv import (
    BusyError,
    ClosedError,
    Deadline,
    Device,
    DeviceError,
    DeviceGone,
    UspaceError,
)
from uspace_drv.layout import Structures

_log = logging.getLogger(__name__)

MOST_QUEUES = 64
"""I/O queue pairs that are asked for."""

LEAST_SHUTDOWN, MOST_SHUTDOWN = 1.0, 3.0
"""Seconds for a shutdown, whatever RTD3E says: the framework gives `remove` five."""

DELETION = 0.5
"""Seconds that the I/O queues may take to go, before a shutdown."""


class LifeCycle(Management):
    """Starts, stops and resets the controller of `device`, with its admin queue and I/O queues.

    `generation` grows each time that the controller was reset and everything in flight was lost.
    `queue_limit` is how many I/O queues it grants, `queues` has those that are open, by number.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.name = device.address
        self.registers = NvmeRegisters(device.bar(0))
        self._handshake = Handshake(self.registers, self.name, mmap.PAGESIZE)
        self.capabilities = self._handshake.capabilities
        self.page_size = self._handshake.page_size
        self.interrupt = SharedInterrupt(device.irq(0) if device.irq_count else None)
        self.events = Events(self, self._post)
        self._queue = AdminQueue(
            device, self._handshake, self.interrupt, self.events.take, self._check_open
        )
        self.queues: dict[int, QueuePair] = {}
        self.queue_limit = 0
        self.generation = 0
        self._life = threading.RLock()
        """Held over resets, and over what must not meet one. Who has it takes no other lock."""
        self.changes = Changes()
        self._is_starting = False
        self._refusal: UspaceError | None = ClosedError(f"{self.name}: it was not started")
        self._preparations: list[Callable[[], None]] = []

    def start(self) -> None:
        """Reset the controller and bring it up: admin queue, identity, queues, events.

        Raises `DeviceTimeout` where it does not become ready, `DeviceError` where it contradicts
        itself, `UnsupportedError` for one that this driver cannot use.
        """
        with self.changes.holding(self._life):
            try:
                self._bring_up()
            except BaseException as error:  # a signal's handler may raise, too
                self._give_up(error)
                raise
            self._refusal = None
            self.generation += 1

    def stop(self) -> None:
        """Shut it down in order (section 7.6.2), then disable it; what is in flight is lost.

        Raises `DeviceTimeout` where it does not get ready for losing power; it is disabled then.
        """
        with self.changes.holding(self._life):
            try:
                if self._handshake.is_ready:
                    self._part_with_queues()
                    self._handshake.shut_down(self._shutdown_timeout)
            finally:
                self._close()
                self.generation += 1
                try:
                    self._handshake.disable()
                finally:
                    self._silence()

    def check(self) -> None:
        """Raise `DeviceGone` where its registers read all ones, `DeviceError` where it failed.

        And `ClosedError` where it was shut down.
        """
        self._check_open()
        self._handshake.check_well()

    def reset(self, reason: str = "asked for") -> None:
        """Reset the controller and bring all back: it activates new firmware, for one."""
        self.rescue(None, reason)

    def rescue(self, queue: QueuePair | None, reason: str) -> None:
        """Reset the controller because of `reason`, and bring it and all queues back.

        Everything in flight ends with an error. Where several threads come with the same trouble
        the first one does it. Raises `DeviceError` where it does not come back: it stays closed.
        """
        before = self.generation
        where = queue.name if queue else self.name
        self._recover(reason if reason.startswith(where) else f"{where}: {reason}", before)

    def before_queues(self, prepare: Callable[[], None]) -> None:
        """Call `prepare` at each start from now on, before I/O queues are created anew."""
        self._preparations.append(prepare)

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` when namespaces may have come, gone or changed, in whatever thread."""
        self.changes.listen(listener)

    def tell_of_change(self) -> None:
        """Tell those who asked by `on_change`."""
        self.changes.tell()

    def _recover(self, reason: str, before: int) -> None:
        """Reset it, unless that was done since the generation was `before`."""
        with self.changes.holding(self._life):
            if self.generation != before:
                return
            self._check_open()
            _log.warning("%s; resetting the controller", reason)
            self._restart_in_any_case()
        self.changes.tell_of_reset()

    def _restart_in_any_case(self) -> None:
        """Leave no controller that is half up, even if a signal's handler raises, as Ctrl-C does.

        Then it begins anew, and what was raised is raised at the end; the second time it gives up.
        """
        interruption: BaseException | None = None
        while True:
            try:
                self._restart()
                break
            except BaseException as error:
                if isinstance(error, UspaceError) or interruption is not None:
                    self._give_up(error)
                    raise
                interruption = error
        self.generation += 1
        if interruption is not None:
            raise interruption

    def _restart(self) -> None:
        """By its own reset, and where that does not help by that of its function."""
        try:
            self._bring_up()
        except DeviceGone:
            raise
        except DeviceError as error:
            if not self.device.can_reset:
                raise
            _log.warning("%s; resetting the function", error)
            self.device.reset()
            self.device.set_bus_master(True)
            self._bring_up()

    def _bring_up(self) -> None:
        self._is_starting = True
        try:
            self._handshake.disable()
            self._end_all()
            queue = self._queue
            self._handshake.enable(queue.submission_iova, queue.completion_iova, queue.entries)
            queue.open()
            self.identity = self.identify_controller()
            self.data_limit = min(DATA_LIMIT, self.identity.transfer_limit or DATA_LIMIT)
            self.queue_limit = self.request_queues(MOST_QUEUES)
            self._bring_back_queues()
            self.events.start(self.identity)
        finally:
            self._is_starting = False

    def _bring_back_queues(self) -> None:
        for prepare in self._preparations:
            prepare()
        for each in self.queues.values():
            each.clear()
            self._announce(each)
            each.resume()

    def _announce(self, queue: QueuePair) -> None:
        """Create it on the controller; where it lies in memory, and how it signals, it knows."""
        number, entries = queue.number, queue.entries
        vector = None if queue.vector is None else queue.vector.index
        self.create_completion_queue(number, entries, queue.completion_iova, vector)
        try:
            self.create_submission_queue(number, entries, queue.submission_iova, number)
        except CommandError:
            self._delete(AdminOpcode.DELETE_COMPLETION_QUEUE, number)
            raise

    def _forget(self, queue: QueuePair) -> None:
        """Have the controller leave a queue's memory alone: by deletion, or else by a reset."""
        before = self.generation
        try:
            self._delete(AdminOpcode.DELETE_SUBMISSION_QUEUE, queue.number)
            self._delete(AdminOpcode.DELETE_COMPLETION_QUEUE, queue.number)
        except BaseException as error:  # refused, or a signal's handler has raised
            if self._refusal is None:
                self._recover(f"{queue.name} is not deleted: {error}", before)
            if not isinstance(error, CommandError):
                raise

    def _delete(self, opcode: AdminOpcode, number: int) -> None:
        """Delete one of a pair; that there is none is fine."""
        try:
            self.admin(command(opcode, cdw10=number))
        except CommandError as error:
            if error.code != Status.INVALID_QUEUE_ID:
                raise

    def _part_with_queues(self) -> None:
        """Stop the I/O and delete the queues, as a shutdown wants it; one that hangs is let be."""
        if self._refusal is not None:
            return
        deadline = Deadline(DELETION)
        try:
            for each in self.queues.values():
                each.hold()
            for number in self.queues:
                self._delete_by(deadline, AdminOpcode.DELETE_SUBMISSION_QUEUE, number)
            for each in self.queues.values():  # the controller has no command of theirs any more
                each.halt(Status.ABORTED_BY_HOST)
            for number in self.queues:
                self._delete_by(deadline, AdminOpcode.DELETE_COMPLETION_QUEUE, number)
        except DeviceGone:
            raise
        except (DeviceError, BusyError) as error:  # it is disabled soon
            _log.warning("%s", error)
        self._close()

    def _delete_by(self, deadline: Deadline, opcode: AdminOpcode, number: int) -> None:
        self._queue.call(command(opcode, cdw10=number), None, deadline.remaining())

    def _close(self) -> None:
        if self._refusal is None:
            self._refusal = ClosedError(f"{self.name}: the controller was shut down")

    def _give_up(self, error: BaseException) -> None:
        """Let everybody know that there is no use in trying again."""
        kind = DeviceGone if isinstance(error, DeviceGone) else DeviceError
        why = str(error) or type(error).__name__
        self._refusal = kind(
            f"{self.name}: the controller did not come back from a reset: {why}; "
            "leave the device and attach it anew"
        )
        self._silence()

    def _silence(self) -> None:
        """Whatever it still does, keep it from memory; then all that was in flight has ended."""
        with suppress(UspaceError):  # it may be gone
            self.device.set_bus_master(False)
        self._end_all()

    def _end_all(self) -> None:
        for each in self.queues.values():
            each.halt(Status.ABORTED_BY_HOST)
        self._queue.reset()

    def _post(self, command: Structures, tag: int) -> None:
        self._queue.post(command, tag)

    def _check_open(self) -> None:
        if self._refusal is not None and not self._is_starting:
            raise type(self._refusal)(str(self._refusal))  # a new one: each has its own traceback

    @property
    def _shutdown_timeout(self) -> float:
        return min(max(self.identity.shutdown_time, LEAST_SHUTDOWN), MOST_SHUTDOWN)

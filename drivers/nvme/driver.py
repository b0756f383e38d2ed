"""The NVMe driver: what the framework calls, and what a program holds in its hands.

NVM Express Base Specification 1.4. The parts are a controller (controller.py), its namespaces
(namespace.py) and its queue pairs (queues.py).
"""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import NoReturn

import numpy as np

from uspace_drivers.nvme.control.controller import Controller
from uspace_drivers.nvme.control.events import tells_of_namespaces
from uspace_drivers.nvme.control.identity import NamespaceIdentity
from uspace_drivers.nvme.engine.queue import QueuePair
from uspace_drivers.nvme.spec.logs import AsyncEvent
from uspace_drivers.nvme.storage.namespace import Namespace
from uspace_drivers.nvme.storage.queues import DEPTH, Queues
from uspace_drivers.nvme.verbs.verbs import Verbs
from uspace_drv import (
    DeviceError,
    DeviceGone,
    DeviceTimeout,
    Driver,
    PciId,
    UnsupportedError,
    UspaceError,
    interrupt,
)
from uspace_drv.verbs import python_only

_log = logging.getLogger(__name__)


class Nvme(Verbs, Driver):
    """A controller of solid-state storage (NVM Express).

    `controller` has the admin commands, `namespaces` those that can be read and written, by id,
    and `memory.alloc` gives arrays that are read and written without a copy. `refused` says why a
    namespace cannot be used. Namespaces come and go, and change their size, in the background:
    one that changed is a new object.
    """

    id_table = [PciId(class_code=0x010802)]

    def probe(self) -> None:
        """Reset the controller, bring it up, and find its namespaces."""
        self.namespaces = Namespaces()
        self.refused: dict[int, str] = {}
        self._scanning = threading.RLock()
        self.controller = Controller(self.device)
        self.controller.start()
        self.queues = Queues(self.controller)
        self.memory = self.queues.memory
        self.rescan()
        self.controller.on_change(self.rescan)
        self.controller.events.listen(self._hear)

    def remove(self) -> None:
        """Shut it down in order: what it had cached is on the medium after it."""
        try:
            self.controller.stop()
        finally:
            self.queues.close_all()

    def suspend(self) -> None:
        """Shut it down; who reads or writes meanwhile gets an error."""
        self.controller.stop()

    def resume(self) -> None:
        """Bring it up again, with the queues that it had."""
        self.controller.start()
        self.rescan()

    def reset(self) -> None:
        """Bring it up again after its function was reset; what was in flight ends with an error."""
        self.resume()

    @python_only
    def queue(self, depth: int = DEPTH, *, polled: bool = False) -> QueuePair:
        """Open a queue pair for batches of up to `depth` commands at once, for one thread.

        `polled`: without an interrupt, even where there are some. `queues.close` takes it back.
        """
        return self.queues.open(depth, polled=polled)

    @python_only
    def rescan(self) -> None:
        """Ask which namespaces there are, and what size they have."""
        with self._scanning:
            found = {
                number: self._look_at(number) for number in self.controller.active_namespaces()
            }
            there = ((number, each) for number, each in found.items() if each is not None)
            self.namespaces = Namespaces(there)
            self.queues.show(self.namespaces.values())

    def self_test(self) -> None:
        """Try admin queue, interrupts, and reads into both kinds of memory; nothing is written."""
        self.controller.check()
        self.require(
            self.controller.identify_controller().serial == self.controller.identity.serial,
            "Identify does not return the same serial number twice",
        )
        self.controller.smart_log()
        for namespace in self.namespaces.values():
            self._try_to_read(namespace)

    @interrupt(0, optional=True)
    def _serve(self) -> None:
        """The admin queue has completed something, or a queue that shares its interrupt."""
        if self.controller.serve():
            self.defer(self._follow_up)

    def _follow_up(self) -> None:
        try:
            self.controller.follow_up()
        except UspaceError as error:  # whoever uses it next is told, too
            _log.warning("%s", error)

    def _hear(self, event: AsyncEvent) -> None:
        if not tells_of_namespaces(event):
            return
        try:
            self.rescan()
        except UspaceError as error:  # not the fault of the command with which it was noticed
            _log.warning("%s", error)

    def _look_at(self, number: int) -> Namespace | None:
        """The namespace as it is now, or None where it cannot be used: `refused` says why."""
        self.refused.pop(number, None)
        try:
            found = self.controller.identify_namespace(number)
            if found is None:
                return None
            found.require_plain(self.device.address)
        except (DeviceGone, DeviceTimeout):
            raise
        except (DeviceError, UnsupportedError) as error:
            _log.warning("%s", error)
            self.refused[number] = str(error)
            return None
        before = self.namespaces.get(number)
        return before if before and _is_same(before, found) else Namespace(found, self.queues)

    def _try_to_read(self, namespace: Namespace) -> None:
        count = min(namespace.blocks, namespace.most_blocks, 16)
        copied = namespace.read(0, count)
        with self.memory.alloc("u1", count * namespace.block_size) as direct:
            namespace.read(0, count, into=direct.array)
            self.require(
                np.array_equal(copied, direct.array),
                f"namespace {namespace.id}: two reads of the same blocks differ",
            )


class Namespaces(dict[int, Namespace]):
    """Namespaces by id; a `KeyError` for one that is not there says which are."""

    def __missing__(self, number: object) -> NoReturn:
        """Refuse it."""
        ids = ", ".join(map(str, sorted(self))) or "none"
        raise KeyError(f"there is no namespace {number!r}; there are: {ids}")


def _is_same(namespace: Namespace, found: NamespaceIdentity) -> bool:
    """Whether nothing changed but how much of it is used."""
    return replace(found, used=namespace.identity.used) == namespace.identity

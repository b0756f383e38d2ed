"""Moving the served model to another server: stop it, copy its state out, copy it in there, run.

QEMU docs/interop/vfio-user.rst, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, MIG_DATA_READ and
MIG_DATA_WRITE. Every change of state goes by way of STOP, which is the shortest one allowed.
"""

from __future__ import annotations

import errno
from contextlib import ExitStack

from uspace_drv.errors import UspaceError
from uspace_drv.models import DeviceModel
from uspace_drv.vfio_numbers import MigrationState
from uspace_drv.vfiouser.server.refusal import Refusal, invalid
from uspace_drv.vfiouser.server.state import largest, restore, save
from uspace_drv.vfiouser.wire import MigrationData, pack, size_of, split_counted, unpack

HEAD_SIZE = size_of(MigrationData)
POSSIBLE = {
    MigrationState.STOP,
    MigrationState.RUNNING,
    MigrationState.STOP_COPY,
    MigrationState.RESUMING,
}


class Migration:
    """The migration state of one model, for a client that moves `largest_transfer` at once."""

    def __init__(self, model: DeviceModel, largest_transfer: int) -> None:
        self.state = MigrationState.RUNNING
        self._model = model
        self._largest_transfer = largest_transfer
        self._stillness = ExitStack()
        self._data = bytearray()
        self._room = 0

    def change(self, number: int) -> None:
        """Go to another state; nothing has changed if the current one cannot be left."""
        if number not in POSSIBLE or self.state is MigrationState.ERROR:
            raise invalid(f"the migration state cannot change from {self.state.name} to {number}")
        if number != self.state:
            self._stop()
            self._go_on(MigrationState(number))

    def reset(self) -> None:
        """A reset of the device ends whatever was under way, and it runs."""
        self._data.clear()
        self._stillness.close()
        self.state = MigrationState.RUNNING

    def read(self, payload: bytes) -> bytes:
        """MIG_DATA_READ: the next piece; one that is shorter than asked for is the last."""
        wanted = unpack(MigrationData, payload)
        if self.state is not MigrationState.STOP_COPY:
            raise invalid(f"MIG_DATA_READ in state {self.state.name}")
        if wanted.size > self._largest_transfer or wanted.argsz < HEAD_SIZE + wanted.size:
            raise invalid(f"{wanted}: at most {self._largest_transfer} bytes, and room for them")
        piece = bytes(self._data[: wanted.size])
        del self._data[: wanted.size]
        return pack(MigrationData(HEAD_SIZE + len(piece), len(piece)), piece)

    def write(self, payload: bytes) -> bytes:
        """MIG_DATA_WRITE: the next piece."""
        _, piece = split_counted(MigrationData, payload, "size")
        if self.state is not MigrationState.RESUMING:
            raise invalid(f"MIG_DATA_WRITE in state {self.state.name}")
        if len(self._data) + len(piece) > self._room:
            raise Refusal(errno.ENOSPC, f"a state of more than {self._room} bytes")
        self._data += piece
        return b""

    def _stop(self) -> None:
        if self.state is MigrationState.RUNNING:
            self._stillness.enter_context(self._model.quiesce())
        elif self.state is MigrationState.RESUMING:
            self._load()
        self._data.clear()
        self.state = MigrationState.STOP

    def _load(self) -> None:
        try:
            restore(self._model, bytes(self._data))
        except UspaceError as error:
            self.state = MigrationState.ERROR
            raise invalid(f"the state that was sent does not fit: {error}") from error

    def _go_on(self, state: MigrationState) -> None:
        if state is MigrationState.STOP_COPY:
            self._data += save(self._model)
        elif state is MigrationState.RESUMING:
            self._room = largest(self._model)
        elif state is MigrationState.RUNNING:
            self._stillness.close()
        self.state = state

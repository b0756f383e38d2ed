"""Moving the state of a device: stop it, read its state as a stream, write it into another one.

Linux include/uapi/linux/vfio.h, "enum vfio_device_mig_state" (the second version of the protocol).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from uspace_drv.backends.vfio.call import call
from uspace_drv.backends.vfio.feature_call import FeatureCall
from uspace_drv.backends.vfio.uapi import Request
from uspace_drv.backends.vfio.uapi.features import (
    Feature,
    MigrationDataSize,
    MigrationStateData,
    MigrationSupport,
    PrecopyFlag,
    PrecopyInfo,
)
from uspace_drv.errors import DeviceError, HostError, UnsupportedError
from uspace_drv.vfio_numbers import MigrationFlag, MigrationState

_PIECE = 1 << 20
_SAVES = frozenset({MigrationState.PRE_COPY, MigrationState.PRE_COPY_P2P, MigrationState.STOP_COPY})


@dataclass(frozen=True)
class PrecopySize:
    """Estimates in bytes while the device runs: `initial` left of the first copy, `dirty` since.

    `starts_over`: the device was set up anew, and `initial` counts from the start again; only told
    after `Migration.tell_restarts()`.
    """

    initial: int
    dirty: int
    starts_over: bool


class MigrationStream:
    """The data of one session, read while saving and written while resuming; close it after."""

    def __init__(self, fd: int, address: str) -> None:
        self._fd = fd
        self._address = address

    def fileno(self) -> int:
        """The descriptor, readable when there is more to copy; -1 when closed."""
        return self._fd

    def pieces(self, size: int = _PIECE) -> Iterator[bytes]:
        """Read until there is no more for now: in STOP_COPY, the end of the state.

        While the device runs (PRE_COPY) it is what there is up to this moment.
        """
        while piece := self._read(size):
            yield piece

    def write(self, data: bytes) -> None:
        """Write it all, in any pieces; the device may refuse what it did not save itself."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except OSError as error:
                raise self._error("does not take this state", error) from error

    def precopy(self) -> PrecopySize:
        """Estimate what is left to read, while the device runs."""
        info = PrecopyInfo(ctypes.sizeof(PrecopyInfo))
        call(self._address, self._fd, Request.MIG_GET_PRECOPY_INFO, info)
        return PrecopySize(
            info.initial_bytes, info.dirty_bytes, bool(info.flags & PrecopyFlag.REINIT)
        )

    def close(self) -> None:
        """Close the descriptor. Twice is fine."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _read(self, size: int) -> bytes:
        try:
            return os.read(self._fd, size)
        except OSError as error:
            if error.errno == errno.ENOMSG:  # nothing more while it runs
                return b""
            raise self._error("does not give its state", error) from error

    def _error(self, what: str, error: OSError) -> DeviceError:
        return DeviceError(f"{self._address}: {what}: {error.strerror}")


class Migration:
    """The migration of one device; every method raises `UnsupportedError` where it has none.

    A change of state that fails raises `DeviceError`, which says where the device stands then.
    """

    def __init__(self, features: FeatureCall, fd: int) -> None:
        self._features = features
        self._fd = fd
        self._address = features.address

    @property
    def support(self) -> MigrationFlag:
        """What it can do; STOP_COPY at least."""
        return MigrationFlag(self._features.get(Feature.MIGRATION, MigrationSupport()).flags)

    @property
    def state(self) -> MigrationState:
        """Where it stands."""
        data = self._features.get(Feature.MIG_DEVICE_STATE, MigrationStateData(0, -1))
        return MigrationState(data.device_state)

    @property
    def data_size(self) -> int:
        """Bytes that STOP_COPY would have to move now, as an estimate."""
        return int(self._features.get(Feature.MIG_DATA_SIZE, MigrationDataSize()).stop_copy_length)

    def set_state(self, state: MigrationState) -> MigrationStream | None:
        """Bring it there; it is there when this returns.

        A state that begins to save (from RUNNING or STOP) or to resume comes with a stream, which
        the caller closes.
        """
        try:
            data = self._features.set(Feature.MIG_DEVICE_STATE, MigrationStateData(state, -1))
        except HostError as error:
            raise self._refused(state, error) from error
        return None if data.data_fd < 0 else MigrationStream(data.data_fd, self._address)

    def tell_restarts(self) -> None:
        """Let `MigrationStream.precopy()` tell when the device starts its copy over."""
        self._require_precopy()
        self._features.apply(Feature.MIG_PRECOPY_INFO_V2)

    def save(self, *, while_running: bool = False) -> Iterator[bytes]:
        """Yield the whole state in pieces; the device is stopped (STOP) at the end.

        `while_running` copies what it can before it stops the device. Ending early leaves the
        device in a saving state; set RUNNING to go on.
        """
        first = MigrationState.STOP_COPY
        if while_running:
            self._require_precopy()
            first = MigrationState.PRE_COPY
        with self._session(first) as stream:
            yield from stream.pieces()
            if while_running:
                self.set_state(MigrationState.STOP_COPY)
                yield from stream.pieces()
        self.set_state(MigrationState.STOP)

    def load(self, pieces: Iterable[bytes]) -> None:
        """Give the device a state that `save` yielded; it is stopped (STOP) then, set RUNNING.

        Where the device refuses it, `DeviceError`: `recover()` before it is used again.
        """
        with self._session(MigrationState.RESUMING) as stream:
            for piece in pieces:
                stream.write(piece)
            self.set_state(MigrationState.STOP)

    def recover(self) -> None:
        """Reset the device, whatever state it is in; it is RUNNING then, and has lost its state."""
        call(self._address, self._fd, Request.DEVICE_RESET, 0)

    def _session(self, state: MigrationState) -> MigrationStream:
        before = self.state
        if before in _SAVES or before is MigrationState.RESUMING:
            raise DeviceError(
                f"{self._address}: a session is open already ({before.name}); end it first: set "
                "RUNNING, or recover()"
            )
        stream = self.set_state(state)
        if stream is None:
            raise DeviceError(f"{self._address}: {state.name} came without its data")
        return stream

    def _require_precopy(self) -> None:
        if MigrationFlag.PRE_COPY not in self.support:
            raise UnsupportedError(
                f"{self._address}: cannot copy its state while it runs; it can {self.support!r}"
            )

    def _refused(self, wanted: MigrationState, error: HostError) -> DeviceError:
        now = self.state
        cure = "; recover() resets it" if now is MigrationState.ERROR else ""
        reason = os.strerror(error.errno or 0)
        return DeviceError(
            f"{self._address}: state {wanted.name} not reached: {reason}; it is in {now.name}{cure}"
        )

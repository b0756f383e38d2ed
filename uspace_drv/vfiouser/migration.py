"""Saving and restoring a device's state, and which memory it wrote, through vfio-user.

QEMU docs/interop/vfio-user.rst, VFIO_USER_DEVICE_FEATURE and VFIO_USER_MIG_DATA_READ; the states
are those of Linux linux/vfio.h, enum vfio_device_mig_state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from uspace_drv.errors import PeerError, RegisterValueError
from uspace_drv.vfio_numbers import FeatureFlag, MigrationFlag, MigrationState
from uspace_drv.vfiouser import wire
from uspace_drv.vfiouser.client import Session
from uspace_drv.vfiouser.numbers import FEATURE_MASK, Command, Feature
from uspace_drv.vfiouser.version import OURS, ROOM

LARGEST_STATE = 1 << 30
"""Bytes of a device's state; a server that sends more does not end."""


class Migration:
    """The migration of one device. A server without it raises `UnsupportedError`, `DeviceError`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._piece = min(session.capabilities.max_data_xfer_size, OURS.max_data_xfer_size)

    @property
    def support(self) -> MigrationFlag:
        """What the device can do."""
        data = self._feature(FeatureFlag.GET, Feature.MIGRATION)
        with self._session.judging():
            return MigrationFlag(wire.unpack(wire.MigrationSupport, data).flags)

    @property
    def state(self) -> MigrationState:
        """Where it stands."""
        data = self._feature(FeatureFlag.GET, Feature.MIG_DEVICE_STATE)
        with self._session.judging():
            number = wire.unpack(wire.DeviceState, data).state
            if number not in set(MigrationState):
                raise PeerError(f"DeviceState: {number}, expected 0 to {max(MigrationState)}")
        return MigrationState(number)

    def set_state(self, state: MigrationState) -> None:
        """Bring it there; it is there when this returns."""
        body = wire.DeviceState(state, 0)
        self._feature(FeatureFlag.SET, Feature.MIG_DEVICE_STATE, wire.pack(body))

    def save(self) -> bytes:
        """Read the device's state, in one of the saving states."""
        state = bytearray()
        while len(state) <= LARGEST_STATE:
            piece = self._read(self._piece)
            state += piece
            if len(piece) < self._piece:
                return bytes(state)
        raise PeerError(f"{self._session.name}: over {LARGEST_STATE:#x} bytes of state, and more")

    def restore(self, state: bytes) -> None:
        """Write what `save` returned, in the state RESUMING."""
        for start in range(0, len(state), self._piece):
            piece = state[start : start + self._piece]
            size = wire.size_of(wire.MigrationData) + len(piece)
            body = wire.MigrationData(size, len(piece))
            self._session.request(Command.MIG_DATA_WRITE, wire.pack(body, piece))

    def start_logging(self, ranges: Sequence[tuple[int, int]] = (), page_size: int = 4096) -> int:
        """Note what the device writes in these (IOVA, length), or everywhere; the page it uses."""
        packed = [wire.pack(wire.DmaRange(*one)) for one in ranges]
        body = wire.pack(wire.DmaLogging(page_size, len(packed), 0), b"".join(packed))
        data = self._feature(FeatureFlag.SET, Feature.DMA_LOGGING_START, body)
        with self._session.judging():
            return wire.split(wire.DmaLogging, data)[0].page_size

    def stop_logging(self) -> None:
        """Note nothing any more."""
        self._feature(FeatureFlag.SET, Feature.DMA_LOGGING_STOP)

    def dirty_pages(self, iova: int, length: int, page_size: int = 4096) -> list[int]:
        """The IOVAs of pages that the device wrote since the last report about this range."""
        count = -(-length // page_size)
        words = -(-count // 64)
        if words * 8 > self._piece:
            raise RegisterValueError(
                f"{self._session.name}: a report about {length:#x} bytes takes {words * 8:#x}, "
                f"and a message holds {self._piece:#x}; ask for a part"
            )
        body = wire.DmaReport(iova, length, page_size)
        data = self._feature(
            FeatureFlag.GET, Feature.DMA_LOGGING_REPORT, wire.pack(body), room=words * 8
        )
        with self._session.judging():
            report, bitmap = wire.split(wire.DmaReport, data)
            bits = int.from_bytes(bitmap, "little")
            if report != body or len(bitmap) != words * 8 or bits >> count:
                raise PeerError(
                    f"{report} and {len(bitmap)} bytes of bitmap, expected {body} and "
                    f"{words * 8}, with no bit from {count} on"
                )
        return [iova + number * page_size for number in _ones(bits)]

    def _read(self, size: int) -> bytes:
        asked = wire.MigrationData(wire.size_of(wire.MigrationData) + size, size)
        payload = self._session.request(Command.MIG_DATA_READ, wire.pack(asked))
        with self._session.judging():
            _, data = wire.split_counted(wire.MigrationData, payload, "size")
            if len(data) > size:
                raise PeerError(f"MIG_DATA_READ: {len(data)} bytes, expected at most {size}")
        return data

    def _feature(
        self, action: FeatureFlag, feature: Feature, data: bytes = b"", *, room: int = ROOM
    ) -> bytes:
        """Get or set a feature: its data in the reply, for which there is `room` beside ours."""
        argsz = wire.size_of(wire.FeatureHead) + len(data) + room
        flags = int(action) | int(feature)
        payload = self._session.request(
            Command.DEVICE_FEATURE, wire.pack(wire.FeatureHead(argsz, flags), data)
        )
        with self._session.judging():
            head, answer = wire.split(wire.FeatureHead, payload)
            if head.flags & FEATURE_MASK != feature:
                raise PeerError(f"{head}, expected an answer about {feature.name}")
        return answer


def _ones(bits: int) -> Iterator[int]:
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest

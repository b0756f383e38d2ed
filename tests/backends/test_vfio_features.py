"""What VFIO's features make of a kernel's answers: data, errors with their cure, nothing left."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import uuid
from collections.abc import Iterator

import pytest

from tests.backends.fake_features import STATE, FakeFeatures
from uspace_drv.backends.vfio.features import Features
from uspace_drv.backends.vfio.hot_reset import Affected
from uspace_drv.backends.vfio.uapi import features as data
from uspace_drv.backends.vfio.uapi import gfx, hot_reset
from uspace_drv.backends.vfio.uapi.features import Feature
from uspace_drv.backends.vfio.uapi.gfx import PlaneFlag
from uspace_drv.backends.vfio.uapi.hot_reset import DEVID_NOT_OWNED, HotResetFlag
from uspace_drv.errors import (
    BusyError,
    DeviceError,
    DeviceGone,
    HostError,
    RegisterValueError,
    UnsupportedError,
)
from uspace_drv.pci.address import PciAddress
from uspace_drv.port import Iova, IovaRange
from uspace_drv.vfio_numbers import MigrationFlag, MigrationState

ADDRESS = "0000:01:00.0"
WHERE = r"^0000:01:00\.0: "
SIBLING = PciAddress(0, 1, 0, 1)
pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeFeatures]:
    kernel = FakeFeatures(monkeypatch)
    yield kernel
    kernel.close()


@pytest.fixture
def fd() -> Iterator[int]:
    fd = os.open("/dev/null", os.O_RDWR)
    yield fd
    os.close(fd)


@pytest.fixture
def features(kernel: FakeFeatures, fd: int) -> Features:
    return Features(fd, ADDRESS, kernel)


@pytest.mark.parametrize(
    ("ours", "size"),
    [
        (data.FeatureHeader, 8),
        (data.MigrationSupport, 8),
        (data.MigrationStateData, 8),
        (data.MigrationDataSize, 8),
        (data.PrecopyInfo, 24),
        (data.LowPowerWakeup, 8),
        (data.DmaLoggingControl, 24),
        (data.DmaLoggingRange, 16),
        (data.DmaLoggingReport, 32),
        (data.BusMaster, 4),
        (data.DmaBufHeader, 16),
        (data.RegionDmaRange, 16),
        (hot_reset.HotResetInfo, 12),
        (hot_reset.DependentDevice, 8),
        (hot_reset.HotResetHeader, 12),
        (gfx.GfxPlaneInfo, 64),
    ],
)
def test_sizes(ours: type[ctypes.Structure], size: int) -> None:
    """As Linux 7.3 has them."""
    assert ctypes.sizeof(ours) == size


class TestProbing:
    def test_lists_what_the_kernel_offers(self, features: Features, kernel: FakeFeatures) -> None:
        kernel.offered = frozenset({Feature.LOW_POWER_EXIT, Feature.DMA_BUF})
        assert features.supported() == kernel.offered
        assert kernel.set == []

    @pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
    def test_other_ways_to_say_no(
        self, features: Features, kernel: FakeFeatures, number: int
    ) -> None:
        kernel.fails["DEVICE_FEATURE"] = number
        assert features.supported() == frozenset()

    def test_device_that_is_gone_is_no_answer(
        self, features: Features, kernel: FakeFeatures
    ) -> None:
        kernel.fails["DEVICE_FEATURE"] = errno.ENODEV
        with pytest.raises(DeviceGone, match=WHERE):
            features.supported()

    def test_other_failure_is_no_answer(self, features: Features, kernel: FakeFeatures) -> None:
        kernel.fails["DEVICE_FEATURE"] = errno.EFAULT
        with pytest.raises(HostError, match="Bad address"):
            features.supported()

    def test_missing_one_names_kernel_and_option(
        self, features: Features, kernel: FakeFeatures
    ) -> None:
        kernel.offered = frozenset()
        with pytest.raises(UnsupportedError) as caught:
            features.export_bar(0, [(0, 4096)])
        assert str(caught.value) == (
            f"{ADDRESS}: no VFIO_DEVICE_FEATURE_DMA_BUF here: it needs Linux 6.19 or newer with "
            "CONFIG_VFIO_PCI_DMABUF, CONFIG_PCI_P2PDMA and a PCI function that is bound to "
            f"vfio-pci; this is Linux {os.uname().release}"
        )


class TestSmallOnes:
    def test_vf_token(self, features: Features, kernel: FakeFeatures) -> None:
        token = uuid.UUID("bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3")
        features.set_vf_token(token)
        assert kernel.set == [(Feature.PCI_VF_TOKEN, token.bytes)]

    @pytest.mark.parametrize("on", [False, True])
    def test_bus_master(self, features: Features, kernel: FakeFeatures, on: bool) -> None:
        features.set_bus_master(on=on)
        assert kernel.set == [(Feature.BUS_MASTER, struct.pack("=I", on))]

    def test_bus_master_of_a_pci_function(self, features: Features, kernel: FakeFeatures) -> None:
        kernel.offered = frozenset()
        with pytest.raises(UnsupportedError, match=r"Linux 6\.7 or newer with a CDX device"):
            features.set_bus_master(on=True)

    def test_kernel_that_refuses(self, features: Features, kernel: FakeFeatures) -> None:
        kernel.fails["BUS_MASTER"] = errno.EPERM
        with pytest.raises(HostError, match="FEATURE_BUS_MASTER: Operation not perm") as caught:
            features.set_bus_master(on=True)
        assert caught.value.errno == errno.EPERM


class TestPower:
    def test_for_a_block(self, features: Features, kernel: FakeFeatures) -> None:
        with features.power.low():
            assert kernel.is_low
        assert not kernel.is_low

    def test_twice(self, features: Features) -> None:
        features.power.enter()
        with pytest.raises(BusyError, match=WHERE + r"low power is allowed already; call exit\(\)"):
            features.power.enter()

    def test_until_woken(self, features: Features, kernel: FakeFeatures) -> None:
        woken = features.power.enter_until_woken()
        assert kernel.set == [
            (Feature.LOW_POWER_ENTRY_WITH_WAKEUP, struct.pack("=iI", woken.fileno(), 0))
        ]
        with pytest.raises(BusyError):  # and no eventfd is left of it
            features.power.enter_until_woken()
        woken.close()

    def test_where_there_is_none(self, features: Features, kernel: FakeFeatures) -> None:
        kernel.offered = frozenset()
        with pytest.raises(UnsupportedError, match=r"Linux 6\.1 or newer with CONFIG_PM"):
            features.power.enter_until_woken()


class TestDmaLogging:
    def test_start_and_stop(self, features: Features, kernel: FakeFeatures) -> None:
        ranges = [IovaRange(0x1000, 0x2FFF), IovaRange(0x8000, 0x8FFF)]
        assert features.dma_logging.start(ranges, 4096) == 8192
        assert kernel.ranges == [(0x1000, 0x2000), (0x8000, 0x1000)]
        features.dma_logging.stop()
        assert kernel.set[-1] == (Feature.DMA_LOGGING_STOP, b"")

    def test_report(self, features: Features, kernel: FakeFeatures) -> None:
        kernel.dirty = 1 | 1 << 69
        bitmap = features.dma_logging.dirty_pages(Iova(0x1000), 70 * 4096, 4096)
        assert bitmap == (1 | 1 << 69).to_bytes(16, "little")

    def test_nothing_to_log(self, features: Features) -> None:
        with pytest.raises(RegisterValueError, match=WHERE + "no IOVA to log"):
            features.dma_logging.start([])


class TestDmaBuf:
    def test_of_two_pieces(self, features: Features, kernel: FakeFeatures) -> None:
        os.close(features.export_bar(2, [(0, 4096), (0x4000, 8192)]))
        header = struct.pack("=IIII", 2, os.O_RDWR | os.O_CLOEXEC, 0, 2)
        assert kernel.dmabufs == [header + struct.pack("=QQQQ", 0, 4096, 0x4000, 8192)]

    @pytest.mark.parametrize("piece", [(0, 8), (8, 4096), (0, 0), (0, -4096)])
    def test_half_a_page(self, features: Features, piece: tuple[int, int]) -> None:
        with pytest.raises(RegisterValueError, match="bar 0: a dma-buf is made of whole pages"):
            features.export_bar(0, [piece])

    def test_bar_of_ports(self, features: Features, kernel: FakeFeatures) -> None:
        kernel.fails["DMA_BUF"] = errno.ENODEV
        with pytest.raises(UnsupportedError, match=r"bar 4: .* it takes a memory BAR"):
            features.export_bar(4, [(0, 4096)])

    def test_device_that_is_gone(self, features: Features, kernel: FakeFeatures) -> None:
        kernel.fails["DMA_BUF"] = errno.EIO
        with pytest.raises(DeviceGone):
            features.export_bar(0, [(0, 4096)])


class TestHotReset:
    def test_of_a_group(self, features: Features, kernel: FakeFeatures) -> None:
        kernel.affected = [(14, 0, 1, 0), (14, 0, 1, 1)]
        function = Affected(PciAddress.parse(ADDRESS), 14, owned=None)
        affected = (function, Affected(SIBLING, 14, owned=None))
        assert features.hot_reset.affected() == affected
        assert features.hot_reset.reset() == affected
        assert kernel.hot_resets == [(71,)]

    def test_sibling_of_somebody_else(self, features: Features, kernel: FakeFeatures) -> None:
        kernel.affected = [(14, 0, 1, 0), (15, 0, 1, 1)]
        with pytest.raises(BusyError, match=WHERE + r"a hot reset takes along 0000:01:00\.1, "):
            features.hot_reset.reset()
        assert kernel.hot_resets == []

    def test_sibling_of_ours(
        self, features: Features, kernel: FakeFeatures, fd: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kernel.affected = [(14, 0, 1, 0), (15, 0, 1, 1)]
        other = Features(fd, str(SIBLING), kernel)
        assert len(features.hot_reset.reset(other.hot_reset)) == 2
        assert kernel.hot_resets == [(71, 71)]

    def test_of_a_device_file(self, features: Features, kernel: FakeFeatures) -> None:
        kernel.reset_fds = ()
        kernel.reset_flags = HotResetFlag.DEV_ID | HotResetFlag.DEV_ID_OWNED
        kernel.affected = [(7, 0, 1, 0), (0, 0, 1, 1)]
        assert [each.owned for each in features.hot_reset.reset()] == [True, True]
        assert kernel.hot_resets == [()]

    def test_device_file_that_is_not_ours(self, features: Features, kernel: FakeFeatures) -> None:
        kernel.reset_flags = HotResetFlag.DEV_ID
        kernel.affected = [(7, 0, 1, 0), (DEVID_NOT_OWNED, 0, 1, 1)]
        with pytest.raises(BusyError, match=r"takes along 0000:01:00\.1, "):
            features.hot_reset.reset()

    @pytest.mark.parametrize(
        ("number", "text"),
        [(errno.ENODEV, "has neither a bus nor a slot"), (errno.ENOTTY, "is no PCI function")],
    )
    def test_none(self, features: Features, kernel: FakeFeatures, number: int, text: str) -> None:
        kernel.fails["DEVICE_GET_PCI_HOT_RESET_INFO"] = number
        with pytest.raises(UnsupportedError, match=WHERE + f"no hot reset: it {text}"):
            features.hot_reset.affected()

    def test_device_that_is_gone(self, features: Features, kernel: FakeFeatures) -> None:
        kernel.fails["DEVICE_GET_PCI_HOT_RESET_INFO"] = errno.EIO
        with pytest.raises(DeviceGone):
            features.hot_reset.affected()

    @pytest.mark.parametrize(
        ("number", "kind", "text"),
        [
            (errno.EINVAL, HostError, "each of them has to be bound to vfio-pci"),
            (errno.EBUSY, BusyError, "is in use right now"),
            (errno.EPERM, HostError, "Operation not permitted"),
        ],
    )
    def test_refused(
        self,
        features: Features,
        kernel: FakeFeatures,
        number: int,
        kind: type[Exception],
        text: str,
    ) -> None:
        kernel.affected = [(14, 0, 1, 0)]
        kernel.fails["DEVICE_PCI_HOT_RESET"] = number
        with pytest.raises(kind, match=WHERE + f".*{text}"):
            features.hot_reset.reset()


class TestMigration:
    def test_what_it_can(self, features: Features) -> None:
        migration = features.migration
        assert migration.support == MigrationFlag.STOP_COPY | MigrationFlag.PRE_COPY
        assert (migration.state, migration.data_size) == (MigrationState.RUNNING, len(STATE))

    @pytest.mark.parametrize("while_running", [False, True])
    def test_save(self, features: Features, while_running: bool) -> None:
        pieces = list(features.migration.save(while_running=while_running))
        assert b"".join(pieces) == STATE
        assert len(pieces) == 1 + while_running
        assert features.migration.state is MigrationState.STOP

    def test_load(self, features: Features, kernel: FakeFeatures) -> None:
        features.migration.load([STATE[:30], STATE[30:]])
        assert kernel.saved == STATE
        assert features.migration.state is MigrationState.STOP

    def test_precopy(self, features: Features, kernel: FakeFeatures) -> None:
        features.migration.tell_restarts()
        stream = features.migration.set_state(MigrationState.PRE_COPY)
        assert stream is not None
        with stream:
            left = stream.precopy()
            assert (left.initial, left.dirty, left.starts_over) == (40, 2, True)
        assert stream.fileno() == -1
        stream.close()
        assert kernel.set[0] == (Feature.MIG_PRECOPY_INFO_V2, b"")

    def test_end_of_the_stream_for_now(
        self, features: Features, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stream = features.migration.set_state(MigrationState.PRE_COPY)
        assert stream is not None
        with stream, monkeypatch.context() as patched:
            patched.setattr(os, "read", _fails_with(errno.ENOMSG))
            assert list(stream.pieces()) == []

    def test_device_that_cannot_while_running(
        self, features: Features, kernel: FakeFeatures
    ) -> None:
        kernel.support = MigrationFlag.STOP_COPY
        with pytest.raises(UnsupportedError, match="cannot copy its state while it runs"):
            list(features.migration.save(while_running=True))

    def test_broken_stream(self, features: Features, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "read", _fails_with(errno.EPIPE))
        with pytest.raises(DeviceError, match=WHERE + "does not give its state: Broken pipe"):
            list(features.migration.save())

    def test_state_of_another_device(
        self, features: Features, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "write", _fails_with(errno.EFAULT))
        with pytest.raises(DeviceError, match=WHERE + "does not take this state: Bad address"):
            features.migration.load([STATE])
        with pytest.raises(DeviceError, match=r"a session is open already \(RESUMING\)"):
            features.migration.load([STATE])

    def test_state_that_is_refused(self, features: Features, kernel: FakeFeatures) -> None:
        kernel.refuses = {MigrationState.STOP_COPY}
        with pytest.raises(DeviceError, match=r"STOP_COPY not reached: Inv.*; it is in RUNNING$"):
            features.migration.set_state(MigrationState.STOP_COPY)

    def test_error_and_recovery(self, features: Features, kernel: FakeFeatures) -> None:
        kernel.state = MigrationState.ERROR
        kernel.refuses = {MigrationState.RUNNING}
        with pytest.raises(DeviceError, match=r"it is in ERROR; recover\(\) resets it"):
            features.migration.set_state(MigrationState.RUNNING)
        features.migration.recover()
        assert (kernel.resets, features.migration.state) == (1, MigrationState.RUNNING)

    def test_where_there_is_none(self, features: Features, kernel: FakeFeatures) -> None:
        kernel.offered = frozenset()
        with pytest.raises(UnsupportedError, match=r"needs Linux 5\.18 or newer"):
            list(features.migration.save())


class TestGfx:
    def test_in_a_region(self, features: Features) -> None:
        plane = features.gfx.plane()
        assert (plane.width, plane.height, plane.stride, plane.source) == (640, 480, 2560, 9)
        assert plane.format_name == "XR24"

    def test_in_a_dmabuf(self, features: Features, kernel: FakeFeatures) -> None:
        kernel.plane_flag = PlaneFlag.DMABUF
        assert features.gfx.way() is PlaneFlag.DMABUF
        os.close(features.gfx.open_dmabuf(features.gfx.plane()))
        assert kernel.dmabufs == [struct.pack("=I", 9)]

    def test_none(self, features: Features, kernel: FakeFeatures) -> None:
        kernel.fails["DEVICE_QUERY_GFX_PLANE"] = errno.ENOTTY
        with pytest.raises(UnsupportedError, match=WHERE + "shows no picture"):
            features.gfx.plane()

    def test_that_fails(self, features: Features, kernel: FakeFeatures) -> None:
        kernel.fails["DEVICE_QUERY_GFX_PLANE"] = errno.ENOMEM
        with pytest.raises(HostError, match="Cannot allocate memory"):
            features.gfx.plane()


def _fails_with(number: int) -> object:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail

import mmap
from collections.abc import Iterator
from contextlib import closing
from ctypes import CDLL
from pathlib import Path

import numpy as np
import pytest

from uspace_drv.backends.virtual import VirtualDevice
from uspace_drv.bench import Comparison, Setting, Way
from uspace_drv.bench.floor import timed_loop
from uspace_drv.bench.suites import dma
from uspace_drv.device import Device
from uspace_drv.errors import HostError, NoDevice
from uspace_drv.port import DmaCalls, DmaKernel


def tiny(**options: str) -> Setting:
    return Setting(seconds=0.001, quick=True, **options)  # type: ignore[arg-type]


def measure_all(comparisons: Iterator[Comparison]) -> dict[str, list[str]]:
    """Call each way once; the names of the ways by comparison."""
    seen = {}
    for comparison in comparisons:
        assert comparison.baseline in comparison.ways
        for way in comparison.ways.values():
            sample = way()
            assert sample.operations > 0
            assert sample.seconds > 0
        seen[comparison.name] = list(comparison.ways)
    return seen


def no_huge_pages(size: int) -> mmap.mmap:
    raise OSError(12, "Cannot allocate memory")


def ordinary_pages(size: int) -> mmap.mmap:
    return mmap.mmap(-1, size)


@pytest.mark.usefixtures("nothing_left")
def test_memory_of_a_model_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dma, "map_huge_pages", no_huge_pages)
    setting = tiny()
    seen = measure_all(dma.suite.compare(setting))
    copies, taking = ["plain numpy", "DmaBuffer"], ["mmap and munmap", "alloc and close"]
    assert seen == {
        "copy 4 KiB into a buffer": copies,
        "copy 4 KiB out of a buffer": copies,
        "copy 1 MiB into a buffer": copies,
        "copy 1 MiB out of a buffer": copies,
        "take and give back 4 KiB": taking,
        "take and give back 1 MiB": taking,
    }
    (skipped,) = setting.skipped
    assert skipped.what == "copy 2 MiB into a buffer, by pages"
    assert "echo 1 | sudo tee /proc/sys/vm/nr_hugepages" in skipped.why


@pytest.mark.usefixtures("nothing_left")
def test_huge_pages_are_measured_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dma, "map_huge_pages", ordinary_pages)
    setting = tiny()
    seen = measure_all(dma.suite.compare(setting))
    assert seen["copy 2 MiB into a buffer, by pages"] == ["4 KiB pages", "huge page"]
    assert setting.skipped == []


def test_a_copy_goes_where_it_should() -> None:
    here, there = np.zeros(4, np.uint8), np.ones(4, np.uint8)
    dma._copy(tiny(), here, there, "out of")()
    assert there.tolist() == [0, 0, 0, 0]
    there.fill(2)
    dma._copy(tiny(), here, there, "into")()
    assert here.tolist() == [2, 2, 2, 2]


@pytest.mark.usefixtures("nothing_left")
def test_closing_it_half_way_leaves_nothing() -> None:
    comparisons = dma.suite.compare(tiny())
    next(comparisons)
    comparisons.close()  # type: ignore[attr-defined]


@pytest.mark.usefixtures("nothing_left")
def test_a_device_that_the_kernel_maps_nothing_for_is_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dma, "VIAS", (None,))
    monkeypatch.setattr(dma, "open_lent", lambda *_: closing(VirtualDevice(dma.MeasuredModel())))
    setting = tiny(device="0000:00:04.0")
    assert list(dma.suite.compare(setting)) == []
    (skipped,) = setting.skipped
    assert skipped.what == "map and unmap, virtual"
    assert "VFIO with an IOMMU does" in skipped.why


def test_a_way_that_is_not_there_is_skipped_unless_it_was_named() -> None:
    setting = tiny(device="ffff:ff:1f.7")
    assert list(dma.suite.compare(setting)) == []
    assert [each.what for each in setting.skipped] == [
        "map and unmap, vfio-cdev", "map and unmap, vfio-type1"
    ]  # fmt: skip
    with pytest.raises(NoDevice, match="ffff:ff:1f"):
        next(dma.suite.compare(tiny(device="ffff:ff:1f.7", via="vfio-cdev")))


def test_without_a_compiler_there_is_no_floor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    setting = tiny()
    assert dma._library(setting, tmp_path) is None
    assert [each.why for each in setting.skipped] == ["no cc; run: apt-get install gcc"]


@pytest.fixture
def device() -> Iterator[Device]:
    with closing(VirtualDevice(dma.MeasuredModel())) as backend, closing(Device(backend)) as made:
        yield made


def library(folder: Path) -> CDLL:
    found = dma._library(tiny(), folder)
    assert found is not None
    return found


@pytest.mark.parametrize("kernel", [DmaKernel.TYPE1, DmaKernel.IOAS])
def test_the_floor_says_why_the_kernel_refuses(tmp_path: Path, kernel: DmaKernel) -> None:
    """A file that knows no such ioctls stands for the device."""
    memory = np.zeros(mmap.PAGESIZE, np.uint8)
    with (tmp_path / "file").open("w") as file:
        bare = dma._bare_ioctls(tiny(), library(tmp_path), DmaCalls(kernel, file.fileno(), 1))
        with pytest.raises(HostError, match="bare ioctls in C: Inappropriate ioctl for device"):
            bare(memory)()


@pytest.mark.usefixtures("nothing_left")
def test_mappings_stand_beside_the_floor(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's IOMMU takes the kernel's place, and a count that of the floor."""
    mapped: list[int] = []

    def bare(array: dma.Bytes) -> Way:
        def run(loops: int) -> int:
            mapped.append(array.nbytes)
            return loops

        return timed_loop(tiny(), "bare", run)

    monkeypatch.setattr(dma, "map_huge_pages", ordinary_pages)
    setting = tiny()
    comparisons = [dma._mapping(setting, device, bare, 64)]
    comparisons += dma._huge_mapping(setting, device, bare)
    assert measure_all(iter(comparisons)) == {
        "map and unmap 64 pages, virtual": ["bare ioctls in C", "device.dma"],
        "map and unmap 2 MiB, virtual": [
            "4 KiB pages", "huge page", "huge page, bare ioctls in C"
        ],
    }  # fmt: skip
    assert set(mapped) == {64 * mmap.PAGESIZE, 2 << 20}
    assert not device.dma.buffers


def test_without_a_floor_ours_stands_alone(device: Device) -> None:
    comparison = dma._mapping(tiny(), device, None, 1)
    assert comparison.name == "map and unmap 1 page, virtual"
    assert (comparison.baseline, list(comparison.ways)) == ("device.dma", ["device.dma"])

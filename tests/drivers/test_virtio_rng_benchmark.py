"""The suite "rng", with models, and with a device and a kernel that are pretended."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from uspace_drivers.virtio_rng import benchmark
from uspace_drv import DeviceTimeout, HostError
from uspace_drv.bench import Figure, Setting
from uspace_drv.testing.served import ServedModel

MODELS = ["model in this process, polled"]
SERVED = ["model by vfio-user, by interrupt", "model by vfio-user, polled"]
OURS = ["uspace, by interrupt", "uspace, polled"]


def measure(setting: Setting) -> dict[int | None, list[str]]:
    """Call each way once; the names of the ways by the size of a read."""
    seen = {}
    for comparison in benchmark.suite.compare(setting):
        assert comparison.baseline == next(iter(comparison.ways))
        for way in comparison.ways.values():
            sample = way()
            assert sample.figure(Figure.RATE) > 0
            assert sample.latencies is not None
        seen[comparison.size] = list(comparison.ways)
    return seen


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(("quick", "sizes"), [(True, [64, 4096]), (False, [16, 64, 4096])])
def test_without_a_device_it_measures_models(quick: bool, sizes: list[int]) -> None:
    setting = Setting(seconds=0.001, quick=quick)
    assert measure(setting) == {size: ["os.urandom", *MODELS, *SERVED] for size in sizes}
    assert [each.what for each in setting.skipped] == ["/dev/hwrng"]


@pytest.mark.usefixtures("nothing_left")
def test_without_a_server_it_measures_the_other_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: ServedModel, *_: str) -> Self:  # type: ignore[misc]
        self.close()
        raise DeviceTimeout("it does not listen")

    monkeypatch.setattr(ServedModel, "start", start)
    setting = Setting(seconds=0.001, quick=True)
    assert measure(setting) == {size: ["os.urandom", *MODELS] for size in (64, 4096)}
    assert [each.why for each in setting.skipped[1:]] == ["it does not listen"]


class PretendedHandOver:
    """Remembers where the device would be."""

    moves: list[str] = []

    def __init__(self, address: str, via: str | None) -> None:
        self.moves.append(address)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.moves.append("back")

    def to_user(self) -> None:
        self.moves.append("user")

    def to_kernel(self) -> None:
        self.moves.append("kernel")


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(PretendedHandOver, "moves", found)
    monkeypatch.setattr(benchmark, "HandOver", PretendedHandOver)
    return found


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel with two generators."""
    monkeypatch.setattr(benchmark, "CONTROL", tmp_path)
    monkeypatch.setattr(benchmark, "NODE", Path("/dev/zero"))
    (tmp_path / "rng_available").write_text("tpm-rng-0 virtio_rng.1 none\n")
    (tmp_path / "rng_current").write_text("tpm-rng-0\n")
    return tmp_path


@pytest.mark.usefixtures("nothing_left")
def test_two_devices_stay_where_they_are(moves: list[str], control: Path) -> None:
    setting = Setting(device="virtual:virtio_rng", beside="0000:00:04.0", seconds=0.001, quick=True)
    assert measure(setting) == {size: ["/dev/hwrng", *OURS] for size in (64, 4096)}
    assert (moves[0], set(moves[1:-1]), moves[-1]) == ("virtual:virtio_rng", {"user"}, "back")
    assert (control / "rng_current").read_text() == "tpm-rng-0"


@pytest.mark.usefixtures("control")
def test_one_device_goes_to_and_fro(moves: list[str]) -> None:
    measure(Setting(device="virtual:virtio_rng", seconds=0.001, quick=True))
    around = ["virtual:virtio_rng", "user", *["kernel", "user", "user"] * 2, "back"]
    assert moves == around


@pytest.mark.parametrize("names", ["none", "virtio_rng.0 virtio_rng.1 none"])
def test_a_kernel_without_just_one_device(control: Path, names: str) -> None:
    (control / "rng_available").write_text(names)
    with (
        pytest.raises(HostError, match=f"expected one virtio_rng .* which are {names[:6]}"),
        benchmark.chosen_by_the_kernel(),
    ):
        pass


def test_a_kernel_without_generators(control: Path) -> None:
    (control / "rng_available").unlink()
    with (
        pytest.raises(HostError, match=r"cannot be chosen: .*rng_available"),
        benchmark.chosen_by_the_kernel(),
    ):
        pass


def test_a_kernel_that_gives_less(
    moves: list[str], control: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "NODE", control / "rng_available")
    with pytest.raises(HostError, match="gave 28 bytes instead of 64"):
        measure(Setting(device="virtual:virtio_rng", seconds=0.001, quick=True))


def test_the_guest_has_both_devices() -> None:
    guest = benchmark.suite.guest
    assert (guest.beside, guest.device) == ("0000:00:04.0", "0000:00:05.0")
    assert [words.split(",")[1] for words in guest.devices] == ["addr=4", "addr=5"]

"""A suite measured in a guest: what is booted, what is relayed, and what is kept when it dies."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest
from click.testing import CliRunner

from tests.cli.bench_suites import FakeSuites, write_fake_report
from uspace_drv.bench import GuestMachine
from uspace_drv.bench import guest as guest_module
from uspace_drv.bench.guest import EventLines, Relay
from uspace_drv.bench.results import (
    ComparisonResult,
    Machine,
    Noise,
    Results,
    Skipped,
    SuiteResult,
    read_results,
    write_results,
)
from uspace_drv.bench.stopwatch import PROCESSORS_SHOWN
from uspace_drv.bench.suite import Comparison
from uspace_drv.cli import bench_run, main
from uspace_drv.errors import HostError
from uspace_drv.testing.guest import PROCESSORS as QEMU_THREADS
from uspace_drv.testing.guest import GuestFailed
from uspace_drv.testing.guest.machine import Result

COMPARISON = Comparison(name="reads", operation="read", ways={}, baseline="kernel")
MEASURED = ComparisonResult(name="reads", operation="read", figure="rate", baseline="kernel")
SKIPPED = Skipped(what="fio", why="not installed")
NVME = GuestMachine(
    devices=["nvme,addr=4"],
    drives=["null-co"],
    iommu="intel",
    hugepages=8,
    modules=["x"],
    words=["y=1"],
    newest_qemu=True,
    device="0000:00:04.0",
    beside="0000:00:05.0",
    via="vfio",
)


class FakeGuest:
    """Does in this process what a guest would do; `act` is given the words and the sink."""

    act: Callable[[Sequence[str], Callable[[bytes], object]], int]

    def __init__(self, **wanted: Any) -> None:
        type(self).wanted = wanted

    def run(self, argv: Sequence[str], **asked: Any) -> Result:
        type(self).argv, type(self).asked = argv, asked
        return Result(type(self).act(argv, asked["sink"]), "", "")

    wanted: dict[str, Any]
    asked: dict[str, Any]
    argv: Sequence[str]


class Watched:
    """Notes what a watcher is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def begin(self, suite: str, comparison: Comparison) -> None:
        self.told.append((suite, comparison))

    def rounds(self, fraction: float, seconds_left: float) -> None:
        self.told.append((fraction, seconds_left))

    def end(self, suite: str, result: ComparisonResult) -> None:
        self.told.append((suite, result))

    def skipped(self, suite: str, skipped: Skipped) -> None:
        self.told.append((suite, skipped))


def measure_there(argv: Sequence[str], sink: Callable[[bytes], object]) -> int:
    """Be a guest in which all goes well."""
    words = list(argv)
    base = Path(words[words.index("--output") + 1])
    name = words[words.index("run") + 1]
    lines = EventLines(lambda line: sink(line.encode() + b"\r\n"))
    lines.skipped(name, SKIPPED)
    lines.begin(name, COMPARISON)
    lines.rounds(0.5, 2.0)
    lines.end(name, MEASURED)
    suite = SuiteResult(name=name, summary="s", comparisons=[MEASURED], skipped=[SKIPPED])
    machine = Machine(facts={"kernel": "own"})
    write_results(
        Results(started="", command=[], machines=[machine], suites=[suite]),
        base.with_name(f"{base.name}.json"),
    )
    return 0


@pytest.fixture(autouse=True)
def no_real_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the fake one, and nothing that boots."""
    monkeypatch.setattr(guest_module, "Guest", FakeGuest)
    monkeypatch.setattr(guest_module, "own_kernel", lambda tell: tell("building") or "kernel")
    monkeypatch.setattr(guest_module, "qemu_command", lambda **_: ["qemu"])
    monkeypatch.setattr(guest_module, "qemu_version", lambda command: f"{command[0]} 11")
    FakeGuest.act = staticmethod(measure_there)


@pytest.fixture
def suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSuites:
    """Have these suites installed, on a machine whose fingerprint takes no time."""
    made = FakeSuites({"kernel": "host"})
    monkeypatch.setattr(bench_run, "installed_suites", lambda: made.installed)
    monkeypatch.setattr(bench_run, "write_report", write_fake_report)
    monkeypatch.setattr(bench_run, "fingerprint", lambda _device: Machine(facts=dict(made.machine)))
    monkeypatch.chdir(tmp_path)
    return made


def run(*words: str) -> tuple[int, str, str]:
    """Run `uspace bench --vm --output name` and more words."""
    result = CliRunner().invoke(main, ["bench", "--vm", "--output", "name", *words])
    return result.exit_code, result.stdout, result.stderr


def test_the_guest_is_the_one_that_the_suite_asks_for(
    suites: FakeSuites, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"here{os.pathsep}/there")
    suites.add("nvme", guest=NVME)
    code, _, errors = run("nvme", "--quick")
    assert code == 0, errors
    folder = FakeGuest.asked["directory"]
    assert FakeGuest.wanted == {
        "devices": ["nvme,addr=4"], "drives": ["null-co"], "iommu": "intel", "hugepages": 8,
        "modules": ["x"], "words": ["y=1"], "qemu": "newest", "processors": 2,
        "shares": [folder], "kernel": "kernel", "shows_processors": True,
    }  # fmt: skip
    assert FakeGuest.argv == [
        sys.executable, "-P", "-m", "uspace_drv", "bench", "run", "nvme", "--lines",
        "--output", str(folder / "results"), "--device", "0000:00:04.0",
        "--beside", "0000:00:05.0", "--via", "vfio", "--quick", "--seconds", "3",
    ]  # fmt: skip
    assert FakeGuest.asked["environment"] == {
        "PYTHONPATH": f"{tmp_path / 'here'}:/there", PROCESSORS_SHOWN: str(QEMU_THREADS),
    }  # fmt: skip
    assert not folder.exists()


def test_a_suite_that_needs_no_device_and_a_way_that_was_given(
    suites: FakeSuites, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    suites.add("mmio")
    assert run("mmio", "--via", "uio")[0] == 0
    assert FakeGuest.wanted["qemu"] == "installed"
    assert FakeGuest.argv[-4:] == ["--via", "uio", "--seconds", "30"]
    assert "--device" not in FakeGuest.argv
    assert "PYTHONPATH" not in FakeGuest.asked["environment"]


def test_what_was_measured_there_is_in_the_results_of_the_host(suites: FakeSuites) -> None:
    suites.add("nvme", guest=NVME)
    suites.add("mmio")
    code, _, errors = run()
    assert code == 0
    results = read_results(Path("name.json"))
    assert [each.facts for each in results.machines] == [
        {"role": "host of the guests", "kernel": "host"},
        {"role": "guest for nvme", "QEMU": "qemu 11, TCG; devices: nvme,addr=4", "kernel": "own"},
        {"role": "guest for mmio", "QEMU": "qemu 11, TCG; devices: none", "kernel": "own"},
    ]
    assert [(each.name, each.machine) for each in results.suites] == [("nvme", 1), ("mmio", 2)]
    assert results.complete
    assert "nvme: skipped: fio: not installed" in errors
    assert errors.count("the kernel of the guests is built first") == 1


def test_events_reach_the_watcher_however_they_are_cut() -> None:
    sent: list[bytes] = []
    lines, watched = EventLines(lambda line: sent.append(line.encode() + b"\n")), Watched()
    lines.begin("s", COMPARISON)
    lines.rounds(0.25, 3.0)
    lines.skipped("s", SKIPPED)
    lines.end("s", MEASURED)
    relay = Relay(watched)
    for byte in b"a warning\r\n" + b"".join(sent) + b'{"no": "event"}\n\xff[':
        relay(bytes([byte]))
    relay.close()
    relay.close()
    assert relay.said == ["a warning", '{"no": "event"}', "\ufffd["]
    assert watched.told == [("s", COMPARISON), (0.25, 3.0), ("s", SKIPPED), ("s", MEASURED)]


class FakeMeter:
    """Sees a busy host; notes when it was asked to look."""

    told: list[str] = []
    seen = Noise(
        steal=0.25, others=0.0, load=7.0, frequencies=[2000.0, 3000.0], notes=["it is busy"]
    )

    def __init__(self) -> None:
        self.noise = Noise()

    def __enter__(self) -> Self:
        self.told.append("begin")
        return self

    def __exit__(self, *_: object) -> None:
        self.told.append("end")
        for name in Noise.__struct_fields__:
            setattr(self.noise, name, getattr(self.seen, name))

    def look(self) -> None:
        self.told.append("look")


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> type[FakeMeter]:
    monkeypatch.setattr(FakeMeter, "told", [])
    monkeypatch.setattr(guest_module, "NoiseMeter", FakeMeter)
    return FakeMeter


def test_what_the_host_did_meanwhile_is_noise_of_the_guest(
    suites: FakeSuites, meter: type[FakeMeter], monkeypatch: pytest.MonkeyPatch
) -> None:
    blind = Noise(steal=0.0, others=0.5, load=1.0, frequencies=[1.0, 1.0], notes=["few rounds"])
    monkeypatch.setattr(MEASURED, "noise", blind)
    suites.add("nvme")
    assert run("nvme")[0] == 0
    assert meter.told == ["begin", "look", "end"]
    (measured,) = read_results(Path("name.json")).suites[0].comparisons
    assert measured.noise == Noise(
        steal=0.25, others=0.5, load=7.0, frequencies=[2000.0, 3000.0],
        notes=["few rounds", "host: it is busy"],
    )  # fmt: skip


def test_a_quiet_host_adds_nothing(
    suites: FakeSuites, meter: type[FakeMeter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter, "seen", Noise())
    blind = Noise(frequencies=[1.0, 1.0], notes=["few rounds"])
    monkeypatch.setattr(MEASURED, "noise", blind)
    suites.add("nvme")
    assert run("nvme")[0] == 0
    assert read_results(Path("name.json")).suites[0].comparisons[0].noise == blind


def test_the_host_is_judged_though_a_comparison_never_ends(
    suites: FakeSuites, meter: type[FakeMeter]
) -> None:
    def act(argv: Sequence[str], sink: Callable[[bytes], object]) -> int:
        measure_there(argv, lambda line: None if b'"End"' in line else sink(line))
        raise KeyboardInterrupt

    FakeGuest.act = staticmethod(act)
    suites.add("nvme")
    assert run("nvme")[0] == 130
    assert meter.told == ["begin", "look", "end"]
    (measured,) = read_results(Path("name.json")).suites[0].comparisons
    assert measured.noise.notes == ["host: it is busy"]


def test_comparisons_are_watched_one_by_one(
    meter: type[FakeMeter], monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = Relay(Watched())
    lines = EventLines(lambda line: relay(line.encode() + b"\n"))
    lines.rounds(0.0, 1.0)
    for name in ("first", "second"):
        lines.begin("s", Comparison(name=name, operation="o", ways={}, baseline="b"))
        monkeypatch.setattr(meter, "seen", Noise(notes=[name]))
    relay.close()
    assert meter.told == ["begin", "end", "begin", "end"]
    results = [
        ComparisonResult(name=name, operation="o", figure="rate", baseline="b")
        for name in ("first", "second", "never seen")
    ]
    relay.host.add_to([SuiteResult(name="s", summary="", comparisons=results)])
    assert [each.noise.notes for each in results] == [["host: first"], ["host: second"], []]


def test_what_a_suite_that_fails_there_has_said_is_shown(suites: FakeSuites) -> None:
    def act(argv: Sequence[str], sink: Callable[[bytes], object]) -> int:
        measure_there(argv, sink)
        sink(b"error: 0000:00:04.0: silent\n")
        return 1

    FakeGuest.act = staticmethod(act)
    suites.add("nvme")
    code, _, errors = run()
    assert code == 1
    assert errors.endswith(
        "error: nvme: failed in the guest, exit code 1:\nerror: 0000:00:04.0: silent\n"
    )
    results = read_results(Path("name.json"))
    assert not results.complete
    assert [each.name for each in results.suites[0].comparisons] == ["reads"]
    assert results.suites[0].skipped[-1].what == "what was left of it"


@pytest.mark.parametrize("damage", [False, True])
def test_a_guest_without_results_has_failed(suites: FakeSuites, damage: bool) -> None:
    def act(argv: Sequence[str], sink: Callable[[bytes], object]) -> int:
        if damage:
            words = list(argv)
            Path(f"{words[words.index('--output') + 1]}.json").write_text("{")
        return 0

    FakeGuest.act = staticmethod(act)
    suites.add("nvme")
    code, _, errors = run()
    assert code == 1
    assert errors.endswith("error: nvme: failed in the guest, exit code 0:\n(nothing)\n")


def raise_there(error: BaseException) -> Callable[..., int]:
    def act(argv: Sequence[str], sink: Callable[[bytes], object]) -> int:
        measure_there(argv, sink)
        raise error

    return act


def test_what_a_guest_measured_before_it_died_is_kept(suites: FakeSuites) -> None:
    FakeGuest.act = staticmethod(raise_there(GuestFailed("it hung", "", "the log")))
    suites.add("nvme")
    code, output, errors = run()
    assert code == 1
    assert "guest: it hung" in errors
    assert "reads" in output
    assert not read_results(Path("name.json")).complete


def test_what_a_guest_measured_before_ctrl_c_is_kept(suites: FakeSuites) -> None:
    FakeGuest.act = staticmethod(raise_there(KeyboardInterrupt()))
    suites.add("nvme")
    suites.add("mmio")
    code, output, errors = run()
    assert code == 130
    assert "reads" in output
    results = read_results(Path("name.json"))
    assert (results.complete, len(results.suites)) == (False, 1)
    assert errors.endswith("interrupted\n")


def test_a_host_without_qemu_is_told_before_a_kernel_is_built(
    suites: FakeSuites, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(**_: bool) -> list[str]:
        raise HostError("qemu-system-x86_64: not found; run: apt-get install qemu-system-x86")

    monkeypatch.setattr(guest_module, "qemu_command", missing)
    suites.add("nvme")
    code, _, errors = run()
    assert code == 1
    assert "error: qemu-system-x86_64: not found; run: apt-get" in errors
    assert "kernel" not in errors


def test_an_event_of_an_unknown_kind_is_no_event() -> None:
    relay = Relay(Watched())
    relay(msgspec.json.encode({"type": "Later"}) + b"\n")
    assert relay.said == ['{"type":"Later"}']

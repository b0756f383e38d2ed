"""The noise meter, on machines whose facts are made up, and on one that tells nothing."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NoReturn

import psutil
import pytest

from uspace_drv.bench.noise import NoiseMeter, round_notes
from uspace_drv.bench.results import ComparisonResult, Round, WayResult

Times = namedtuple(  # noqa: PYI024 - as psutil makes it
    "Times", "user nice system idle iowait irq softirq steal guest guest_nice"
)


class Machine:
    """Two processors; between two looks ten seconds pass, and what `passed` says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passed: dict[str, float] = {"idle": 20.0}
        self.ours = 0.0
        self.clocks: list[list[float]] = [[2000.0], [2000.0]]
        self.load = 0.5
        self._patch = monkeypatch
        self.start = dict.fromkeys(Times._fields, 1000.0)

    def watch(self) -> NoiseMeter:
        patch, clocks = self._patch, iter(self.clocks)
        end = {name: value + self.passed.get(name, 0.0) for name, value in self.start.items()}
        patch.setattr("os.cpu_count", lambda: 2)
        patch.setattr("os.getloadavg", lambda: (self.load, 9.0, 9.0))
        patch.setattr("time.monotonic", iter([5.0, 15.0]).__next__)
        patch.setattr("psutil.cpu_times", iter([Times(**self.start), Times(**end)]).__next__)
        patch.setattr(
            "psutil.cpu_freq",
            lambda *, percpu: [SimpleNamespace(current=each) for each in next(clocks)],
        )
        patch.setattr("psutil.Process", self.process(iter([0.0, self.ours])))
        with NoiseMeter() as meter:
            for _ in self.clocks[2:]:
                meter.look()
        return meter

    @staticmethod
    def process(used: Any) -> Callable[[int], Any]:
        def of(pid: int) -> Any:
            times = lambda: (next(used), 0.0, 0.0, 0.0, 7.0)  # noqa: E731
            return SimpleNamespace(pid=pid, cpu_times=times, children=lambda *, recursive: [])

        return of


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_a_quiet_machine_has_no_notes(machine: Machine) -> None:
    machine.passed, machine.ours = {"idle": 9.5, "user": 10.0, "irq": 0.5}, 10.0
    noise = machine.watch().noise
    assert (noise.steal, noise.others, noise.load, noise.notes) == (0.0, 0.0, 0.5, [])
    assert noise.frequencies == [2000.0, 2000.0]


def test_what_the_hypervisor_takes_is_noted(machine: Machine) -> None:
    machine.passed = {"idle": 19.0, "steal": 1.0}
    noise = machine.watch().noise
    assert (noise.steal, noise.others) == (0.05, 0.0)
    assert noise.notes == ["the hypervisor took 5.0% of the processors' time (steal)"]


def test_other_programs_are_noted_and_our_own_are_not(machine: Machine) -> None:
    machine.passed, machine.ours = {"idle": 8.0, "user": 10.0, "system": 2.0}, 6.0
    noise = machine.watch().noise
    assert noise.others == pytest.approx(0.3)
    assert noise.notes == ["other programs took 30% of the processors' time"]


def test_guests_are_not_counted_twice(machine: Machine) -> None:
    machine.passed, machine.ours = {"idle": 8.0, "user": 12.0, "guest": 12.0}, 12.0
    assert machine.watch().noise.others == 0.0


def test_waiting_for_disks_and_interrupts_are_no_noise(machine: Machine) -> None:
    machine.passed = {"idle": 5.0, "iowait": 10.0, "irq": 2.0, "softirq": 3.0}
    assert machine.watch().noise.notes == []


def test_a_few_ticks_are_no_noise(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a hundredth of a second one tick of the kernel's clock is half of the machine."""
    machine.passed = {"idle": 0.01, "steal": 0.01}
    times = iter([5.0, 5.01])
    real = monkeypatch.setattr
    machine._patch = SimpleNamespace(  # type: ignore[assignment]
        setattr=lambda name, value: real(
            name, times.__next__ if name == "time.monotonic" else value
        )
    )
    noise = machine.watch().noise
    assert noise.steal == pytest.approx(0.5)
    assert noise.notes == []


def test_a_load_that_the_processors_cannot_carry_is_noted(machine: Machine) -> None:
    machine.load = 3.25
    assert machine.watch().noise.notes == ["the load average was 3.2 on 2 processors at the start"]


def test_the_clock_of_the_fastest_processor_counts(machine: Machine) -> None:
    machine.clocks = [[800.0, 3000.0], [2950.0, 800.0], [800.0, 800.0, 2900.0]]
    noise = machine.watch().noise
    assert (noise.frequencies, noise.notes) == ([2900.0, 3000.0], [])


def test_a_clock_that_falls_is_noted(machine: Machine) -> None:
    machine.clocks = [[3000.0], [2200.0], [3000.0]]
    noise = machine.watch().noise
    assert noise.notes == ["the clock went between 2200 and 3000 MHz"]


def test_counters_that_go_backwards_are_no_noise(machine: Machine) -> None:
    """Some kernels count the idle time of a processor back when it comes or goes."""
    machine.passed = {"idle": 20.0, "steal": -5.0, "user": -1.0}
    noise = machine.watch().noise
    assert (noise.steal, noise.others, noise.notes) == (0.0, 0.0, [])


def test_a_sandbox_whose_counters_stand_still_says_nothing(machine: Machine) -> None:
    machine.passed = {}
    noise = machine.watch().noise
    assert (noise.steal, noise.others, noise.notes) == (0.0, 0.0, [])


@pytest.mark.parametrize(
    "error", [OSError(2, "no /proc/stat"), NotImplementedError(), psutil.AccessDenied(1)]
)
def test_a_machine_that_tells_nothing_is_no_reason_to_fail(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise error

    for name in ("psutil.cpu_times", "psutil.cpu_freq", "psutil.Process"):
        monkeypatch.setattr(name, refuse)
    monkeypatch.setattr("os.getloadavg", refuse)
    with NoiseMeter() as meter:
        meter.look()
    noise = meter.noise
    assert (noise.steal, noise.others, noise.load, noise.frequencies) == (0.0, 0.0, 0.0, [])
    assert noise.notes == []


def test_a_kernel_that_has_no_steal_or_clock(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = namedtuple("few", "user nice system idle")  # noqa: PYI024
    machine.passed = {}
    monkeypatch.setattr("os.getloadavg", lambda: (0.0,))
    monkeypatch.setattr("time.monotonic", iter([0.0, 10.0]).__next__)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    monkeypatch.setattr("psutil.cpu_times", iter([few(0, 0, 0, 0), few(4, 0, 0, 6)]).__next__)
    monkeypatch.setattr("psutil.cpu_freq", lambda *, percpu: None)
    monkeypatch.setattr("psutil.Process", machine.process(iter([0.0, 0.0])))
    with NoiseMeter() as meter:
        pass
    assert meter.noise.others == pytest.approx(0.4)


def test_children_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that ends hands its time to its parent: it is counted once, and always."""
    used = {1: [0.0, 0.0, 0.0, 0.0, 0.0], 2: [3.0, 0.0, 0.0, 0.0, 0.0]}

    def process(pid: int) -> Any:
        children = [process(2)] if pid == 1 and 2 in used else []
        return SimpleNamespace(
            pid=pid, cpu_times=lambda: used[pid], children=lambda *, recursive: children
        )

    monkeypatch.setattr("psutil.Process", process)
    monkeypatch.setattr("os.getpid", lambda: 1)
    meter = NoiseMeter(pids=[2])
    assert meter._our_seconds() == 3.0
    used[1][2] = used.pop(2)[0] + 1.0
    monkeypatch.setattr("os.getpid", lambda: 1)
    assert NoiseMeter()._our_seconds() == 4.0


def test_it_judges_though_the_work_fails() -> None:
    meter = NoiseMeter()
    with pytest.raises(KeyboardInterrupt), meter:
        raise KeyboardInterrupt
    assert meter.noise.load >= 0


def way(name: str, *seconds: float) -> WayResult:
    return WayResult(name=name, rounds=[Round(operations=1, seconds=each) for each in seconds])


def compared(*ways: WayResult) -> ComparisonResult:
    return ComparisonResult(
        name="c", operation="op", figure="time", baseline="even", ways=list(ways)
    )


def test_rounds_that_differ_are_noted() -> None:
    ways = way("even", 10, 10, 10.1, 10.2, 10.2), way("uneven", 8, 9, 10, 11, 12), way("none")
    assert round_notes(compared(*ways)) == ["uneven: the middle half of its rounds is 20% apart"]


@pytest.mark.parametrize(("count", "held"), [(1, "0%"), (2, "50%"), (3, "75%"), (4, "88%")])
def test_too_few_rounds_are_noted(count: int, held: str) -> None:
    ways = way("even", *[10] * 5), way("cut short", *[10] * count)
    assert round_notes(compared(*ways)) == [
        f"{count} rounds are too few: intervals hold with {held}, not 95%"
    ]
    assert round_notes(compared(way("even", *[10] * 5))) == []


def test_nothing_measured_has_no_notes() -> None:
    assert round_notes(compared(way("even"))) == []

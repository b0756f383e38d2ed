"""The stopwatch: time, processor time of this process, and the machine's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from uspace_drv.bench import stopwatch as stopwatch_module
from uspace_drv.bench.stopwatch import PROCESSORS_SHOWN, Stopwatch, busy_seconds, own_seconds


def test_it_counts_time_and_what_this_process_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.perf_counter", iter([10.0, 12.5]).__next__)
    # This process, then its children; before, then after.
    used = iter([(1, 2), (3, 4), (1.5, 2.25), (4, 5)])

    def getrusage(_: int) -> SimpleNamespace:
        user, system = next(used)
        return SimpleNamespace(ru_utime=user, ru_stime=system)

    monkeypatch.setattr(stopwatch_module, "getrusage", getrusage)
    with Stopwatch() as watch:
        pass
    sample = watch.sample(5)
    assert (sample.operations, sample.seconds, sample.own) == (5, 2.5, 2.75)
    assert sample.latencies is None


def test_the_machine_is_busy_when_it_is_not_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("psutil.cpu_times", lambda: SimpleNamespace(idle=300.0, iowait=20.0))
    assert busy_seconds() == 80.0


def test_a_machine_that_shows_zeros_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As sandboxes do: all of the time would count as work."""
    zeros = SimpleNamespace(user=0.0, idle=0.0, iowait=0.0)
    monkeypatch.setattr("psutil.cpu_times", lambda: zeros)
    with Stopwatch() as watch:
        pass
    assert watch.sample(1).busy is None


def test_work_is_seen() -> None:
    with Stopwatch() as watch:
        end = own_seconds() + 0.02
        while own_seconds() < end:
            pass
    assert 0.02 <= watch.own < 1.0
    assert watch.seconds > 0


def test_it_counts_though_the_work_fails() -> None:
    watch = Stopwatch()
    with pytest.raises(ZeroDivisionError), watch:
        raise ZeroDivisionError
    assert watch.sample(1).seconds > 0


def test_in_a_guest_the_emulated_processors_are_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, (name, run) in enumerate({"CPU 0/TCG": 5, "CPU 1/TCG": 7, "qemu": 1000}.items()):
        thread = tmp_path / str(number)
        thread.mkdir()
        (thread / "comm").write_text(name + "\n")
        (thread / "schedstat").write_text(f"{run}000000000 12 3\n")
    monkeypatch.setenv(PROCESSORS_SHOWN, str(tmp_path))
    assert busy_seconds() == 12.0
    (tmp_path / "0" / "schedstat").write_text("5500000000 12 4\n")
    assert busy_seconds() == 12.5

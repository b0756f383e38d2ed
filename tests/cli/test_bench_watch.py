"""What a run of benchmarks says while it measures: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from click.testing import Result
from rich.console import Console

from tests.cli.bench_suites import FakeSuites
from uspace_drv.bench.results import (
    ComparisonResult,
    Interval,
    Machine,
    Noise,
    Ratio,
    Results,
    Round,
    Skipped,
    SuiteResult,
    WayResult,
    write_results,
)
from uspace_drv.bench.suite import Comparison
from uspace_drv.cli import bench_compare, bench_run, bench_show, bench_table, bench_watch
from uspace_drv.cli.bench_show import show_results
from uspace_drv.cli.bench_table import Group, show_groups
from uspace_drv.cli.bench_watch import Bar, Lines, duration, line_of, teller

RESULT = ComparisonResult(
    name="reads [4 KiB]",
    operation="read",
    figure="rate",
    baseline="kernel",
    ways=[
        WayResult(name="kernel", rounds=[Round(operations=1000, seconds=1.0)]),
        WayResult(name="user", rounds=[Round(operations=2000, seconds=1.0)]),
        WayResult(name="never"),
    ],
    ratios=[Ratio(way="user", figure=Interval(middle=2, low=1.9, high=2.1))],
    narrow=True,
)


class Terminal(io.StringIO):
    """Somebody looks at it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Let bars be drawn where they can be read."""
    made = Terminal()
    monkeypatch.setattr(
        bench_watch,
        "Console",
        lambda **_: Console(file=made, force_terminal=True, width=100, color_system=None),
    )
    monkeypatch.setattr(bench_watch, "sys", SimpleNamespace(stderr=made))
    return made


def test_a_line_has_the_baseline_and_the_ratios() -> None:
    assert line_of("nvme", RESULT) == (
        "nvme: reads [4 KiB]: kernel 1.00 k/s; user 2.00 x (1.90 to 2.10) better"
    )


def test_a_bar_shows_which_comparison_it_is_and_how_much_longer(terminal: Terminal) -> None:
    comparison = Comparison(name="reads [4 KiB]", operation="read", ways={}, baseline="kernel")
    with teller(["mmio", "nvme"]) as watcher:
        assert isinstance(watcher, Bar)
        watcher.begin("nvme", comparison)
        assert "nvme (2 of 2): reads [4 KiB]" in terminal.getvalue()
        assert "warming up" in terminal.getvalue()
        watcher.rounds(0.25, 100.0)
        assert " 25 % 1 min 40 s left" in terminal.getvalue()
        watcher.end("nvme", RESULT)
        watcher.skipped("nvme", Skipped(what="fio", why="not installed"))
    lines = terminal.getvalue().splitlines()
    assert any(line.endswith("user 2.00 x (1.90 to 2.10) better") for line in lines)
    assert any("nvme: skipped: fio: not installed" in line for line in lines)


def test_where_nobody_looks_there_are_lines_only(capsys: pytest.CaptureFixture[str]) -> None:
    comparison = Comparison(name="reads", operation="read", ways={}, baseline="kernel")
    with teller(["nvme"]) as watcher:
        assert type(watcher) is Lines
        watcher.begin("nvme", comparison)
        watcher.rounds(0.5, 1.0)
        watcher.end("nvme", RESULT)
    assert capsys.readouterr().err == f"{line_of('nvme', RESULT)}\n"


@pytest.mark.parametrize(
    ("seconds", "words"), [(-1, "0 s"), (0.4, "0 s"), (59.6, "1 min 0 s"), (100, "1 min 40 s")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_run_on_a_terminal_says_the_same(
    terminal: Terminal, suites: FakeSuites, monkeypatch: pytest.MonkeyPatch
) -> None:
    suites.add("one")
    bench_run.measure(bench_run.Wishes(output=Path("name")))
    assert "one: work: kernel 1.00 us; user 2.00 x" in terminal.getvalue()
    assert "one (1 of 1): work" in terminal.getvalue()


def test_a_narrow_terminal_gets_the_columns_that_weigh_most(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"light": "1234", "way": "kernel", "empty": "", "heavy": "5"}]
    groups = [Group("reads", rows, ["the machine was busy"])]
    weights = ("way", "empty", "heavy", "light")
    show_groups(groups, weights)
    wide = capsys.readouterr().out
    assert wide == "  light  way     heavy\nreads\n  1234   kernel  5\n  ! the machine was busy\n"
    monkeypatch.setattr(bench_table, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "17")
    show_groups(groups, weights)
    assert capsys.readouterr().out.splitlines()[0] == "  way     heavy"
    show_groups([], weights)
    assert not capsys.readouterr().out


def test_a_terminal_too_narrow_for_what_is_needed_gets_two_lines_a_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"way": "user space, polled", "figure": "9.53 k/s", "ratio": "1.64 x (1.50 to 1.71)"}]
    groups = [Group("4 KiB random reads, of all places", rows, ["the host took some 14.0 %"])]
    monkeypatch.setattr(bench_table, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "54")
    show_groups(groups, ("way", "figure", "ratio"), 3)
    assert capsys.readouterr().out.splitlines()[:3] == [
        "  way                 figure    ratio",
        "4 KiB random reads, of all places",
        "  user space, polled  9.53 k/s  1.64 x (1.50 to 1.71)",
    ]
    monkeypatch.setenv("COLUMNS", "28")
    show_groups(groups, ("way", "figure", "ratio"), 2)
    assert capsys.readouterr().out.splitlines() == [
        "  way",
        "    figure",
        "4 KiB random reads, of all",
        "  places",
        "  user space, polled",
        "    9.53 k/s",
        "  ! the host took some",
        "    14.0 %",
    ]


def test_lists_and_facts_go_on_below_on_a_narrow_terminal(
    suites: FakeSuites, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    suites.add("one")
    a, b = (Machine(facts={"kernel options": f"an.option=1 {each}.option=2"}) for each in "ab")
    for name, machine in (("a", a), ("b", b)):
        measured = [SuiteResult(name="s", summary="", comparisons=[RESULT])]
        found = Results(started="then", command=[], machines=[machine], suites=measured)
        write_results(found, Path(f"{name}.json"))
    monkeypatch.setattr(bench_table, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "24")
    bench_show.show_suites(as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("one: ")
    assert lines[-1].startswith("  from ")
    bench_compare.show_comparison(Path("a.json"), Path("b.json"), as_json=False)
    assert capsys.readouterr().out.splitlines()[-5:] == [
        "kernel options",
        "  A: an.option=1",
        "    a.option=2",
        "  B: an.option=1",
        "    b.option=2",
    ]


def test_a_guest_writes_events_and_no_tables(
    uspace: Callable[..., Result], suites: FakeSuites
) -> None:
    suites.add("one", skip="fio")
    result = uspace("bench", "one", "--lines", "--output", "name")
    assert result.exit_code == 0
    kinds = [line.partition(",")[0] for line in result.stdout.splitlines()]
    assert kinds[:2] == ['{"type":"LeftOut"', '{"type":"Begin"']
    assert kinds[-1] == '{"type":"End"'
    assert set(kinds[2:-1]) == {'{"type":"Rounds"'}
    assert [path.name for path in Path().iterdir()] == ["name.json"]


def test_all_doubts_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    noisy = msgspec.structs.replace(RESULT, noise=Noise(notes=[f"doubt {n}" for n in range(6)]))
    suite = SuiteResult(name="nvme", summary="reads", device="0000:00:04.0", comparisons=[noisy])
    show_results(Results(started="", command=[], suites=[suite]))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "nvme: reads (0000:00:04.0)"
    assert [line for line in lines if "doubt" in line] == [f"  ! doubt {n}" for n in range(6)]


def test_a_suite_of_a_guest_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    machines = [Machine(facts={"role": "host"}), Machine(facts={"role": "guest for nvme"})]
    suites = [SuiteResult(name=f"s{n}", summary="reads", machine=n) for n in (1, 7)]
    show_results(Results(started="", command=[], suites=suites, machines=machines))
    lines = capsys.readouterr().out.split("\n")
    assert lines[1:4:2] == ["s1: reads (guest for nvme)", "s7: reads"]

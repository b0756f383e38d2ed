"""`uspace bench` when something goes wrong: what was measured is kept, shown, and said to be."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from click.testing import Result

from tests.cli.bench_suites import FakeSuites
from uspace_drv.bench import results as results_file
from uspace_drv.bench.installed import GROUP
from uspace_drv.bench.results import Results, read_results
from uspace_drv.cli import bench_file, bench_run, main
from uspace_drv.errors import DeviceTimeout, HostError

Uspace = Callable[..., Result]


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("suffix", [".json", ".html", ".png", "-dark.png"])
def test_nothing_is_overwritten(suffix: str, uspace: Uspace, suites: FakeSuites) -> None:
    suites.add("one")
    old = Path(f"name{suffix}")
    old.write_text("precious")
    result = uspace("bench", "--output", "name")
    assert result.exit_code == 1
    assert f"error: {old}: exists already; take another name: --output NAME" in result.stderr
    assert old.read_text() == "precious"
    assert not suites.settings


def test_a_folder_that_takes_no_files_is_said_before_anything_is_measured(
    uspace: Uspace, suites: FakeSuites
) -> None:
    suites.add("one")
    Path("file").touch()
    for name, why in (("missing/name", "No such file"), ("file/name", "Not a directory")):
        result = uspace("bench", "--output", name)
        assert result.exit_code == 1
        assert f"error: {name}.json: cannot be written: {why}" in result.stderr
    assert not suites.settings


@pytest.fixture
def refuge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files with room in it, and no other."""
    made = tmp_path / "refuge"
    made.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(made))
    monkeypatch.setattr(bench_file, "REFUGES", ())
    return made


def disk_that_gets_full(monkeypatch: pytest.MonkeyPatch, *full: Path) -> Callable[[], None]:
    """Return what makes the disk of these folders full."""
    now: list[Path] = []

    def write(results: Results, path: Path) -> None:
        if any(path.resolve().is_relative_to(folder) for folder in now):
            raise HostError(f"{path}: cannot be written: No space left on device")
        results_file.write_results(results, path)

    monkeypatch.setattr(bench_file, "write_results", write)
    return lambda: now.extend(full)


def test_a_disk_that_gets_full_ends_no_measurement(
    uspace: Uspace, suites: FakeSuites, refuge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill = disk_that_gets_full(monkeypatch, Path.cwd())
    suites.add("one", act=fill)
    suites.add("two")
    result = uspace("bench", "--output", "name")
    assert result.exit_code == 1
    (kept,) = refuge.glob("*/name.json")
    assert result.stderr.endswith(
        f"error: name.json: cannot be written: No space left on device; the results are in {kept}\n"
    )
    assert [len(each.comparisons) for each in read_results(kept).suites] == [2, 1]
    assert "more work" in result.stdout
    assert f"written:\n  {kept}\n  {kept.with_suffix('.html')}" in result.stdout


def test_tables_are_all_that_is_left_if_every_disk_is_full(
    uspace: Uspace, suites: FakeSuites, refuge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suites.add("one", act=disk_that_gets_full(monkeypatch, Path.cwd(), refuge))
    result = uspace("bench", "--output", "name")
    assert result.exit_code == 1
    assert "No space left on device; no other folder takes the results" in result.stderr
    assert "more work" in result.stdout
    assert "written" not in result.stdout


def test_a_disk_may_have_room_again(
    uspace: Uspace, suites: FakeSuites, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0

    def write(results: Results, path: Path) -> None:
        nonlocal written
        written += 1
        if written == 2:
            raise HostError("full")
        results_file.write_results(results, path)

    monkeypatch.setattr(bench_file, "write_results", write)
    suites.add("one")
    assert uspace("bench", "--output", "name").exit_code == 0
    assert read_results(Path("name.json")).complete


def test_without_a_folder_for_temporary_files_there_are_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", partial(fail, FileNotFoundError("none")))
    monkeypatch.setattr(bench_file, "REFUGES", (tmp_path / "missing", tmp_path))
    fill = disk_that_gets_full(monkeypatch, tmp_path / "full")
    fill()
    file = bench_file.ResultsFile(tmp_path / "full" / "x", Results(started="", command=[]))
    kept, problem = file.finish()
    assert kept is not None
    assert kept.parent.parent == tmp_path
    assert str(kept) in str(problem)


def test_a_report_that_cannot_be_written_is_an_error_after_the_tables(
    uspace: Uspace, suites: FakeSuites, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(_results: Results, base: Path) -> list[Path]:
        raise HostError(f"{base}.html: cannot be written: No space left on device")

    monkeypatch.setattr(bench_run, "write_report", write)
    suites.add("one")
    result = uspace("bench", "--output", "name")
    assert result.exit_code == 1
    assert result.stdout.endswith("written:\n  name.json\n")
    assert result.stderr.endswith("error: name.html: cannot be written: No space left on device\n")


def test_a_pipe_that_nobody_reads_any_more_costs_no_file(
    uspace: Uspace, suites: FakeSuites, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_run, "show_results", lambda _results: fail(BrokenPipeError()))
    suites.add("one")
    uspace("bench", "--output", "name")
    assert len(list(Path().iterdir())) == 4


def test_a_report_that_is_interrupted_leaves_the_tables(
    uspace: Uspace, suites: FakeSuites, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_run, "write_report", lambda *_: fail(KeyboardInterrupt()))
    suites.add("one")
    result = uspace("bench", "--output", "name")
    assert result.exit_code == 130
    assert "work" in result.stdout


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)], ids=["INT", "TERM"]
)
def test_what_an_interrupted_run_has_is_kept(
    error: BaseException, code: int, uspace: Uspace, suites: FakeSuites
) -> None:
    suites.add("one", act=lambda: fail(error))
    suites.add("two")
    result = uspace("bench", "--output", "name")
    assert result.exit_code == code
    assert "ended early: what was measured is kept, marked as incomplete\n" in result.stderr
    results = read_results(Path("name.json"))
    assert not results.complete
    (suite,) = results.suites
    assert [each.complete for each in suite.comparisons] == [True, False]
    assert "! interrupted before it was done" in result.stdout
    assert "narrow" not in result.stdout, "nobody knows what its time would have led to"
    assert result.stderr.count("interrupted\n") == 1
    assert Path("name.html").exists()


def test_an_interrupted_run_that_has_nothing_leaves_nothing(
    uspace: Uspace, suites: FakeSuites, monkeypatch: pytest.MonkeyPatch
) -> None:
    suites.add("one")
    monkeypatch.setattr(bench_run, "fingerprint", lambda _device: fail(KeyboardInterrupt()))
    result = uspace("bench", "--output", "name")
    assert result.exit_code == 130
    assert result.stderr == "ended early: nothing was measured, so nothing is kept\ninterrupted\n"
    assert not list(Path().iterdir())


def test_a_signal_before_anything_is_measured_is_said(uspace: Uspace, suites: FakeSuites) -> None:
    """As while a guest boots."""
    suites.add_silent("one", act=lambda: signal.raise_signal(signal.SIGTERM))
    result = uspace("bench", "--output", "name")
    assert result.exit_code == 143
    assert result.stderr == "ended early: nothing was measured, so nothing is kept\ninterrupted\n"
    assert not list(Path().iterdir())


@pytest.mark.parametrize("error", [HostError("broken by it"), OSError("broken by it")])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_wins_over_the_failure_that_it_led_to(
    number: signal.Signals, code: int, error: Exception, uspace: Uspace, suites: FakeSuites
) -> None:
    def act() -> None:
        with suppress(KeyboardInterrupt, SystemExit):
            signal.raise_signal(number)
        raise error

    suites.add("one", act=act)
    suites.add("two")
    result = uspace("bench", "--output", "name")
    assert result.exit_code == code
    assert result.stderr.count("interrupted\n") == 1
    assert "  meanwhile: broken by it\n" in result.stderr
    assert "failed" not in result.stderr
    assert [each.name for each in read_results(Path("name.json")).suites] == ["one"]


def test_ctrl_c_in_an_event_loop_wins_over_a_failure(uspace: Uspace, suites: FakeSuites) -> None:
    """Which of the two asyncio reports is a race that it is kept out of."""

    async def fail_then() -> None:
        signal.raise_signal(signal.SIGINT)
        raise HostError("broken by it")

    suites.add("one", act=lambda: asyncio.run(fail_then()))
    assert uspace("bench", "--output", "name").exit_code == 130


@pytest.mark.parametrize("names", [("one",), ("one", "two")])
def test_a_run_that_measured_nothing_says_why_once_and_leaves_nothing(
    names: tuple[str, ...], uspace: Uspace, suites: FakeSuites
) -> None:
    for name in names:
        suites.add_silent(name, act=lambda: fail(HostError("fio is missing")))
    result = uspace("bench", "--output", "name")
    assert result.exit_code == 1
    assert not result.stdout
    failed = "".join(f"{name}: failed\n" for name in names)
    assert result.stderr == f"{failed}error: fio is missing\n"
    assert not list(Path().iterdir())


def test_interrupted_on_a_full_disk_both_are_said(
    uspace: Uspace, suites: FakeSuites, refuge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill = disk_that_gets_full(monkeypatch, Path.cwd())

    def act() -> None:
        fill()
        raise KeyboardInterrupt

    suites.add("one", act=act)
    result = uspace("bench", "--output", "name")
    assert result.exit_code == 130
    headline, note = result.stderr.splitlines()[-2:]
    assert headline == "interrupted"
    assert note.startswith("  name.json: cannot be written")


def test_a_suite_that_fails_does_not_stop_the_others(uspace: Uspace, suites: FakeSuites) -> None:
    suites.add("one", act=lambda: fail(DeviceTimeout("0000:00:04.0: silent")))
    suites.add("two")
    suites.add("three", act=lambda: fail(HostError("no rights")))
    result = uspace("bench", "--output", "name")
    assert result.exit_code == 1
    assert result.stderr.endswith("error: 0000:00:04.0: silent\n  no rights\n")
    results = read_results(Path("name.json"))
    assert not results.complete
    assert [each.name for each in results.suites] == ["one", "two", "three"]
    assert "  skipped: what was left of it: 0000:00:04.0: silent" in result.stdout


def test_an_error_of_a_plugin_is_shown_after_what_was_measured(
    uspace: Uspace, suites: FakeSuites
) -> None:
    suites.add("one", act=lambda: fail(ZeroDivisionError("oh")))
    result = uspace("bench", "--output", "name")
    assert result.exit_code == 1
    assert not read_results(Path("name.json")).complete
    assert "work" in result.stdout
    assert "ended early, by a failure: what was measured is kept" in result.stderr


def test_an_error_of_a_plugin_comes_with_its_suite_and_the_frames_of_the_plugin(
    capsys: pytest.CaptureFixture[str], suites: FakeSuites
) -> None:
    suites.add("one", act=lambda: fail(ZeroDivisionError("oh")))
    with pytest.raises(SystemExit):
        main(["bench", "--output", "name"])
    said = capsys.readouterr().err
    assert said.endswith("ZeroDivisionError: oh\nin suite one, more work\n")
    assert "bench_suites.py" in said
    assert "runner.py" not in said


def test_an_error_between_comparisons_comes_with_its_suite(
    capsys: pytest.CaptureFixture[str], suites: FakeSuites
) -> None:
    suites.add_silent("one", act=lambda: fail(ZeroDivisionError("oh")))
    with pytest.raises(SystemExit):
        main(["bench", "--output", "name"])
    said = capsys.readouterr().err
    assert said.startswith("ended early, by a failure: nothing was measured, so nothing is kept\n")
    assert said.endswith("ZeroDivisionError: oh\nin suite one\n")


SLOW = """
import sys, time
from uspace_drv.bench import Comparison, Sample, Suite

def fast():
    return Sample(operations=1, seconds=1.0)

def slow():
    print("asleep", file=sys.stderr, flush=True)
    time.sleep(50)

def compare(setting):
    ways = {"fast": fast, "faster": fast}
    try:
        yield Comparison(name="one", operation="call", ways=ways, baseline="fast")
        yield Comparison(name="two", operation="call", ways={"slow": slow}, baseline="slow")
    finally:
        print("cleaned up", flush=True)

suite = Suite(summary="slow", compare=compare)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_middle_of_a_sample(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    (tmp_path / "slow_suite.py").write_text(SLOW)
    metadata = tmp_path / "slow-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Name: slow\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(f"[{GROUP}]\nslow = slow_suite:suite\n")
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "uspace_drv", "bench", "slow", "--quick", "--output", "name"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("slow: one: fast 1.00 s; faster 1.00 x")
        assert process.stderr.readline() == "asleep\n"
        process.send_signal(number)
        output, errors = process.communicate(timeout=50)
    assert process.returncode == code, errors
    assert output.startswith("cleaned up\n")
    assert "ended early" in errors
    results = read_results(tmp_path / "name.json")
    assert [each.complete for each in results.suites[0].comparisons] == [True, False]
    assert {"name.html", "name.png", "name-dark.png"} <= {each.name for each in tmp_path.iterdir()}


@pytest.mark.parametrize(("ignored", "code"), [(False, 129), (True, 0)])
def test_a_terminal_that_hangs_up(
    ignored: bool, code: int, uspace: Uspace, suites: FakeSuites
) -> None:
    suites.add("one", act=partial(os.kill, os.getpid(), signal.SIGHUP))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        assert uspace("bench", "--output", "name").exit_code == code
    finally:
        signal.signal(signal.SIGHUP, before)
    assert read_results(Path("name.json")).complete == ignored

"""`uspace bench`: which suites, what is printed, and what becomes of results when all goes well."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.cli.bench_suites import FakeSuites
from uspace_drv.bench.noise import FEW
from uspace_drv.bench.results import read_results
from uspace_drv.cli import bench as command
from uspace_drv.cli.bench_run import Wishes

Uspace = Callable[..., Result]


@pytest.mark.parametrize("words", [(), ("run",), ("--quick",), ("one", "two"), ("run", "one")])
def test_run_is_meant_where_no_command_is_named(
    words: tuple[str, ...], uspace: Uspace, suites: FakeSuites
) -> None:
    suites.add("one")
    suites.add("two")
    result = uspace("bench", *words, "--output", "name")
    assert result.exit_code == 0, result.output
    measured = [each.name for each in read_results(Path("name.json")).suites]
    assert measured == (["one"] if words == ("run", "one") else ["one", "two"])


def test_the_tables_and_the_files_are_shown(uspace: Uspace, suites: FakeSuites) -> None:
    suites.add("one", skip="the kernel's way")
    result = uspace("bench", "--output", "name.json")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    title = lines.index("one: suite one")
    assert lines[title + 1].split()[:3] == ["way", "figure", "ratio"]
    assert lines[title + 2] == "work"
    assert lines[title + 3].split()[0] == "kernel"
    assert lines[title + 4].split()[0] == "user"
    assert "  skipped: the kernel's way: not here" in lines
    assert lines[-5:] == ["written:", "  name.json", "  name.html", "  name.png", "  name-dark.png"]
    assert "one: work: kernel 1.00 us; user 2.00 x" in result.stderr
    assert "one: skipped: the kernel's way: not here\n" in result.stderr
    results = read_results(Path("name.json"))
    assert results.complete
    assert results.command[1:] == sys.argv[1:]
    assert results.machines[0].facts == {"kernel": "fake"}


def test_files_are_named_by_the_time(uspace: Uspace, suites: FakeSuites) -> None:
    suites.add("one")
    assert uspace("bench").exit_code == 0
    (path,) = Path().glob("*.json")
    assert path.name.startswith("uspace-bench-2")


def test_json_is_the_results_file(uspace: Uspace, suites: FakeSuites) -> None:
    suites.add("one")
    result = uspace("bench", "--json", "--output", "name")
    assert json.loads(result.stdout) == json.loads(Path("name.json").read_text())
    assert "written:\n  name.json" in result.stderr


@pytest.mark.parametrize(
    ("name", "hint"),
    [("nvm", "did you mean nvme?"), ("lst", "did you mean list?"), ("x", "there are: nvme")],
)
def test_an_unknown_suite_is_wrong_usage(
    name: str, hint: str, uspace: Uspace, suites: FakeSuites
) -> None:
    suites.add("nvme")
    result = uspace("bench", name)
    assert result.exit_code == 2
    assert f"no suite is called {name!r}; {hint}" in result.stderr
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--device", "a"), "belong to one SUITE"),
        (("one", "two", "--via", "vfio"), "belong to one SUITE"),
        (("one", "--vm", "--device", "a"), "--vm has devices of its own"),
        (("one", "--beside", "a"), "beside a --device"),
        (("one", "--seconds", "0"), "not in the range"),
        (("one", "--seconds", "nan"), "nan is no number of seconds"),
        (("one", "--seconds", "inf"), "inf is no number of seconds"),
        (("one", "--via", "vfio"), "--via opens a --device, or one of --vm"),
        (("one", "--output", ""), "names no file"),
        (("one", "--output", "/"), "names no file"),
        (("report", __file__, "--output", ""), "names no file"),
    ],
)
def test_options_that_contradict_each_other(
    words: tuple[str, ...], why: str, uspace: Uspace, suites: FakeSuites
) -> None:
    result = uspace("bench", *words)
    assert result.exit_code == 2
    assert why in result.stderr


def test_the_suite_hears_where_to_measure(uspace: Uspace, suites: FakeSuites) -> None:
    suites.add("one")
    words = ("--device", "0000:00:04.0", "--beside", "0000:00:05.0", "--via", "vfio")
    uspace("bench", "one", "--seconds", "0.3", "--output", "name", *words)
    (setting,) = suites.settings
    assert (setting.device, setting.beside, setting.via) == words[1::2]
    assert setting.seconds == pytest.approx(0.006)
    assert read_results(Path("name.json")).suites[0].device == "0000:00:04.0"


def test_a_suite_that_is_named_twice_is_measured_once(uspace: Uspace, suites: FakeSuites) -> None:
    suites.add("one")
    result = uspace("bench", "one", "one", "--device", "0000:00:04.0")
    assert result.exit_code == 0, result.output
    assert len(suites.settings) == 1


def test_a_suite_with_nothing_to_measure_says_so(uspace: Uspace, suites: FakeSuites) -> None:
    suites.add_silent("one")
    result = uspace("bench")
    assert result.exit_code == 0
    assert result.stderr == ("one: measured nothing\nnothing was measured, so nothing is written\n")
    assert not result.stdout
    assert not list(Path().iterdir())


def test_json_of_nothing_says_why(uspace: Uspace, suites: FakeSuites) -> None:
    suites.add_broken("one")
    result = uspace("bench", "--json")
    assert result.exit_code == 0
    (suite,) = json.loads(result.stdout)["suites"]
    assert "no libone" in suite["skipped"][0]["why"]
    assert not list(Path().iterdir())


def test_how_long_it_measures() -> None:
    usual, quick = Wishes(), Wishes(quick=True)
    assert usual.plan().seconds == 30
    assert usual.setting().seconds == pytest.approx(0.6)
    assert quick.plan().seconds == 3
    assert quick.setting().seconds == pytest.approx(0.06)
    assert quick.plan().least_rounds == usual.plan().least_rounds == FEW
    assert Wishes(seconds=600).setting().seconds == 1
    assert quick.words() == ["--quick", "--seconds", "3"]


def test_a_broken_suite_is_skipped_with_its_reason(uspace: Uspace, suites: FakeSuites) -> None:
    suites.add("one")
    suites.add_broken("two")
    result = uspace("bench")
    assert result.exit_code == 0
    assert "skipped: all of it: cannot be loaded: ImportError: no libtwo" in result.stdout


def test_a_broken_suite_that_is_named_is_an_error(uspace: Uspace, suites: FakeSuites) -> None:
    suites.add_broken("two")
    result = uspace("bench", "two")
    assert result.exit_code == 1
    assert "suite two cannot be loaded: ImportError: no libtwo" in result.stderr


def test_suites_are_listed(uspace: Uspace, suites: FakeSuites) -> None:
    suites.add("one")
    suites.add_broken("two")
    lines = [line.split(maxsplit=1) for line in uspace("bench", "list").stdout.splitlines()]
    assert [words[0] for words in lines] == ["suite", "one", "two"]
    assert lines[2][1].startswith("broken: ImportError: no libtwo")
    one, two = json.loads(uspace("bench", "list", "--json").stdout)
    assert (one["summary"], one["reason"], one["devices"]) == ("suite one", None, [])
    assert (two["summary"], two["reason"]) == (None, "ImportError: no libtwo")


def test_a_report_is_written_again(uspace: Uspace, suites: FakeSuites) -> None:
    suites.add("one")
    uspace("bench", "--output", "name")
    Path("name.html").unlink()
    result = uspace("bench", "report", "name.json")
    assert result.exit_code == 0
    assert Path("name.html").exists()
    assert result.stderr == "replaced: name.png\nreplaced: name-dark.png\n"
    result = uspace("bench", "report", "name.json", "--output", "other")
    assert "  other.html\n" in result.stdout
    result = uspace("bench", "report", "name.json", "--output", "other")
    assert result.exit_code == 1
    assert "other.html: exists already" in result.stderr


def test_a_report_as_markdown(uspace: Uspace, suites: FakeSuites) -> None:
    suites.add("one")
    uspace("bench", "--output", "name")
    result = uspace("bench", "report", "name.json", "--markdown")
    assert result.exit_code == 0
    assert result.stdout.startswith("## one")


def test_two_files_are_compared(uspace: Uspace, suites: FakeSuites) -> None:
    suites.add("one", skip="nothing")
    uspace("bench", "--output", "a")
    suites.add("two")
    suites.machine["kernel"] = "another"
    uspace("bench", "--output", "b")
    result = uspace("bench", "compare", "a.json", "b.json")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("A: a.json, 20")
    (row,) = (line for line in lines if line.split()[:1] == ["user"])
    assert row.count("1.00 x (1.00 to 1.00)") == 2
    assert row.count("2.00 x (2.00 to 2.00)") == 2
    assert any(line.split() == ["kernel", "fake", "another"] for line in lines)
    assert "only in B: two, work, user (time)" in lines
    data = json.loads(uspace("bench", "compare", "a.json", "b.json", "--json").stdout)
    assert data["ways"][0]["is_baseline"] is True
    assert len(data["only_b"]) == 2


def test_files_with_nothing_in_common(uspace: Uspace, suites: FakeSuites) -> None:
    for name in ("one", "two"):
        suites.add(name)
        uspace("bench", name, "--output", name)
    result = uspace("bench", "compare", "one.json", "two.json")
    assert result.exit_code == 0
    assert "\nnothing is in both\n" in result.stdout


def test_what_is_no_results_file_is_an_error(uspace: Uspace, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("{}")
    for words in (("report",), ("report", "--markdown"), ("compare", str(path))):
        result = uspace("bench", *words, str(path))
        assert result.exit_code == 1
        assert f"error: {path}: no results of uspace bench" in result.stderr


def test_the_help_has_the_options_of_run(uspace: Uspace) -> None:
    result = uspace("bench", "--help")
    assert result.exit_code == 0
    for word in ("--quick", "--vm", "--beside", "compare", "Set two results files"):
        assert word in result.stdout
    assert "--lines" not in result.stdout


def test_without_the_extra_help_works_and_the_rest_says_what_to_install(
    uspace: Uspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = importlib.util.find_spec

    def without(name: str) -> object:
        return None if name in {"hdrh", "msgspec"} else known(name)

    monkeypatch.setattr(command, "find_spec", without)
    assert uspace("bench", "--help").exit_code == 0
    for words in (["--quick"], ["list"], ["compare", "a", "b"], ["report", "a"]):
        result = uspace("bench", *words)
        assert result.exit_code == 1
        assert "needs the Python packages hdrh, msgspec; run: " in result.stderr
        assert result.stderr.endswith("scripts/setup bench\n")
    monkeypatch.setattr(command, "__file__", str(tmp_path / "a/b/c.py"))
    assert uspace("bench").stderr.endswith("pip install 'uspace-drv[bench]'\n")


def test_help_imports_nothing_of_the_extra() -> None:
    code = (
        "import sys; from uspace_drv.cli import main\n"
        "main(['bench', '--help'], standalone_mode=False)\n"
        f"assert not set(sys.modules) & set({command.EXTRA}), 'imported'"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr

"""`uspace bench --vm` as a user types it: both sides measured in a guest, a table and a report.

Figures are not judged: a timing decides no test. That both sides did something, and that
processors were counted, is.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from uspace_drv.bench.histogram import Histogram
from uspace_drv.bench.results import Results, SuiteResult, read_results

pytestmark = pytest.mark.timeout(1200)

KERNELS = {"nvme": {"io_uring", "libaio", "pread"}, "rng": {"/dev/hwrng"}}
OURS = {"uspace, polled", "uspace, by interrupt"}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Path, str]:
    base = tmp_path_factory.mktemp("bench") / "both"
    command = [sys.executable, "-P", "-m", "uspace_drv", "bench", *KERNELS, "--vm", "--quick"]
    done = subprocess.run(
        [*command, "--output", base], capture_output=True, text=True, timeout=1100, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return read_results(base.with_suffix(".json")), base, done.stdout


def suite_of(results: Results, name: str) -> SuiteResult:
    (found,) = (suite for suite in results.suites if suite.name == name)
    return found


@pytest.mark.parametrize("name", KERNELS)
def test_both_sides_are_measured(results: tuple[Results, Path, str], name: str) -> None:
    assert results[0].complete
    suite = suite_of(results[0], name)
    names = {way.name for comparison in suite.comparisons for way in comparison.ways}
    assert names >= KERNELS[name] | OURS
    for comparison in suite.comparisons:
        assert comparison.complete
        assert len(comparison.ratios) == len(comparison.ways) - 1
        for ratio in comparison.ratios:
            assert 0 < ratio.figure.low <= ratio.figure.middle <= ratio.figure.high


@pytest.mark.parametrize("name", KERNELS)
def test_processors_and_latencies_are_counted(
    results: tuple[Results, Path, str], name: str
) -> None:
    for comparison in suite_of(results[0], name).comparisons:
        for way in comparison.ways:
            for one in way.rounds:
                assert one.busy is not None
                # Two emulated processors; the moments at both ends are a little apart.
                assert 0 < one.busy < 2 * one.seconds + 0.5
            assert way.latencies is not None
            assert Histogram.decode(way.latencies).count > 0


def test_it_says_where_it_ran_and_shows_all_of_it(results: tuple[Results, Path, str]) -> None:
    document, base, shown = results
    roles = [machine.facts.get("role", "") for machine in document.machines]
    assert len(roles) > 1
    page = base.with_suffix(".html").read_text(encoding="utf-8")
    for name in OURS | {"io_uring", "/dev/hwrng"}:
        assert name in page
        assert name in shown
    assert base.with_suffix(".png").read_bytes().startswith(b"\x89PNG")

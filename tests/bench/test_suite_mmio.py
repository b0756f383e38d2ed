from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from uspace_drv.bench import Comparison, Setting
from uspace_drv.bench.suites import mmio
from uspace_drv.errors import UnsupportedError


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


@pytest.mark.usefixtures("nothing_left")
def test_every_idiom_and_backend_is_measured(capfd: pytest.CaptureFixture[str]) -> None:
    setting = tiny()
    seen = measure_all(mmio.suite.compare(setting))
    idioms = [each.name for each in mmio.IDIOMS]
    assert seen == {
        "32-bit register read, by idiom": idioms,
        "32-bit register write, by idiom": idioms,
        "32-bit register read, by backend": [
            "plain memory", "model in this process", "vfio-user, mapped BAR",
            "vfio-user, by message",
        ],
    }  # fmt: skip
    assert setting.skipped == []
    assert capfd.readouterr() == ("", ""), "whoever measures has the terminal"


def test_every_idiom_reads_and_writes_the_same_register() -> None:
    """Else it would not be the same access that is compared."""
    with ExitStack() as stack:
        names = mmio._names(tiny(), stack)
        for idiom in mmio.IDIOMS:
            exec("view[8] = 0", names)
            exec(idiom.write, names)
            wanted = 1 if idiom.name == "typed, one field" else 7
            assert eval("view[8]", names) == wanted, idiom.name
            seen = eval(idiom.read, names)
            assert getattr(seen, "raw", seen) == wanted, idiom.name
        names.clear()


@pytest.mark.usefixtures("nothing_left")
def test_closing_it_half_way_leaves_nothing() -> None:
    comparisons = mmio.suite.compare(tiny())
    next(comparisons)
    comparisons.close()  # type: ignore[attr-defined]


def test_without_a_compiler_cffi_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    setting = tiny()
    comparisons = mmio.suite.compare(setting)
    assert "cffi, API mode" not in next(comparisons).ways
    comparisons.close()  # type: ignore[attr-defined]
    assert [(each.what, each.why) for each in setting.skipped] == [
        ("cffi, API mode", "no cc; run: apt-get install gcc")
    ]


@pytest.mark.usefixtures("nothing_left")
def test_a_device_that_is_known_is_read() -> None:
    setting = tiny(device="virtual:edu")
    seen = measure_all(mmio.suite.compare(setting))
    assert seen == {
        "32-bit register read of virtual:edu, by backend": ["plain memory", "BAR, virtual"]
    }
    assert ["through VFIO only, not virtual" in each.why for each in setting.skipped] == [True]


@pytest.mark.usefixtures("nothing_left")
def test_a_device_that_is_not_known_is_not_read() -> None:
    wanted = r"virtual:nvme: is .*effects.* only those of edu \(1234:11e8\) and pci-testdev"
    with pytest.raises(UnsupportedError, match=wanted):
        next(mmio.suite.compare(tiny(device="virtual:nvme")))

"""Driver plugins: found, matched by data, and listed with a reason when they are broken."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from tests.unit.specimens import Bell, BellModel, BellRegisters
from uspace_drv import Driver, PciId, Plugin, UioName, attach, plugins
from uspace_drv.errors import LayoutError, NoDevice, NoDriver
from uspace_drv.pci.ids import FunctionIds
from uspace_drv.plugins import (
    driver_for,
    installed_plugins,
    plugin_for,
    plugin_named,
    plugins_for,
)

BELL = FunctionIds(0x1234, 0xBE11)

Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Install]:
    """Install plugins instead of those that are: name and module's source, in a file of its own."""
    monkeypatch.syspath_prepend(tmp_path)
    made: list[str] = []

    def install(*entries: tuple[str, str]) -> None:
        found = []
        for name, source in entries:
            module = f"plugin_{len(made)}_of_test"
            made.append(module)
            (tmp_path / f"{module}.py").write_text(source)
            found.append(EntryPoint(name, f"{module}:plugin", plugins.GROUP))
        monkeypatch.setattr(plugins, "entry_points", lambda group: found)
        installed_plugins.cache_clear()

    yield install
    for module in made:
        sys.modules.pop(module, None)
    installed_plugins.cache_clear()


GOOD = "from tests.unit.test_plugins import PLUGIN as plugin"
PLUGIN = Plugin(driver=Bell, registers={0: BellRegisters}, model=BellModel)


def test_good_plugin_is_found_by_name_and_by_ids(install: Install) -> None:
    install(("bell", GOOD))
    assert plugin_named("bell") is PLUGIN
    assert [found.name for found in plugins_for(BELL)] == ["bell"]
    assert plugin_for(BELL, "0000:00:04.0") is PLUGIN
    assert driver_for(BELL, "0000:00:04.0") is Bell
    with attach("virtual:bell") as driver:
        assert isinstance(driver, Bell)
        assert driver.device.address == "virtual:bell"


def test_edu_is_installed_with_the_package() -> None:
    installed_plugins.cache_clear()
    assert plugin_named("edu").driver.__name__ == "Edu"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("plugin = 1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit('not on this machine')", "SystemExit: not on this machine"),
        ("thing = 5", "AttributeError: module .* has no attribute 'plugin'"),
        ("plugin = 5", "plugin_0_of_test:plugin is a int, not a uspace_drv.Plugin"),
        (
            "from uspace_drv import Plugin\nplugin = Plugin(driver=5)",
            "LayoutError: .*driver=5.: expected a subclass of Driver",
        ),
    ],
)
def test_broken_plugin_is_listed_with_its_reason(
    install: Install, source: str, reason: str
) -> None:
    install(("cracked", source), ("bell", GOOD))
    bell, cracked = installed_plugins()
    assert (bell.name, bell.reason, cracked.name, cracked.plugin) == ("bell", None, "cracked", None)
    with pytest.raises(NoDriver, match=rf"driver cracked \(plugin_0_of_test:plugin\).*: {reason}"):
        plugin_named("cracked")
    assert driver_for(BELL, "0000:00:04.0") is Bell


def test_no_driver_lists_what_was_tried(install: Install) -> None:
    install(("cracked", "1 / 0"), ("bell", GOOD))
    with pytest.raises(NoDriver) as caught:
        driver_for(FunctionIds(0x8086, 1), "0000:00:04.0")
    assert (
        str(caught.value) == "0000:00:04.0: no driver for 8086:0001; tried bell, cracked (broken)"
    )
    with pytest.raises(NoDriver, match=r"no driver is called 'ball'; installed: bell, cracked"):
        plugin_named("ball")


def test_nothing_installed(install: Install) -> None:
    install()
    with pytest.raises(NoDriver, match="installed: none"):
        attach("virtual:bell")


def test_two_of_one_name(install: Install) -> None:
    install(("bell", GOOD), ("bell", GOOD))
    assert len(installed_plugins()) == 2
    expected = (
        "2 drivers are called 'bell': plugin_0_of_test:plugin and plugin_1_of_test:plugin; "
        "uninstall one"
    )
    with pytest.raises(NoDriver, match=expected):
        plugin_named("bell")


def test_plugin_without_a_model(install: Install) -> None:
    install(("bell", "from tests.unit.test_plugins import NO_MODEL as plugin"))
    with pytest.raises(NoDevice, match="virtual:bell: the plugin bell brings no model"):
        attach("virtual:bell")


NO_MODEL = Plugin(driver=Bell)


class Strange(Driver):
    id_table = [PciId(0x1234), "1234:be11"]  # type: ignore[list-item]


def test_match_table_holds_matches_only() -> None:
    with pytest.raises(LayoutError, match=r"Strange\.id_table has '1234:be11'; expected PciId"):
        Plugin(driver=Strange)


def test_uio_names_match_too(install: Install) -> None:
    class Switch(Driver):
        id_table = [UioName("switch")]

    global SWITCH  # noqa: PLW0603 - where the module of the plugin finds it
    SWITCH = Plugin(driver=Switch)
    install(("switch", "from tests.unit.test_plugins import SWITCH as plugin"))
    assert [found.name for found in plugins_for(UioName("switch"))] == ["switch"]
    assert plugins_for(BELL) == []


SWITCH = NO_MODEL

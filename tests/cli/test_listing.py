"""What there is: functions, UIO nodes, models, plugins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from click.testing import Result

Uspace = Callable[..., Result]


class Machine(Protocol):
    def file(self, path: str, content: str | bytes) -> None: ...


def test_functions_with_all_that_is_known(uspace: Uspace, machine: Machine) -> None:
    result = uspace("list", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert list(found) == ["functions", "uio", "models"]
    assert found["functions"][0] == {
        "address": "0000:00:04.0",
        "vendor": "0x1234",
        "device": "0x11e8",
        "name": "A device that computes factorials and copies memory (QEMU's teaching device)",
        "class_code": "0x00ff00",
        "class": found["functions"][0]["class"],  # as exact as this machine's pci.ids
        "plugins": ["edu"],
        "driver": "vfio-pci",
        "iommu_group": 7,
        "uio": None,
    }


def test_uio_nodes_and_whose_they_are(uspace: Uspace, machine: Machine) -> None:
    machine.file("sys/class/uio/uio0/name", "uio_pci_generic\n")
    machine.file("sys/bus/pci/devices/0000:00:04.1/uio/uio0/name", "")
    machine.file("sys/class/uio/uio1/name", "pruss_evt\n")
    assert json.loads(uspace("list", "--json").stdout)["uio"] == [
        {
            "address": "uio:uio0",
            "name": "uio_pci_generic",
            "function": "0000:00:04.1",
            "plugins": ["edu"],
        },
        {"address": "uio:uio1", "name": "pruss_evt", "function": None, "plugins": []},
    ]
    assert "uio:uio1  pruss_evt        -" in uspace("list").stdout


def test_as_a_table(uspace: Uspace, machine: Machine) -> None:
    lines = uspace("list").stdout.splitlines()
    assert lines[0].split() == ["address", "id", "name", "driver", "group", "plugin"]
    assert lines[1].startswith("0000:00:04.0  1234:11e8  ")
    assert lines[1].endswith("vfio-pci  7      edu")
    (edu,) = (line.split() for line in lines if line.startswith("virtual:edu"))
    assert edu[1:4] == ["A", "device", "that"]


def test_this_machine_can_be_listed(uspace: Uspace) -> None:
    found = json.loads(uspace("list", "--json").stdout)
    assert {"virtual:edu"} <= {model["address"] for model in found["models"]}


def plugin_facts(uspace: Uspace, name: str) -> dict[str, Any]:
    result = uspace("drivers", "--json")
    assert result.exit_code == 0
    found = {facts["name"]: facts for facts in json.loads(result.stdout)}
    return dict(found[name])


def test_plugins(uspace: Uspace) -> None:
    assert plugin_facts(uspace, "edu") == {
        "name": "edu",
        "origin": "uspace_drivers.edu:plugin",
        "description": "A device that computes factorials and copies memory "
        "(QEMU's teaching device).",
        "matches": ["1234:11e8"],
        "verbs": ["identify", "is_alive", "factorial", "store", "load", "self_test"],
        "registers": [0],
        "model": "virtual:edu",
        "broken": None,
    }
    assert "verbs      identify, is-alive, factorial" in uspace("drivers").stdout


def test_a_driver_that_says_nothing_of_itself(
    uspace: Uspace, add_plugin: Callable[[str, str], Path]
) -> None:
    source = (
        "from uspace_drv import Driver, Plugin\n\nclass Mute(Driver): ...\n\nplugin = Plugin(Mute)"
    )
    add_plugin("mute", source)
    lines = uspace("drivers").stdout.splitlines()
    assert "mute" in lines
    assert not any("broken" in line for line in lines)


def test_a_broken_plugin_is_listed_with_its_reason(
    uspace: Uspace, add_plugin: Callable[[str, str], Path]
) -> None:
    add_plugin("shaky", "import nowhere_to_be_found")
    facts = plugin_facts(uspace, "shaky")
    assert facts["broken"] == "ModuleNotFoundError: No module named 'nowhere_to_be_found'"
    assert (facts["verbs"], facts["model"]) == ([], None)
    assert "reason  ModuleNotFoundError: No module" in uspace("drivers").stdout
    assert "shaky broken: ModuleNotFoundError" in " ".join(uspace("run", "--help").stdout.split())
    assert "driver shaky (shaky_plugin:plugin) is broken" in uspace("run", "shaky").stderr

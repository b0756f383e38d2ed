"""What a device is and has, of a model and of a function in sysfs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol

from click.testing import Result

Uspace = Callable[..., Result]
KEYS = {
    *("address", "via", "vendor", "device", "name", "class_code", "class", "plugins"),
    *("subsystem", "revision", "driver", "driver_override", "enabled", "numa_node"),
    *("reset_methods", "iommu_group", "bars", "interrupts", "capabilities", "notes"),
}
MSI = {
    "id": "0x5",
    "offset": "0x40",
    "name": "MSI",
    "detail": "1 vector(s), off, 64-bit address",
}


class Machine(Protocol):
    def file(self, path: str, content: str | bytes) -> None: ...


def facts(uspace: Uspace, address: str) -> dict[str, Any]:
    result = uspace("info", address, "--json")
    assert result.exit_code == 0
    found = dict(json.loads(result.stdout))
    assert set(found) == KEYS
    return found


def test_a_model(uspace: Uspace) -> None:
    found = facts(uspace, "virtual:edu")
    assert (found["via"], found["driver"], found["iommu_group"]) == ("virtual", None, None)
    assert found["interrupts"] == {"intx": 1, "msi": 1, "msix": 0}
    assert found["bars"][0]["size"] == 1 << 20
    assert found["capabilities"] == [MSI]
    assert found["plugins"] == ["edu"]


def test_a_function(uspace: Uspace, machine: Machine) -> None:
    found = facts(uspace, "00:04.0")
    assert found["address"] == "0000:00:04.0"
    assert found["iommu_group"] == {
        "number": 7,
        "type": "DMA-FQ",
        "members": [
            {"address": "0000:00:04.0", "driver": "vfio-pci"},
            {"address": "0000:00:04.1", "driver": "e1000e"},
        ],
    }
    assert found["bars"] == [
        {
            "number": 0,
            "size": 1 << 20,
            "start": "0xfea00000",
            "text": "bar 0: 0xfea00000, 0x100000 bytes, memory",
        }
    ]
    assert found["interrupts"] == {"intx": 1, "msi": 1, "msix": 0}
    assert found["capabilities"] == [MSI]
    assert (found["numa_node"], found["reset_methods"]) == (0, ["flr", "bus"])
    assert found["notes"] == []


def test_for_people(uspace: Uspace, machine: Machine) -> None:
    text = uspace("info", "0000:00:04.0").stdout
    assert "0000:00:04.1 (e1000e)" in text
    assert "  capabilities  [0x40] MSI: 1 vector(s)" in text
    assert "  reset         flr, bus" in text


def test_what_a_user_cannot_see_is_said(uspace: Uspace, machine: Machine) -> None:
    machine.file("sys/bus/pci/devices/0000:00:04.0/config", b"\x34\x12\xe8\x11" + bytes(60))
    found = facts(uspace, "0000:00:04.0")
    assert found["capabilities"] is None
    assert found["interrupts"] == {"intx": 0, "msi": None, "msix": None}
    assert (
        "64 bytes of configuration space; run: sudo uspace info 0000:00:04.0" in found["notes"][0]
    )


def test_a_function_that_is_gone(uspace: Uspace, machine: Machine) -> None:
    found = facts(uspace, "0000:00:04.1")
    assert "reads all ones" in found["notes"][0]
    assert found["interrupts"]["intx"] == 0


def test_the_function_behind_a_uio_node(uspace: Uspace, machine: Machine) -> None:
    machine.file("sys/bus/pci/devices/0000:00:04.1/uio/uio3/name", "")
    assert facts(uspace, "uio:uio3")["address"] == "0000:00:04.1"
    assert "uio:uio4: no PCI function is behind it" in uspace("info", "uio:uio4").stderr
